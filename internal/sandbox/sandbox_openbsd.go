package sandbox

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of the layers.
const (
	layerUnveil = "unveil"
	layerPledge = "pledge"
)

// begin has nothing to do: what is hidden could not become the root directory.
func begin(Profile) []Layer { return nil }

// finish uses unveil for files and pledge for the rest.
func finish(p Profile) []Layer {
	if p.Programs != "" || p.AllFiles {
		reason := p.Programs
		if reason == "" {
			reason = "its user's rights decide"
		}
		return []Layer{waived(layerUnveil, reason), NewLayer(layerPledge, pledge(p))}
	}
	return []Layer{NewLayer(layerUnveil, unveil(p)), NewLayer(layerPledge, pledge(p))}
}

func unveil(p Profile) error {
	var errs []error
	if p.Reads {
		errs = append(errs, unix.Unveil("/", "r"))
	}
	for _, dir := range p.Writes {
		errs = append(errs, unix.Unveil(dir, "rwc"))
	}
	if !p.files() {
		errs = append(errs, unix.Unveil("/", ""))
	}
	errs = append(errs, unix.UnveilBlock())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// Try it: everybody may open the null device, unless it is hidden.
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err == nil {
		_ = f.Close()
		return errors.New("it is said to be in force, but opening " + os.DevNull + " works")
	}
	return nil
}

// pledge has no harmless attempt: what it forbids kills the process. Its success
// is the kernel's word for it.
func pledge(p Profile) error {
	promises := []string{"stdio", "recvfd"}
	if p.Accepts || p.Connects != Nowhere {
		promises = append(promises, "inet")
	}
	if p.Accepts || p.Connects == Anywhere {
		promises = append(promises, "unix")
	}
	if p.Connects != Nowhere {
		promises = append(promises, "dns")
	}
	if p.Reads || p.AllFiles || len(p.Writes) > 0 || p.Programs != "" {
		promises = append(promises, "rpath", "flock")
	}
	if p.AllFiles || len(p.Writes) > 0 {
		promises = append(promises, "wpath", "cpath", "fattr")
	}
	if p.Programs != "" {
		promises = append(promises, "proc", "exec")
	}
	return unix.PledgePromises(strings.Join(promises, " "))
}
