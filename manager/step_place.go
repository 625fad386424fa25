package manager

import (
	"context"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// takePlace waits for a place at the file server before a device is commanded to use
// it. The place is given back when progress shows that the device is done with it.
func (u *upgrade) takePlace(ctx context.Context, watch Step, r device.Request) (release func(), err error) {
	s, ok := u.session.(files.Placed)
	if !ok || r.Server == nil {
		return func() {}, nil
	}
	return s.TakePlace(ctx, func() { u.note(watch, "waits for a place at the file server: others are being served") })
}
