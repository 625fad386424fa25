package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"example.com/iad/internal/cli"
	"example.com/iad/sim/control"
)

// TestScripts runs command lines as a shell would; see testdata.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/config")
			env.Setenv("RANGE", fmt.Sprintf("127.%d.%d.0/24", 1+rand.IntN(254), rand.IntN(256)))
			return os.WriteFile(env.WorkDir+"/app", make([]byte, 60_000), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"ready": waitReady, "await": await, "device": device, "event": awaitEvent, "unread": unread},
	})
}

// unread runs a program whose output nobody reads: it ends without a message, as if
// SIGPIPE had ended it.
func unread(ts *testscript.TestScript, _ bool, args []string) {
	r, w, err := os.Pipe()
	ts.Check(err)
	ts.Check(r.Close())
	defer w.Close()
	stderr, err := os.CreateTemp(ts.Getenv("WORK"), "stderr")
	ts.Check(err)
	defer stderr.Close()
	program := exec.Command(args[0], args[1:]...)
	program.Stdout, program.Stderr = w, stderr
	for _, name := range []string{"PATH", "HOME", "IADSIM_CONTROL"} {
		program.Env = append(program.Env, name+"="+ts.Getenv(name))
	}
	err = program.Run()
	said := ts.ReadFile(stderr.Name())
	if program.ProcessState == nil || program.ProcessState.ExitCode() != cli.ExitUnread || said != "" {
		ts.Fatalf("%v, with the message %q; want status %d and no message", err, said, cli.ExitUnread)
	}
}

// within is how long the scripts wait for something.
const within = time.Minute

// until repeats f until it returns "", which describes what is missing otherwise.
func until(ts *testscript.TestScript, f func(context.Context, *control.Client) string) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	c := control.NewClient(ts.Getenv("IADSIM_CONTROL"), "")
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		missing := f(ctx, c)
		if missing == "" {
			return
		}
		select {
		case <-ctx.Done():
			ts.Fatalf("after %v: %s", within, missing)
		case <-tick.C:
		}
	}
}

// waitReady is "ready N": N devices are running.
func waitReady(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, func(ctx context.Context, c *control.Client) string {
		list, err := c.Devices(ctx)
		if got := fmt.Sprint(len(list)); err != nil || got != args[0] {
			return fmt.Sprintf("%s devices, %v; want %s", got, err, args[0])
		}
		return ""
	})
}

// await is "await DEVICE FIELD VALUE", with a field of control.Device as in JSON.
func await(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, func(ctx context.Context, c *control.Client) string {
		d, err := c.Device(ctx, args[0])
		v := reflect.ValueOf(d)
		for _, f := range reflect.VisibleFields(v.Type()) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if got := fmt.Sprint(v.FieldByIndex(f.Index)); name == args[1] && got != args[2] {
				return fmt.Sprintf("%s of %s is %s, %v; want %s", name, args[0], got, err, args[2])
			}
		}
		return ""
	})
}

// device is "device DEVICE VARIABLE", which gets the address.
func device(ts *testscript.TestScript, _ bool, args []string) {
	d, err := control.NewClient(ts.Getenv("IADSIM_CONTROL"), "").Device(context.Background(), args[0])
	ts.Check(err)
	ts.Setenv(args[1], d.Address)
}

// awaitEvent is "event DEVICE FAULT OPERATION".
func awaitEvent(ts *testscript.TestScript, _ bool, args []string) {
	until(ts, func(ctx context.Context, c *control.Client) string {
		found := false
		err := c.Events(ctx, 0, false, func(e control.Event) error {
			found = found || e.Device == args[0] && e.Fault == args[1] && e.Operation == args[2]
			return nil
		})
		if !found {
			return fmt.Sprintf("no event %q, %v", args, err)
		}
		return ""
	})
}
