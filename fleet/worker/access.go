package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// access is a connection to a device, with the credentials that it accepts as far as that
// is known.
type access struct {
	client *device.Client
	secret *fleet.Secret
}

// sysUpTime is what every agent has.
var sysUpTime = mib.MustParseOID("1.3.6.1.2.1.1.3.0")

// connect dials with the credentials in force. Where others are kept, it finds out which the
// device accepts, so that a device is reached whatever became of a change of credentials. None
// that protect less than those in force are tried: the answer that says that a device does not
// accept credentials can be forged by anybody.
func (w *Worker) connect(ctx context.Context, d *fleet.Device, log *slog.Logger) (*access, error) {
	names := d.SecretNames()
	inForce, err := w.secret(ctx, names[0])
	if err != nil {
		return nil, err
	}
	if len(names) == 1 {
		return w.dial(d, inForce, log)
	}
	var tried, weaker []string
	var silent []*fleet.Secret
	var refused, noAnswer error
	for i, name := range names {
		secret := inForce
		if i > 0 {
			secret, err = w.secret(ctx, name)
			if errors.Is(err, engine.ErrNotFound) {
				continue // it was removed
			}
			if err != nil {
				return nil, err
			}
			if secret.Credentials().Weaker(inForce.Credentials()) {
				weaker = append(weaker, name)
				continue
			}
			if d.Rotating == "" && slices.ContainsFunc(silent, func(s *fleet.Secret) bool { return answers(secret, s) }) {
				continue // the device is away, or else it had answered
			}
		}
		tried = append(tried, name)
		a, err := w.dial(d, secret, log)
		if err != nil {
			return nil, err
		}
		_, err = a.client.Get(ctx, sysUpTime)
		if err == nil {
			if i > 0 {
				log.Warn("the device accepts earlier credentials only", "accepted", name, "in force", names[0])
			}
			return a, nil
		}
		a.close()
		switch {
		case errors.Is(err, device.ErrCredentials):
			if refused == nil {
				refused = err
			}
		case errors.Is(err, device.ErrNoAnswer):
			silent = append(silent, secret)
			if noAnswer == nil {
				noAnswer = err
			}
		default:
			return nil, err
		}
	}
	err = noAnswer // may pass: an answer may have been lost
	if err == nil {
		err = refused
	}
	if len(weaker) > 0 {
		return nil, fmt.Errorf("%w (the credentials %s were tried; %s protect less and are not tried: "+
			"if the device has those, set them as its credentials)", err, strings.Join(tried, ", "), strings.Join(weaker, ", "))
	}
	return nil, fmt.Errorf("%w (the credentials %s were tried)", err, strings.Join(tried, ", "))
}

// answers reports whether a device that has one secret answers a request with another one, which
// it then refuses. Wrong communities are not answered, nor is what a device cannot decrypt.
func answers(has, requested *fleet.Secret) bool {
	if has.User == nil || requested.User == nil {
		return requested.User != nil
	}
	h, r := has.User, requested.User
	return h.Name != r.Name || device.PlainName(h.Auth) != device.PlainName(r.Auth) || h.AuthPassphrase != r.AuthPassphrase
}

// secret returns the secret of this name.
func (w *Worker) secret(ctx context.Context, name string) (*fleet.Secret, error) {
	secret, err := w.cfg.Store.Secrets.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("credentials %s: %w", name, err)
	}
	return secret, nil
}

// dial connects to a device with a secret. Nothing is sent yet.
func (w *Worker) dial(d *fleet.Device, secret *fleet.Secret, log *slog.Logger) (*access, error) {
	t := device.Target{
		Address: d.Address, Credentials: secret.Credentials(), Timeout: w.cfg.Timeout, Retries: w.cfg.Retries,
		Warn: func(text string) { log.Warn(text) },
	}
	if d.RootOID != "" {
		var err error
		if t.Root, err = mib.ParseRoot(d.RootOID); err != nil {
			return nil, err
		}
	}
	client, err := device.Dial(t)
	if err != nil {
		return nil, err
	}
	return &access{client, secret}, nil
}

// close releases the socket.
func (a *access) close() { _ = a.client.Close() }
