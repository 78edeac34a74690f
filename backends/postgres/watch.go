package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"tabard/table"
)

const (
	// ownChannel is where the provisioning schema tells of changes.
	ownChannel = "tabard"
	// A quiet connection is asked for a sign of life this often, and must give it
	// within this time.
	heartbeat     = 3 * time.Second
	heartbeatWait = 3 * time.Second
)

// Watch listens on a connection of its own.
func (t *Table) Watch(ctx context.Context, changed func(table.Change)) error {
	if t.channel == "" {
		return fmt.Errorf("%w: no notify CHANNEL is configured", table.ErrUnsupported)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(t.pool.life, cancel)()
	// A server that only reads cannot be listened to: target_session_attrs
	// decides, as for questions.
	l, err := t.pool.dial(ctx, t.pool.config)
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = l.Close(ctx) // nothing can be lost
	}()
	if err := within(ctx, t.pool.timeout, func(ctx context.Context) error {
		_, err := l.Exec(ctx, "LISTEN "+pgx.Identifier{t.channel}.Sanitize())
		return err
	}); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	changed(table.Change{})
	for {
		err := within(ctx, heartbeat, func(ctx context.Context) error {
			n, err := l.WaitForNotification(ctx)
			if err == nil {
				parsePayload(n.Payload, changed)
			}
			return err
		})
		if err == nil {
			continue
		}
		if ctx.Err() != nil || l.IsClosed() || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("wait for notifications: %w", err)
		}
		if err := within(ctx, heartbeatWait, l.Ping); err != nil {
			return fmt.Errorf("wait for notifications: %w", err)
		}
	}
}

func within(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return f(ctx)
}

// parsePayload reads what tabard_notify sends: lines "SERVICE[,SERVICE...] KEY",
// or without key. Whatever else it is, all may have changed.
func parsePayload(payload string, changed func(table.Change)) {
	var all []table.Change
	for line := range strings.SplitSeq(strings.TrimSuffix(payload, "\n"), "\n") {
		names, key, _ := strings.Cut(line, " ")
		for name := range strings.SplitSeq(names, ",") {
			s, err := table.ParseService(name)
			if err != nil {
				changed(table.Change{})
				return
			}
			all = append(all, table.Change{Service: s, Key: key})
		}
	}
	for _, c := range all {
		changed(c)
	}
}
