package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
// device accepts, so that a device is reached whatever became of a change of credentials.
func (w *Worker) connect(ctx context.Context, d *fleet.Device, log *slog.Logger) (*access, error) {
	names := d.SecretNames()
	if len(names) == 1 {
		return w.dial(ctx, d, names[0], log)
	}
	var first error
	for _, name := range names {
		a, err := w.dial(ctx, d, name, log)
		if errors.Is(err, engine.ErrNotFound) && name != names[0] {
			continue // it was removed
		}
		if err == nil {
			if _, err = a.client.Get(ctx, sysUpTime); err == nil {
				if name != names[0] {
					log.Warn("the device accepts earlier credentials only", "accepted", name, "in force", names[0])
				}
				return a, nil
			}
			a.close()
		}
		if first == nil {
			first = err
		}
		// Only some devices answer at all if the credentials are wrong.
		silent := errors.Is(err, device.ErrNoAnswer) && (d.Rotating != "" || a != nil && a.secret.User == nil)
		if !errors.Is(err, device.ErrCredentials) && !errors.Is(err, engine.ErrNotFound) && !silent {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w (the credentials %s were tried)", first, strings.Join(names, ", "))
}

// dial connects to a device with the secret of this name. Nothing is sent yet.
func (w *Worker) dial(ctx context.Context, d *fleet.Device, name string, log *slog.Logger) (*access, error) {
	secret, err := w.cfg.Store.Secrets.Get(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("credentials %s: %w", name, err)
	}
	t := device.Target{
		Address: d.Address, Credentials: secret.Credentials(), Timeout: w.cfg.Timeout, Retries: w.cfg.Retries,
		Warn: func(text string) { log.Warn(text) },
	}
	if d.RootOID != "" {
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
