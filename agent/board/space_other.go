//go:build !linux

package board

import (
	"errors"
	"fmt"

	"github.com/spf13/afero"

	"example.com/iad/agent"
)

// Free is available on Linux only.
func Free(path string) (int64, error) { return Capacity(path) }

// Capacity is available on Linux only.
func Capacity(path string) (int64, error) {
	return 0, fmt.Errorf("space of %s: %w", path, errors.ErrUnsupported)
}

// OnBank is available on Linux only.
func (Root) OnBank(int) agent.Parts { return agent.Parts{} }

func deviceOf(string) uint64 { return 0 }

// DropCache does nothing: reading a file again may read the page cache.
func DropCache(afero.File) error { return nil }

// DropRange is available on Linux only.
func DropRange(afero.File, int64, int64) error { return errors.ErrUnsupported }
