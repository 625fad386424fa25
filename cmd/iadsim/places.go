package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"example.com/iad/internal/cli"
	"example.com/iad/sim"
)

// places are where devices answer: at consecutive ports of one address, or at consecutive
// addresses with one port.
type places struct {
	host    string
	port    int
	network *sim.Network // nil: ports
}

// places reads --snmp and --addresses.
func (o *runOptions) places() (*places, error) {
	host, text, err := net.SplitHostPort(o.snmp)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--snmp: %w", err))
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--snmp %s: %q is not a port, 0 to 65535", o.snmp, text))
	}
	p := &places{host: host, port: int(port)}
	if o.addresses == "" {
		if last := p.port + o.devices - 1; p.port != 0 && last > 65535 {
			return nil, cli.Usage(fmt.Errorf("--snmp %s: %d devices need ports up to %d, and the last one is 65535; use a lower port, or 0, or --addresses", o.snmp, o.devices, last))
		}
		return p, nil
	}
	prefix, err := netip.ParsePrefix(o.addresses)
	if err != nil {
		return nil, cli.Usage(fmt.Errorf("--addresses %s: not a range; use ADDRESS/BITS, such as 127.1.0.0/16 or 2001:db8:1::/64", o.addresses))
	}
	if p.network, err = sim.OpenNetwork(prefix, uint16(port)); err != nil {
		return nil, err
	}
	if n := p.network.Size(); n < o.devices {
		return nil, errors.Join(cli.Usage(fmt.Errorf("--addresses %s: room for %d devices, not %d; use a larger range", o.addresses, n, o.devices)), p.close())
	}
	return p, nil
}

// of gives device i its place.
func (p *places) of(i int, c *sim.Config) {
	if p.network != nil {
		c.Network, c.Address = p.network, p.network.Address(i)
		return
	}
	port := p.port
	if port != 0 {
		port += i
	}
	c.Listen = net.JoinHostPort(p.host, strconv.Itoa(port))
}

func (p *places) close() error {
	if p.network == nil {
		return nil
	}
	return p.network.Close()
}
