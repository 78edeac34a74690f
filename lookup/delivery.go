package lookup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"tabard/internal/address"
	"tabard/internal/config"
	"tabard/internal/format"
	"tabard/table"
)

// Delivery implements Local. The user's account is looked up again, so that a
// changed row applies to mail that is queued already. A missing action is a fault
// of the configuration, and so temporary; a missing user is final.
func (s *Service) Delivery(ctx context.Context, r DeliveryRequest) (Delivery, error) {
	return sure(ctx, func(d Delivery) bool { return d.Gone },
		func(ctx context.Context) (Delivery, error) { return s.delivery(ctx, r) })
}

func (s *Service) delivery(ctx context.Context, r DeliveryRequest) (Delivery, error) {
	a, ok := s.actions[r.Action]
	if !ok {
		return Delivery{}, fmt.Errorf("action %q is not configured any more", r.Action)
	}
	if a.Method == config.MethodRelay {
		return Delivery{}, fmt.Errorf("action %q does not deliver locally any more", r.Action)
	}
	account, d, err := s.account(ctx, a, r.User)
	if err != nil || d.Gone {
		return d, err
	}
	if err := s.checkOwner(a, &d); err != nil {
		return Delivery{}, fmt.Errorf("action %q: user %q: %w", a.Name, d.User, err)
	}
	v := s.deliveryValues(r, d.User, account.Home)
	if err := a.place(&d, v); err != nil {
		return Delivery{}, fmt.Errorf("action %q: user %q: %w", a.Name, d.User, err)
	}
	return d, nil
}

func gone(form string, args ...any) Delivery {
	return Delivery{Gone: true, Text: fmt.Sprintf(form, args...)}
}

// account finds the user whose mailbox it is and the user to deliver as, who
// differ where the action says `user`.
func (s *Service) account(ctx context.Context, a *action, user string) (table.Account, Delivery, error) {
	if user == "" || len(user) > maxName {
		return table.Account{}, gone("no such user"), nil
	}
	account, err := a.userbase.UserInfo(ctx, user)
	if errors.Is(err, table.ErrNotFound) {
		return account, gone("user %q does not exist any more", user), nil
	}
	if err == nil && a.User != "" {
		user = a.User
		account, err = s.deliveryUser(ctx, a)
	}
	if err != nil {
		return account, Delivery{}, fmt.Errorf("action %q: %w", a.Name, err)
	}
	d := Delivery{UID: int(account.UID), GID: int(account.GID), Home: account.Home, User: user}
	return account, d, nil
}

// deliveryUser finds the user of the action's `user` option: in its userbase,
// else among the system's users, where the owner of virtual mailboxes lives.
func (s *Service) deliveryUser(ctx context.Context, a *action) (table.Account, error) {
	account, err := a.userbase.UserInfo(ctx, a.User)
	if errors.Is(err, table.ErrNotFound) && a.explicitBase {
		system, getErr := s.tables.get(tableGetpwnam)
		if getErr != nil {
			return account, getErr
		}
		account, err = system.UserInfo(ctx, a.User)
	}
	if errors.Is(err, table.ErrNotFound) {
		return account, fmt.Errorf("%s: user %q to deliver as does not exist", a.Pos, a.User)
	}
	return account, err
}

// checkOwner refuses deliveries as root, which would let mail write anywhere,
// and marks those as the server's own user.
func (s *Service) checkOwner(a *action, d *Delivery) error {
	if d.UID == 0 && a.Method != config.MethodMbox {
		return errors.New("mail is not delivered as root; give root an alias")
	}
	if d.UID == s.ownUID && s.ownUID > 0 {
		d.UID, d.GID = -1, -1
	}
	return nil
}

// deliveryValues are what the specifiers of an action's texts stand for.
func (s *Service) deliveryValues(r DeliveryRequest, user, home string) format.Values {
	rcpt := r.Recipient
	if rcpt == "" {
		rcpt = r.Address
	}
	return format.Values{
		Sender: looseAddress(r.Sender), Rcpt: looseAddress(rcpt), Dest: looseAddress(r.Address),
		User: user, Home: home, Delim: s.delim,
	}
}

// looseAddress reads an address that was accepted once; what does not parse is
// cut at the last '@', for the formatter makes it safe.
func looseAddress(text string) address.Address {
	if a, err := address.Parse(text); err == nil {
		return a
	}
	local, domain := address.Split(text)
	return address.Address{Local: local, Domain: domain}
}

// place fills in where the message goes.
func (a *action) place(d *Delivery, v format.Values) (err error) {
	d.Method = string(a.Method)
	switch a.Method {
	case config.MethodMaildir, config.MethodMbox:
		d.Junk, d.Env = a.Junk, mdaEnv(v) // a tag chooses a folder
		d.Path, err = a.path.Expand(format.Path, v)
		if err == nil && !path.IsAbs(d.Path) {
			err = fmt.Errorf("path %q is not absolute", d.Path)
		}
	case config.MethodLMTP:
		d.RcptTo = a.RcptTo
		mode := format.Command
		if strings.HasPrefix(a.LMTP, "/") || strings.HasPrefix(a.LMTP, "~/") {
			mode = format.Path
		}
		d.LMTP, err = a.lmtp.Expand(mode, v)
	case config.MethodMDA:
		if v.MDA, err = a.command.Expand(format.Command, v); err == nil {
			d.Command, err = a.wrapper.Expand(format.Command, v)
		}
		d.Env = mdaEnv(v)
	default:
		err = fmt.Errorf("%s: not supported yet: %s", a.Pos, a.Method)
	}
	return err
}

// mdaEnv is the environment of a delivery command, by OpenSMTPD's names. Values
// are not made safe for a shell: commands must quote them.
func mdaEnv(v format.Values) []string {
	env := []string{
		"PATH=/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin:/usr/local/sbin",
		"SHELL=/bin/sh",
		"DOMAIN=" + v.Dest.Domain,
		"HOME=" + v.Home,
		"RECIPIENT=" + v.Dest.String(),
		"ORIGINAL_RECIPIENT=" + v.Rcpt.String(),
		"LOCAL=" + v.Dest.Local,
		"LOGNAME=" + v.User,
		"USER=" + v.User,
		"SENDER=" + v.Sender.String(),
	}
	if _, tag := address.SplitTag(v.Dest.Local, v.Delim); tag != "" {
		env = append(env, "EXTENSION="+tag)
	}
	for i, e := range env {
		env[i] = strings.Map(noControl, e)
	}
	return env
}

func noControl(r rune) rune {
	if r < ' ' || r == 0x7f {
		return -1
	}
	return r
}
