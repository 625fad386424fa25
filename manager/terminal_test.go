package manager_test

import (
	"net"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// Texts that a device makes up are fit for an operator's terminal.
func TestTextsOfHostileDevice(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, 65536)
		g := &gosnmp.GoSNMP{Version: gosnmp.Version2c}
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
			for i := range p.Variables {
				p.Variables[i].Type, p.Variables[i].Value = gosnmp.OctetString, "x\x1b]0;pwn\x07\x1b[2J\u009b31m\u202egpj.exe\u2066\u200b\ufeff"+strings.Repeat("y", 300)
				if p.Variables[i].Name == "."+mib.NewModule(nil).OID(mib.DeviceId, 0).String() {
					p.Variables[i].Value = "D1"
				}
			}
			if out, err := p.MarshalMsg(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	c, err := device.Dial(device.Target{Address: conn.LocalAddr().String(), Credentials: device.Credentials{Read: "public", Write: "private"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := c.Device(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{d.ID, d.Model, d.Hardware, d.Version} {
		if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) || utf8.RuneCountInString(s) > 64 {
			t.Errorf("%q", s)
		}
	}
}
