package bank

import "errors"

// ErrLoaderLost means that the boot loader has no good copy of its state.
var ErrLoaderLost = errors.New("the boot loader's state is lost")

// LoaderState is what a boot loader acts on when the device starts.
type LoaderState struct {
	Next int // the bank to start, 1 or 2
	// Left is how many more starts the software of Next gets to prove itself; the loader
	// takes one off before each start. At 0 it starts Fallback. Uncounted means that the
	// software is good and that its starts are not counted.
	Left int
	// Fallback is the bank to start when Next has no starts left or cannot be loaded,
	// 0 for none. FallbackNotKept means that this loader has no place for it.
	Fallback int
	// Stale means that the loader counts the starts of good software too, and that the
	// state has to be stored again before they run out.
	Stale bool
}

// Values of the fields of LoaderState that are not numbers of starts or banks.
const (
	Uncounted       = -1
	FallbackNotKept = -1
)

// A Loader is the boot loader of a board: it chooses the bank that starts, and counts
// the starts of software on trial. Package uboot has implementations.
type Loader interface {
	// Started returns the bank that the loader started, 0 if it did not say, and in a
	// word why it chose that one.
	Started() (bank int, why string)
	// Load reads the state. The error wraps ErrLoaderLost if no copy of it is good.
	Load() (LoaderState, error)
	// Store replaces the state, durably and at once: after a power cut the loader finds
	// either the old state or the new one.
	Store(LoaderState) error
}
