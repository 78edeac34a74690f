package main

import (
	"context"
	"errors"
)

func startPostfix(ctx context.Context, dir, relayTo string) (*target, error) {
	return nil, errors.New("x")
}
