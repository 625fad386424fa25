//go:build !linux

package bench

import (
	"errors"

	"golang.org/x/net/bpf"
)

func openPackets(string, []bpf.RawInstruction) (packetSource, error) {
	return nil, errors.New("this needs Linux; record them with another program, such as tcpdump -w")
}
