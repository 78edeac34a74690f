package password

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/go-crypt/x/yescrypt"
)

// What one verification may cost. Each bound is several times what the tools of
// today choose, and about two seconds or 256 MiB at most.
const (
	maxRounds     = 2_000_000 // of a digest: sha-crypt, PBKDF2, SCRAM
	maxBcrypt     = 15        // log2
	maxMemory     = 256 << 20 // bytes
	maxPasses     = 4 << 30   // bytes of memory times passes: argon2
	maxParallel   = 64
	maxBlockSize  = 64 // r of scrypt
	maxScryptLog2 = 21
)

// minKey is the least that is stored of a key, in bytes: no tool writes less, but a
// column that is too short cuts it, and what is left may open to many passwords.
const (
	minKey     = 16
	minKeyText = 22 // the same in base64, without padding; MD5 crypt has just that
)

// checkCrypt refuses a crypt(3) string whose parameters are out of bounds, one whose
// scheme is not on the list, and one whose hash is cut.
func checkCrypt(stored string) error {
	parts := strings.Split(stored, "$")
	if len(parts) < 4 || parts[0] != "" {
		return ErrScheme
	}
	if err := checkCost(parts); err != nil {
		return err
	}
	if len(parts[len(parts)-1]) < minKeyText {
		return fmt.Errorf("%w: the hash is cut", ErrFormat)
	}
	return nil
}

func checkCost(parts []string) error {
	id, options, _ := strings.Cut(parts[1], ",")
	switch id {
	case "1":
		return nil
	case "2", "2a", "2b", "2x", "2y":
		return within(parts[2], 4, maxBcrypt)
	case "bcrypt-sha256":
		return checkParams(parts[2], func(key string, n uint64) bool { return key != "r" || n >= 4 && n <= maxBcrypt })
	case "5", "6":
		return checkParams(parts[2], func(key string, n uint64) bool { return key != "rounds" || n <= maxRounds })
	case "md5":
		return checkParams(options, func(_ string, n uint64) bool { return n <= maxRounds })
	case "sha1", "pbkdf2", "pbkdf2-sha1", "pbkdf2-sha224", "pbkdf2-sha256", "pbkdf2-sha384", "pbkdf2-sha512":
		return within(parts[2], 1, maxRounds)
	case "argon2i", "argon2d", "argon2id":
		return checkArgon2(parts)
	case "scrypt":
		return checkScrypt(parts[2])
	case "y":
		return checkYescrypt(parts[2])
	}
	return ErrScheme
}

func within(s string, low, high uint64) error {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return fmt.Errorf("%w: cost", ErrFormat)
	}
	if n < low || n > high {
		return ErrCost
	}
	return nil
}

// checkParams calls ok for each name=number in a comma-separated list. Elements
// without '=' are a salt, which the decoder looks at.
func checkParams(list string, ok func(key string, n uint64) bool) error {
	for param := range strings.SplitSeq(list, ",") {
		key, value, found := strings.Cut(param, "=")
		if !found {
			continue
		}
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			// bcrypt-sha256 has t=2b; what matters has digits.
			if key == "t" {
				continue
			}
			return fmt.Errorf("%w: parameter", ErrFormat)
		}
		if !ok(key, n) {
			return ErrCost
		}
	}
	return nil
}

func checkArgon2(parts []string) error {
	if len(parts) != 6 {
		return fmt.Errorf("%w: argon2", ErrFormat)
	}
	memory, passes := uint64(32<<20), uint64(1)
	err := checkParams(parts[2]+","+parts[3], func(key string, n uint64) bool {
		switch key {
		case "m":
			memory = max(memory, n<<10)
		case "t":
			passes = max(passes, n)
		case "p":
			return n >= 1 && n <= maxParallel
		}
		return true
	})
	if err == nil && (memory > maxMemory || passes > maxPasses/memory) {
		return ErrCost
	}
	return err
}

func checkScrypt(params string) error {
	log2, block := uint64(16), uint64(8)
	err := checkParams(params, func(key string, n uint64) bool {
		switch key {
		case "ln":
			log2 = max(log2, n)
			return n >= 1 && n <= maxScryptLog2
		case "r":
			block = max(block, n)
			return n >= 1 && n <= maxBlockSize
		case "p":
			return n >= 1 && n <= 16
		}
		return true
	})
	if err == nil && 128*block<<log2 > maxMemory {
		return ErrCost
	}
	return err
}

func checkYescrypt(setting string) error {
	if len(setting) < 2 {
		return fmt.Errorf("%w: yescrypt", ErrFormat)
	}
	_, log2, block, err := yescrypt.DecodeSetting([]byte(setting))
	if err != nil {
		return fmt.Errorf("%w: yescrypt", ErrFormat)
	}
	if log2 < 1 || log2 > maxScryptLog2 || block < 1 || block > maxBlockSize || uint64(128*block)<<log2 > maxMemory {
		return ErrCost
	}
	return nil
}
