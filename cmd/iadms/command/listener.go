package command

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"slices"

	"github.com/spf13/afero"

	"example.com/iad/internal/cli"
	"example.com/iad/internal/credentials"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// listenerConfig accepts notifications of all users in the configuration, including those
// with the same name, because "iad init" gives every device's user the same one. It
// accepts SNMPv2c if a community is configured, or nothing is.
func listenerConfig(address string, s *settings, root mib.OID, store string, log *slog.Logger) trap.ListenerConfig {
	cfg := trap.ListenerConfig{Listen: address, Root: root, Files: afero.NewBasePathFs(afero.NewOsFs(), store), Log: log}
	add := func(a credentials.Access) {
		c := access(a)
		if c.User != nil && !slices.Contains(cfg.Users, *c.User) {
			cfg.Users = append(cfg.Users, *c.User)
		}
		for _, community := range []string{c.Read, c.Write} {
			if c.User == nil && community != "" && !slices.Contains(cfg.Communities, community) {
				cfg.Communities = append(cfg.Communities, community)
			}
		}
	}
	add(s.Access)
	for _, d := range s.Devices {
		add(d.Access)
	}
	if len(cfg.Users) == 0 && len(cfg.Communities) == 0 {
		cfg.Communities = []string{"public", "private"} // as target has it
	}
	cfg.AnyCommunity = len(cfg.Communities) > 0 // snmpd may have one of its own for traps
	return cfg
}

// listen opens the notification listener. Without an explicit address, devices are only
// polled if the port is not permitted or in use.
func listen(address string, s *settings, root mib.OID, store string, log *slog.Logger) (*trap.Listener, error) {
	if address == "none" {
		return nil, nil
	}
	if _, err := net.ResolveUDPAddr("udp", cmp.Or(address, ":162")); err != nil {
		return nil, cli.Usage(fmt.Errorf("notifications are received on HOST:PORT: %w", err))
	}
	cfg := listenerConfig(cmp.Or(address, ":162"), s, root, store, log)
	l, err := trap.Listen(cfg)
	if err != nil && address == "" {
		log.Info("no notifications: the device is polled instead", "err", err)
		return nil, nil
	}
	return l, err
}
