package agent

import (
	"context"
	"io"
	"slices"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// fetcher reaches file servers.
type fetcher struct {
	protocols []procedure.Protocol
	options   transfer.Options
}

// NewFetcher reaches servers by package transfer.
func NewFetcher(protocols []procedure.Protocol, options transfer.Options) procedure.Fetcher {
	return fetcher{protocols, options}
}

func (f fetcher) Supports(p procedure.Protocol) bool { return slices.Contains(f.protocols, p) }

func (f fetcher) Open(_ context.Context, s procedure.Server) (procedure.Files, error) {
	host, err := mib.ParseInetAddress(mib.InetAddressType(s.AddressType), s.Address)
	if err != nil {
		return nil, &procedure.Failure{Code: procedure.CauseBadRequest, Text: err.Error()}
	}
	c, err := transfer.New(transfer.Server{
		Protocol: transfer.Protocol(s.Protocol), Host: host, Port: int(s.Port),
		User: s.User, Password: string(s.Password), Path: s.Path,
		Timeout: time.Duration(s.Timeout) * time.Second,
	}, f.options)
	if err != nil {
		return nil, err
	}
	return files{c}, nil
}

type files struct{ *transfer.Client }

func (f files) Put(ctx context.Context, name string, r io.ReadSeeker, size int64) error {
	_, err := f.Client.Put(ctx, name, r, size)
	return err
}
