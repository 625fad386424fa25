package engine

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// ErrNotStoring: this node could not write to its disk, mostly because there was no room, and
// does not store everything until it is started again. It does that itself.
var ErrNotStoring = errors.New("this node could not write to its disk, and does not store until it can again")

// node is the server in this process. A server that could not write does not try again;
// another one takes its place once there is room.
type node struct {
	config Config

	mu      sync.Mutex
	current *server.Server
}

// checkRoom is how often it is looked whether the server stores, or whether there is room
// again.
const checkRoom = time.Second

// Pauses between two starts of a server that stops storing again although there is room: the disk
// is damaged, or files cannot be opened. The pause doubles each time.
const (
	firstPause   = checkRoom
	longestPause = 5 * time.Minute
)

// minRoom is how much room there must be for the server to store again, in bytes. It writes
// logs of its own before the data.
const minRoom = 32 << 20

// start starts a server.
func (n *node) start() error {
	options, err := n.config.options()
	if err != nil {
		return err
	}
	if n.config.Secret != "" {
		// With the library's own list of users, a second account lets everybody in.
		options.Username, options.Password, options.CustomClientAuthentication = "", "", n
	}
	removeProbes(n.config.Data)
	s, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	s.SetLoggerV2(&serverLog{log: n.config.Log}, false, false, false)
	n.mu.Lock()
	n.current = s
	n.mu.Unlock()
	s.Start()
	return nil
}

func (n *node) server() *server.Server {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current
}

// InProcessConn implements nats.InProcessConnProvider, for connections that outlive the
// server.
func (n *node) InProcessConn() (net.Conn, error) { return n.server().InProcessConn() }

// Check implements server.Authentication.
func (n *node) Check(c server.ClientAuthentication) bool {
	got := c.GetOpts()
	if subtle.ConstantTimeCompare([]byte(got.Password), []byte(n.config.Secret)) != 1 {
		return false
	}
	u := &server.User{Username: got.Username}
	switch got.Username {
	case user:
	case systemUser:
		account, err := n.server().LookupAccount(systemName)
		if err != nil {
			return false
		}
		u.Account = account
	default:
		return false
	}
	c.RegisterUser(u)
	return true
}

// stores returns an error if the server has stopped storing, or a part of it.
func (n *node) stores() error {
	s := n.server()
	var why string
	if !s.JetStreamEnabled() {
		why = "its store is off; the log says why"
	} else {
		for _, e := range s.Healthz(&server.HealthzOptions{Details: true}).Errors {
			if strings.Contains(e.Error, "write error") {
				why = e.Error
			}
		}
	}
	if why == "" {
		return nil
	}
	return fmt.Errorf("engine: %w; make room in %s: %s", ErrNotStoring, n.config.Data, why)
}

// watch replaces a server that has stopped storing once there is room, until ctx ends.
func (n *node) watch(ctx context.Context) {
	ticker := time.NewTicker(checkRoom)
	defer ticker.Stop()
	reported := false
	pause := firstPause
	var restarted time.Time
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		err := n.stores()
		if err == nil {
			reported = false
			if time.Since(restarted) > longestPause {
				pause = firstPause
			}
			continue
		}
		if !reported {
			n.config.Log.Error("this node does not store", "err", err)
			reported = true
		}
		if time.Since(restarted) < pause {
			continue
		}
		if room(n.config.Data) != nil {
			continue
		}
		if !restarted.IsZero() {
			pause = min(2*pause, longestPause)
		}
		old := n.server()
		old.Shutdown()
		old.WaitForShutdown()
		if ctx.Err() != nil {
			return
		}
		restarted = time.Now()
		if err := n.start(); err != nil {
			n.config.Log.Error("this node cannot be started again", "err", err, "next_after", pause.String())
			continue
		}
		n.config.Log.Info("there is room: the store is started again", "directory", n.config.Data, "next_after", pause.String())
	}
}

// stop stops the server.
func (n *node) stop() {
	s := n.server()
	s.Shutdown()
	s.WaitForShutdown()
}

// probePattern matches the files that room makes.
const probePattern = ".room-*"

// removeProbes removes what room has left in a directory because the process was killed.
func removeProbes(dir string) {
	list, err := filepath.Glob(filepath.Join(dir, probePattern))
	if err != nil {
		return
	}
	for _, name := range list {
		_ = os.Remove(name) // the next start does it otherwise
	}
}

// room returns an error unless there is room on the disk of a directory, by using it for a
// moment: quotas and reserves count too.
func room(dir string) (err error) {
	f, err := os.CreateTemp(dir, probePattern)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	chunk := make([]byte, 1<<20)
	for range minRoom / len(chunk) {
		if _, err := f.Write(chunk); err != nil {
			return err
		}
	}
	return f.Sync()
}
