// Command iadms is the management system for integrated access devices that
// have IAD-UPGRADE-MIB: it builds and signs software images, and upgrades,
// backs up, recovers and watches devices.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "iadms: interrupted")
	case err != nil:
		fmt.Fprintln(os.Stderr, "iadms:", err)
	}
	return exitStatus(ctx, err)
}
