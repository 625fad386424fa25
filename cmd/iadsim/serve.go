package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/spf13/afero"

	"example.com/iad/internal/cli"
	"example.com/iad/internal/durable"
	"example.com/iad/sim/control"
)

// defaultTokenFile has the token of the interface over TCP.
const defaultTokenFile = "iadsim.token"

// serve opens the control interface at an address; the server runs until ctx ends.
func serve(ctx context.Context, running *sync.WaitGroup, s *control.Server, address, tokenFile string, w io.Writer) error {
	network := "tcp"
	if control.IsSocket(address) {
		network = "unix"
		if err := removeStale(address); err != nil {
			return err
		}
	} else {
		err := checkHostPort(address)
		if err != nil {
			return err
		}
		if s.Token, err = makeToken(tokenFile, w); err != nil {
			return err
		}
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return fmt.Errorf("--control: %w", err)
	}
	if network == "unix" {
		if err := os.Chmod(address, 0o600); err != nil {
			return errors.Join(err, l.Close())
		}
	}
	running.Go(func() {
		if err := s.Serve(ctx, l); err != nil {
			fmt.Fprintf(w, "iadsim: the control interface has ended: %v\n", err)
		}
	})
	return nil
}

// checkHostPort refuses an address that is neither the path of a socket nor HOST:PORT.
func checkHostPort(address string) error {
	if _, _, err := net.SplitHostPort(address); err != nil {
		return cli.Usage(fmt.Errorf("--control %q is neither HOST:PORT nor the path of a socket, which has a slash, such as ./lab.sock", address))
	}
	return nil
}

// removeStale removes the socket of a process that has ended.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil // Listen reports what is wrong with it
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("--control %s: another iadsim serves it; choose another path", path)
	}
	return os.Remove(path)
}

// makeToken reads the token, or writes a new one.
func makeToken(file string, w io.Writer) (string, error) {
	token, err := readToken(file)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return token, err
	}
	token = rand.Text()
	if err := durable.ReplaceFile(afero.NewOsFs(), file, []byte(token+"\n"), 0o600); err != nil {
		return "", err
	}
	fmt.Fprintf(w, "made %s: requests to the control interface need the token in it\n", file)
	return token, nil
}

func readToken(file string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", cli.Usage(fmt.Errorf("%s is empty; remove it, and iadsim run writes a new token", file))
	}
	return token, nil
}

// printer prints events, after the devices.
type printer struct {
	w      io.Writer
	asJSON bool

	mu    sync.Mutex
	ready bool
	early []control.Event // that came before
}

func (p *printer) event(e control.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready {
		p.early = append(p.early, e)
		return
	}
	p.print(e)
}

// begin prints the events that came, and from now on each at once.
func (p *printer) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.early {
		p.print(e)
	}
	p.ready, p.early = true, nil
}

func (p *printer) print(e control.Event) {
	if p.asJSON {
		_ = json.NewEncoder(p.w).Encode(map[string]any{"event": e})
		return
	}
	fmt.Fprintln(p.w, e)
}
