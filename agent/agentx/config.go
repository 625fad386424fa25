package agentx

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"

	"example.com/iad/internal/clock"
	"example.com/iad/mib"
)

// Config says how to reach the master agent. Only Address must be given.
type Config struct {
	// Address is "unix:PATH" or "tcp:HOST:PORT", HOST being an address of the
	// loopback interface or "localhost".
	Address string
	// Description names the subagent to the master, at most 255 bytes of
	// UTF-8; snmpd shows it in its log. Empty means "iad".
	Description string
	// Private promises that the master lets nobody set objects of this tree
	// without privacy, so that secrets may arrive by it; only with a Unix
	// socket.
	Private bool
	// Timeout is how long the master has for each answer. A master that takes
	// longer is taken for dead. Zero means 30 s: snmpd stands still for some
	// seconds at each notification while it looks for a receiver of SNMPv3
	// informs that does not answer.
	Timeout time.Duration
	// PingInterval is the time between two pings. Zero means 15 s.
	PingInterval time.Duration
	// Clock is for tests. Nil means the system's.
	Clock clock.Clock
	// Log receives connections, losses and refusals. Nil means discard.
	Log *slog.Logger
}

const (
	defaultTimeout      = 30 * time.Second
	defaultPingInterval = 15 * time.Second
	// leaveTimeout replaces Timeout at the end, when nobody should wait long.
	leaveTimeout = 2 * time.Second
	// requestTimeout is what the master is asked to wait for answers of this
	// side, which come in milliseconds. snmpd goes by its own setting.
	requestTimeout = 5 * time.Second
	// setLimit is how long a transaction may wait for its next phase. snmpd
	// gives every subagent of a SET about 6 s in each phase.
	setLimit = time.Minute
)

// New returns a session that is not connected yet.
func New(cfg Config, tree *mib.Tree) (*Session, error) {
	network, address, err := parseAddress(cfg.Address)
	if err != nil {
		return nil, err
	}
	if cfg.Private && network != "unix" {
		return nil, fmt.Errorf("agentx: Private with address %q: only a Unix socket is private", cfg.Address)
	}
	if cfg.Description == "" {
		cfg.Description = "iad"
	}
	if len(cfg.Description) > 255 {
		return nil, errors.New("agentx: Description is longer than 255 bytes")
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.PingInterval <= 0 {
		cfg.PingInterval = defaultPingInterval
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.System{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Log = cfg.Log.With("master", cfg.Address)
	return &Session{
		cfg: cfg, network: network, address: address, tree: tree,
		ready: make(chan struct{}, 1),
	}, nil
}

func parseAddress(s string) (network, address string, err error) {
	network, address, _ = strings.Cut(s, ":")
	switch network {
	case "unix":
		if address == "" {
			return "", "", fmt.Errorf("agentx: address %q: unix: has no path after it", s)
		}
		return network, address, nil
	case "tcp":
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return "", "", fmt.Errorf("agentx: address %q: %w", s, err)
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
			return "", "", fmt.Errorf("agentx: address %q: AgentX has no authentication; use unix:PATH or an address of the loopback interface", s)
		}
		return network, address, nil
	}
	return "", "", fmt.Errorf("agentx: address %q: want unix:PATH or tcp:HOST:PORT", s)
}
