package batch

import (
	"cmp"
	"context"
	"errors"
	"sync"
)

// Runner runs one procedure for several devices, some of them at the same time. A failure
// does not stop the others.
type Runner struct {
	// Parallel is the maximum number of devices at the same time; 0: 10.
	Parallel int
	// StopOnFailure starts no other device after a failure; devices in progress are
	// finished.
	StopOnFailure bool
}

// ErrNotStarted is the error of a device that was not started.
var ErrNotStarted = errors.New("not started")

// Run calls upgrade for every target and returns its errors in the order of the targets.
// When ctx ends, no further target is started.
func (f Runner) Run(ctx context.Context, targets []string, upgrade func(ctx context.Context, target string) error) []error {
	outcomes := make([]error, len(targets))
	next := make(chan int)
	var failed sync.Once
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for range min(cmp.Or(f.Parallel, 10), len(targets)) {
		workers.Go(func() {
			for i := range next {
				if outcomes[i] = upgrade(ctx, targets[i]); outcomes[i] != nil && f.StopOnFailure {
					failed.Do(func() { close(stop) })
				}
			}
		})
	}
	begun := 0
	for begun < len(targets) {
		select {
		case <-stop: // takes precedence
		case <-ctx.Done():
		default:
			select {
			case next <- begun:
				begun++
				continue
			case <-stop:
			case <-ctx.Done():
			}
		}
		break
	}
	close(next)
	workers.Wait()
	for i := begun; i < len(targets); i++ {
		outcomes[i] = ErrNotStarted
	}
	return outcomes
}
