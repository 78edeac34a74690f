//go:build !linux

package osmtpdtest

import (
	"context"
	"fmt"
	"os/exec"
	"runtime"
)

// namespace is never had here.
type namespace struct{}

func newNamespace(_, _ string) (*namespace, error) {
	return nil, fmt.Errorf("%w: not on %s", ErrNotAllowed, runtime.GOOS)
}

func (n *namespace) start(*exec.Cmd, uint32) error { return ErrNotAllowed }

func (n *namespace) close() error { return nil }

func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, name, args...)
}
