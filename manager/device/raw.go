package device

import (
	"context"

	"example.com/iad/mib"
)

// The methods here are for programs that judge a device: nothing is interpreted, and an
// object that the device does not have is not an error.

// Get reads instances, at most 60, in one request. The answer has one varbind for each; its
// value is an exception if the device does not have the instance.
func (c *Client) Get(ctx context.Context, instances ...mib.OID) ([]mib.Varbind, error) {
	return c.get(ctx, instances)
}

// Set writes varbinds in one request, as they are and without the lock. The error is a
// *SetError if the device refuses them.
func (c *Client) Set(ctx context.Context, vbs ...mib.Varbind) error { return c.set(ctx, vbs) }

// Walk visits all instances of the columns of a table, column by column. It returns an
// error if the device does not return them in order.
func (c *Client) Walk(ctx context.Context, row *mib.Object, visit func(column *mib.Object, index mib.OID, v mib.Value)) error {
	return c.walk(ctx, row, visit)
}

// OID returns the identifier of an instance on the device: index is 0 for a scalar, the row
// for a column.
func (c *Client) OID(o *mib.Object, index ...uint32) mib.OID { return c.module.OID(o, index...) }
