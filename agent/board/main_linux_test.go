package board_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"testing"

	"github.com/spf13/afero"
	"golang.org/x/sys/unix"

	"example.com/iad/agent"
	"example.com/iad/agent/board"
	"example.com/iad/agent/config"
)

// helperVariable makes the test program do one of helpers instead of testing.
const helperVariable = "BOARD_TEST_HELPER"

var helpers = map[string]func(arg string) error{
	// run runs a program and prints its output.
	"run": func(path string) error {
		out, err := board.Run(context.Background(), board.Command{Path: path})
		fmt.Print(string(out))
		return err
	},
	// readonly locks a root in a mount of its own that has become read-only.
	"readonly": func(root string) error {
		if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
			fmt.Println("no mount:", err)
			return nil
		}
		lock, err := board.LockRoot(root)
		if err != nil {
			return err
		}
		err = errors.Join(lock.Release(), unix.Mount("", root, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		if err != nil {
			return err
		}
		if lock, err = board.LockRoot(root); err != nil {
			return err
		}
		defer lock.Release()
		_, err = board.LockRoot(root)
		fmt.Println("second lock refused:", errors.Is(err, board.ErrLocked))
		return nil
	},
	// overflow applies configuration data of which a file may not be written
	// beyond its 32768th byte.
	"overflow": func(root string) error {
		signal.Ignore(unix.SIGXFSZ)
		limit := unix.Rlimit{Cur: 32768, Max: 32768}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		r, err := board.RootIn(root)
		if err != nil {
			return err
		}
		p := &board.Platform{Work: r.Work, Applied: r.Applied}
		_, err = p.ApplyConfig(context.Background(), config.Generation{Number: 2}, large())
		fmt.Println(errors.Is(err, agent.ErrNotHandedOver), p.NotHandedOver(large()), err)
		return nil
	},
	// mounts opens a device whose second bank, state and data are mounts, without them,
	// and with them again.
	"mounts": func(dir string) error {
		root, err := board.RootIn(dir)
		if err != nil {
			return err
		}
		flash := []string{root.Banks[1], root.State, root.Data}
		var c agent.Config
		root.Open(&c)
		for _, at := range flash {
			if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m"); err != nil {
				fmt.Println("no mount:", err)
				return nil
			}
		}
		open := func(when string) {
			c = agent.Config{Platform: &board.Platform{Banks: root.Banks}}
			root.Open(&c)
			var failed []error
			for _, part := range []afero.Fs{c.Banks[0], c.Banks[1], c.State, c.Data} {
				f, err := part.Create("x")
				if err == nil {
					err = f.Close()
				}
				failed = append(failed, err)
			}
			var absent *board.AbsentError
			fmt.Printf("%s: %d findings, bank 1 %t, bank 2 %t, state %t, data %t; absent %t, capacity %t\n", when, len(c.Findings),
				failed[0] == nil, failed[1] == nil, failed[2] == nil, failed[3] == nil,
				errors.As(failed[1], &absent), c.Platform.Capacity(2) > 0)
		}
		open("first")
		if err := root.KeepPlaces(false); err != nil {
			return err
		}
		// One that disappears while the agent runs is not written below either.
		for _, at := range flash {
			if err := unix.Unmount(at, 0); err != nil {
				return err
			}
		}
		_, err = c.Banks[1].Create("y")
		fmt.Println("meanwhile:", err != nil)
		open("without")
		if err := root.KeepPlaces(false); err != nil {
			return err
		}
		open("still without")
		for _, at := range flash {
			list, err := os.ReadDir(at)
			fmt.Println("below:", len(list), err)
			if err := unix.Mount("tmpfs", at, "tmpfs", 0, "size=1m"); err != nil {
				return err
			}
		}
		open("again")
		for _, at := range flash {
			if err := unix.Unmount(at, 0); err != nil {
				return err
			}
		}
		if err := root.KeepPlaces(true); err != nil {
			return err
		}
		open("accepted")
		return nil
	},
	// restart locks a root, opens a socket and restarts itself, once.
	"restart": func(root string) error {
		lock, err := board.LockRoot(root)
		if err != nil {
			return err
		}
		const address = "127.0.0.1:0"
		conn := board.InheritedSocket(address)
		if conn == nil {
			if conn, err = net.ListenPacket("udp", address); err != nil {
				return err
			}
		}
		if _, err := conn.WriteTo([]byte("to myself"), conn.LocalAddr()); err != nil {
			return err
		}
		buf := make([]byte, 100)
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, left := os.LookupEnv("IAD_SOCKET_DESCRIPTOR"); left {
			return errors.New("the socket's variable is left")
		}
		fmt.Printf("%v: %s; ", conn.LocalAddr(), buf[:n])
		_, inherited := os.LookupEnv("IAD_LOCK_DESCRIPTOR")
		fmt.Printf("process %d, lock variable left: %t\n", os.Getpid(), inherited)
		once, err := os.OpenFile(filepath.Join(root, "once"), os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil // the second time
		}
		once.Close()
		return lock.Restart(conn, address)
	},
}

func TestMain(m *testing.M) {
	name := os.Getenv(helperVariable)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := helpers[name](os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// helper returns the command that runs a helper in a process of its own.
func helper(t *testing.T, name, arg string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, arg)
	cmd.Env = append(os.Environ(), helperVariable+"="+name)
	return cmd
}
