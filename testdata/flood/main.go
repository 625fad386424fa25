// Flood sends hostile datagrams to the SNMP port of a device on this machine:
// noise, broken messages, guessed communities and pass phrases, unknown users,
// discovery for forged purposes, and giants. It says what it sent, what came
// back and, given the process, how much memory that cost.
//
//	go run ./testdata/flood [-rate 10000] [-for 30s] [-from 127.0.0.66] [-user NAME] [-pid PID] HOST:PORT
//
// It sends to loopback addresses only and ends by itself.
package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"
)

// maxTime keeps a forgotten flood from going on.
const maxTime = 2 * time.Minute

func main() {
	rate := flag.Int("rate", 10000, "datagrams a second")
	length := flag.Duration("for", 30*time.Second, "how long, at most 2m")
	from := flag.String("from", "127.0.0.66", "loopback address to send from")
	user := flag.String("user", "manager", "user of SNMPv3 whose pass phrase is guessed")
	pid := flag.Int("pid", 0, "process of the device, whose memory is printed")
	seed := flag.Uint64("seed", 1, "of the random numbers")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *from, *user, *rate, min(*length, maxTime), *pid, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "flood:", err)
		os.Exit(1)
	}
}

func run(target, from, user string, rate int, length time.Duration, pid int, seed uint64) error {
	to, err := net.ResolveUDPAddr("udp", target)
	if err != nil {
		return err
	}
	source := &net.UDPAddr{IP: net.ParseIP(from)}
	if !to.IP.IsLoopback() || !source.IP.IsLoopback() {
		return errors.New("only loopback addresses are flooded, from loopback addresses")
	}
	if to.IP.To4() == nil {
		source.IP = net.IPv6loopback
	}
	conn, err := net.DialUDP("udp", source, to)
	if err != nil {
		return err
	}
	defer conn.Close()
	f := &flood{rand: rand.New(rand.NewPCG(seed, seed)), bases: bases(to, user)}

	before := memory(pid, "VmRSS:")
	answers := make(chan [2]int, 1)
	go func() { answers <- count(conn) }()
	sent, octets, failed := 0, 0, 0
	start := time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for elapsed := time.Duration(0); elapsed < length; elapsed = time.Since(start) {
		for due := int(elapsed.Seconds() * float64(rate)); sent+failed < due; {
			msg := f.next()
			// A full socket buffer or a port that is closed just now.
			if _, err := conn.Write(msg); err != nil {
				failed++
				continue
			}
			sent++
			octets += len(msg)
		}
		<-tick.C
	}
	took := time.Since(start).Seconds()
	conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	answered := <-answers
	fmt.Printf("flood: %d datagrams (%d bytes) in %.1f s, %.0f a second; %d not sent; %d answers (%d bytes, %.3f of what was sent)\n",
		sent, octets, took, float64(sent)/took, failed, answered[0], answered[1], float64(answered[1])/float64(max(1, octets)))
	if pid != 0 {
		fmt.Printf("flood: memory of process %d: %s before, %s now, %s at most\n", pid, before, memory(pid, "VmRSS:"), memory(pid, "VmHWM:"))
	}
	return nil
}

// count receives until the deadline that ends it.
func count(conn net.Conn) (answers [2]int) {
	buf := make([]byte, 65536)
	for {
		n, err := conn.Read(buf)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, net.ErrClosed):
			return answers
		case err == nil:
			answers[0]++
			answers[1] += n
		}
	}
}

// memory reads a line of the process's status; Linux only.
func memory(pid int, line string) string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "unknown"
	}
	for l := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(l, line); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return "unknown"
}

