package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// fetcher reaches file servers.
type fetcher struct {
	protocols []mib.Protocol
	options   transfer.Options
}

// NewFetcher reaches servers by package transfer.
func NewFetcher(protocols []mib.Protocol, options transfer.Options) procedure.Fetcher {
	return fetcher{protocols, options}
}

func (f fetcher) Supports(p mib.Protocol) bool { return slices.Contains(f.protocols, p) }

func (f fetcher) Open(_ context.Context, s procedure.Server) (procedure.Files, error) {
	host, err := mib.ParseInetAddress(mib.InetAddressType(s.AddressType), s.Address)
	if err != nil {
		return nil, &procedure.Failure{Code: mib.FailCauseBadRequest, Text: err.Error()}
	}
	if host, err = withZone(host, s.Zone); err != nil {
		return nil, &procedure.Failure{Code: mib.FailCauseBadRequest, Text: err.Error()}
	}
	c, err := transfer.New(transfer.Server{
		Protocol: s.Protocol, Host: host, Port: int(s.Port),
		User: s.User, Password: string(s.Password), Path: s.Path,
		Timeout: time.Duration(s.Timeout) * time.Second,
	}, f.options)
	if err != nil {
		return nil, err
	}
	return files{c}, nil
}

// withZone completes a link-local address: a zone means something only on the node that
// it is one of, so managers send none. It is the interface by which the request came, or
// else the only one.
func withZone(host, zone string) (string, error) {
	a, err := netip.ParseAddr(host)
	if err != nil || !a.Is6() || !a.IsLinkLocalUnicast() || a.Zone() != "" && a.Zone() != "0" {
		return host, nil
	}
	if zone == "" {
		zone = onlyInterface()
	}
	if zone == "" {
		return "", fmt.Errorf("%s is link-local and the device has several interfaces: give the index of one as well (ipv6z), or another address", a.WithZone(""))
	}
	return a.WithZone(zone).String(), nil
}

// onlyInterface is the interface to other nodes, if there is one and no more.
func onlyInterface() (name string) {
	list, _ := net.Interfaces() // without a list there is no answer
	for _, i := range list {
		switch {
		case i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0:
		case name != "":
			return ""
		default:
			name = i.Name
		}
	}
	return name
}

type files struct{ *transfer.Client }

func (f files) Put(ctx context.Context, name string, r io.ReadSeeker, size int64) error {
	_, err := f.Client.Put(ctx, name, r, size)
	return err
}
