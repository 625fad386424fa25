//go:build !linux

package board

// Checkpoint does nothing: boards run Linux.
func (p *Platform) Checkpoint(int) error { return nil }

func (p *Platform) thaw() {}

// NoCheckpoint finds nothing: only Linux has a checkpoint.
func (*Platform) NoCheckpoint() []string { return nil }