// bases are messages that are well formed, of senders who are not entitled.
func bases(to *net.UDPAddr, user string) [][]byte {
	name := gosnmp.SnmpPDU{Name: ".1.3.6.1.2.1.1.1.0", Type: gosnmp.Null}
	text := gosnmp.SnmpPDU{Name: ".1.3.6.1.2.1.1.5.0", Type: gosnmp.OctetString, Value: strings.Repeat("x", 200)}
	pdus := []gosnmp.SnmpPacket{
		{PDUType: gosnmp.GetRequest, Variables: []gosnmp.SnmpPDU{name}},
		{PDUType: gosnmp.SetRequest, Variables: []gosnmp.SnmpPDU{text}},
		{PDUType: gosnmp.GetBulkRequest, MaxRepetitions: math.MaxInt32, Variables: []gosnmp.SnmpPDU{name, name, name}},
	}
	var list [][]byte
	add := func(p gosnmp.SnmpPacket) {
		if msg, err := p.MarshalMsg(); err == nil && msg != nil {
			list = append(list, msg)
		}
	}
	engine := discover(to, user)
	for _, p := range pdus {
		p.Version, p.Community, p.RequestID = gosnmp.Version2c, "guess", 1
		add(p)
		p.Version = gosnmp.Version1
		add(p)
		p.Version, p.MsgID, p.SecurityModel = gosnmp.Version3, 1, gosnmp.UserSecurityModel
		for _, who := range []string{"", user, "intruder"} {
			for _, level := range []gosnmp.SnmpV3MsgFlags{gosnmp.NoAuthNoPriv, gosnmp.AuthNoPriv, gosnmp.AuthPriv} {
				sp := &gosnmp.UsmSecurityParameters{
					AuthoritativeEngineID: engine, AuthoritativeEngineBoots: 1, UserName: who,
					AuthenticationProtocol: gosnmp.SHA256, AuthenticationPassphrase: "a wrong guess",
					PrivacyProtocol: gosnmp.AES, PrivacyPassphrase: "a wrong guess", PrivacyParameters: make([]byte, 8),
				}
				if who == "" {
					sp.AuthoritativeEngineID = ""
				}
				if sp.InitSecurityKeys() != nil {
					continue
				}
				p.SecurityParameters, p.MsgFlags, p.ContextEngineID = sp, level|gosnmp.Reportable, engine
				add(p)
			}
		}
	}
	return list
}

// discover learns the device's engine ID, if it speaks SNMPv3.
func discover(to *net.UDPAddr, user string) string {
	sp := &gosnmp.UsmSecurityParameters{UserName: user}
	client := &gosnmp.GoSNMP{
		Target: to.IP.String(), Port: uint16(to.Port), Version: gosnmp.Version3, Timeout: time.Second,
		SecurityModel: gosnmp.UserSecurityModel, MsgFlags: gosnmp.NoAuthNoPriv, SecurityParameters: sp,
	}
	if client.Connect() == nil {
		defer client.Conn.Close()
		// It is refused, but not before the engine has sent its ID.
		_, _ = client.Get([]string{".1.3.6.1.2.1.1.1.0"})
	}
	return sp.AuthoritativeEngineID
}

// flood makes datagrams.
type flood struct {
	rand  *rand.Rand
	bases [][]byte
	buf   [60000]byte
}

func (f *flood) next() []byte {
	switch base := f.bases[f.rand.IntN(len(f.bases))]; f.rand.IntN(16) {
	case 0: // noise
		msg := f.buf[:1+f.rand.IntN(1400)]
		for i := range msg {
			msg[i] = byte(f.rand.Uint32())
		}
		return msg
	case 1: // cut short
		return base[:f.rand.IntN(len(base))]
	case 2, 3, 4, 5: // some octets changed
		msg := f.buf[:copy(f.buf[:], base)]
		for range 1 + f.rand.IntN(4) {
			msg[f.rand.IntN(len(msg))] = byte(f.rand.Uint32())
		}
		return msg
	case 6: // sequences within sequences
		msg := f.buf[:1400]
		for i := range msg {
			msg[i] = [2]byte{0x30, 0x80}[i%2]
		}
		return msg
	case 7: // a giant, now and then
		if f.rand.IntN(64) == 0 {
			return f.buf[:]
		}
		fallthrough
	default:
		return base
	}
}
