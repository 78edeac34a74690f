package ldap

import (
	"fmt"

	"tabard/backends/conf"
)

// maxFile bounds a file that a configuration names, in bytes.
const maxFile = 1 << 20

// readConf reads a configuration file in the form of OpenSMTPD's table-ldap for
// the table called name.
func readConf(path, name string) (*settings, error) {
	set := newSettings(name)
	if err := conf.Read(path, set.line, set.finish); err != nil {
		return nil, err
	}
	return set, nil
}

// line takes one line of a configuration file.
func (s *settings) line(key, value string) error {
	if err := s.set(key, value); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

func readFile(path string, max int) ([]byte, error) { return conf.ReadFile(path, max) }
