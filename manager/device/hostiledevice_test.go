package device_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// A device whose tables never end does not keep the management system for
// ever, nor fill its memory.
func TestEndlessTable(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var answers atomic.Int64
	go func() {
		buf := make([]byte, 65536)
		g := &gosnmp.GoSNMP{Version: gosnmp.Version2c}
		row := uint32(0)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			p, err := g.SnmpDecodePacket(buf[:n])
			if err != nil {
				continue
			}
			p.PDUType, p.Error, p.ErrorIndex = gosnmp.GetResponse, 0, 0
			p.Variables = nil
			for range 10 {
				row++
				p.Variables = append(p.Variables, gosnmp.SnmpPDU{
					Name: "." + mib.NewModule(nil).OID(mib.HistOwner, row).String(), Type: gosnmp.OctetString, Value: fmt.Sprint(row)})
			}
			out, err := p.MarshalMsg()
			if err == nil {
				answers.Add(1)
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	c, err := device.Dial(device.Target{Address: conn.LocalAddr().String(), Credentials: device.Credentials{Read: "public", Write: "private"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	h, err := c.History(ctx)
	if ctx.Err() != nil || answers.Load() > 2000 {
		t.Errorf("%d answers were taken, %d operations, %v", answers.Load(), len(h), err)
	}
}
