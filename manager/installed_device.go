package manager

import (
	"context"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// Runs reports whether the software of an image is what runs on the device.
func Runs(ctx context.Context, c *device.Client, img *files.Image) (bool, error) {
	banks, err := c.Banks(ctx)
	if err != nil {
		return false, err
	}
	b := running(banks)
	return b != nil && from(b, img), nil
}
