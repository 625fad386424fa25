package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gosnmp/gosnmp"
	"golang.org/x/sys/unix"

	"example.com/iad/internal/credentials"
	"example.com/iad/internal/peers"
	"example.com/iad/mib"
)

const (
	clients  = 8
	requests = 1000 // of each client in a round

	community  = "private"
	sysContact = ".1.3.6.1.2.1.1.4.0"              // an object of snmpd's own
	subagent   = ".1.3.6.1.4.1.8072.9999.9999.1.0" // that of subagent.c
)

// snmpd starts a master agent; more are further lines of its configuration.
func (l *lab) snmpd(more ...string) (s *server, port int, socket string, err error) {
	path, err := l.program("snmpd")
	if err != nil {
		return nil, 0, "", err
	}
	if port, err = peers.FreePort("udp"); err != nil {
		return nil, 0, "", err
	}
	dir, err := l.directory()
	if err != nil {
		return nil, 0, "", err
	}
	socket = filepath.Join(dir, "agentx")
	conf := filepath.Join(dir, "snmpd.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(append([]string{
		fmt.Sprintf("agentAddress udp:127.0.0.1:%d", port), "master agentx", "agentXSocket unix:" + socket, "rwcommunity " + community + " 127.0.0.1", "dontLogTCPWrappersConnects yes",
	}, more...), "\n")+"\n"), 0o600); err != nil {
		return nil, 0, "", err
	}
	cmd := exec.Command(path, "-f", "-Lo", "-C", "-c", conf)
	cmd.Env = append(os.Environ(), "SNMP_PERSISTENT_DIR="+dir)
	if s, err = l.serve(cmd); err != nil {
		return nil, 0, "", err
	}
	return s, port, socket, l.await(s, func() bool { return strings.Contains(s.output.String(), "NET-SNMP version") })
}

// agentXRequests sends requests through snmpd to iad and to a subagent in C with one object.
func agentXRequests(set bool) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		master, port, socket, err := l.snmpd()
		if err != nil {
			return sides{}, err
		}
		program, err := l.subagent()
		if err != nil {
			return sides{}, err
		}
		cmd := exec.Command(program, "unix:"+socket)
		cmd.Env = append(os.Environ(), "SNMPCONFPATH="+filepath.Dir(socket), "SNMP_PERSISTENT_DIR="+filepath.Dir(socket))
		peer, err := l.serve(cmd)
		if err != nil {
			return sides{}, err
		}
		u, err := l.newUnit()
		if err != nil {
			return sides{}, err
		}
		ours, err := u.run("--snmp", "none", "--agentx", "unix:"+socket)
		if err != nil {
			return sides{}, err
		}
		object := mib.DeviceId
		if set {
			object = mib.ReqOwner
		}
		name := "." + mib.NewModule(nil).OID(object, 0).String()
		return l.loads(set, agent{l.v2c(port, peer, subagent), subagent, peer, master}, agent{l.v2c(port, ours, name), name, ours, master})
	}
}

// subagent compiles the subagent in C against the library that snmpd uses.
func (l *lab) subagent() (string, error) {
	source, root := filepath.Join(l.top, "testdata", "bench", "subagent", "subagent.c"), filepath.Join(l.top, ".peers", "root", "usr")
	libs, err := filepath.Glob(filepath.Join(root, "lib", "*-linux-*", "libnetsnmpagent.so.*"))
	if err != nil || len(libs) == 0 {
		return "", errors.New("net-snmp's library not found: run make peers")
	}
	dir := filepath.Dir(libs[0])
	// Libraries that these need are in either directory.
	path := "-Wl,--disable-new-dtags,-rpath," + dir + ":" + strings.Replace(dir, "/usr/lib/", "/lib/", 1)
	to := filepath.Join(l.dir, "subagent")
	_, err = l.run(exec.CommandContext(l.ctx, "cc", "-O2", "-o", to, source, "-isystem", filepath.Join(root, "include"), "-L"+dir, path,
		"-Wl,--allow-shlib-undefined", "-l:libnetsnmpagent.so.40", "-l:libnetsnmp.so.40"))
	return to, err
}

// engineRequests sends GET requests to iad's own engine and to snmpd, each for an object of its own.
func engineRequests(v3 bool) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		u, err := l.newUnit()
		if err != nil {
			return sides{}, err
		}
		ours, err := u.run()
		if err != nil {
			return sides{}, err
		}
		file, err := credentials.Read(u.credentials)
		if err != nil {
			return sides{}, err
		}
		user := file.User
		if user == nil {
			return sides{}, errors.New("iad init wrote no user")
		}
		peer, port, _, err := l.snmpd(fmt.Sprintf("createUser %s SHA-256 %q AES %q", user.Name, user.AuthPassphrase, user.PrivPassphrase), "rwuser "+user.Name+" priv")
		if err != nil {
			return sides{}, err
		}
		_, ourPort, err := net.SplitHostPort(u.listen)
		if err != nil {
			return sides{}, err
		}
		var own int
		if _, err := fmt.Sscan(ourPort, &own); err != nil {
			return sides{}, err
		}
		name := "." + mib.NewModule(nil).OID(mib.DeviceId, 0).String()
		theirs, mine := l.v2c(port, nil, sysContact), l.v2c(own, ours, name)
		if v3 {
			theirs, mine = v3Client(port, user), v3Client(own, user)
		}
		return l.loads(false, agent{theirs, sysContact, peer, nil}, agent{mine, name, ours, nil})
	}
}

// dial makes a manager; it has asked once for an object.
type dial func() (*gosnmp.GoSNMP, error)

// v2c makes managers with a community. The first waits until the object is there.
func (l *lab) v2c(port int, s *server, name string) dial {
	up := false
	return func() (*gosnmp.GoSNMP, error) {
		c := &gosnmp.GoSNMP{Target: "127.0.0.1", Port: uint16(port), Community: community, Version: gosnmp.Version2c, Timeout: 20 * time.Second, Transport: "udp"}
		if err := c.Connect(); err != nil {
			return nil, err
		}
		if up || s == nil {
			return c, nil
		}
		up = true
		return c, l.await(s, func() bool {
			p, err := c.Get([]string{name})
			return err == nil && p.Error == gosnmp.NoError && p.Variables[0].Type == gosnmp.OctetString
		})
	}
}

// v3Client makes managers with privacy.
func v3Client(port int, user *credentials.User) dial {
	return func() (*gosnmp.GoSNMP, error) {
		c := &gosnmp.GoSNMP{
			Target: "127.0.0.1", Port: uint16(port), Version: gosnmp.Version3, Timeout: 20 * time.Second, Transport: "udp",
			SecurityModel: gosnmp.UserSecurityModel, MsgFlags: gosnmp.AuthPriv,
			SecurityParameters: &gosnmp.UsmSecurityParameters{
				UserName: user.Name, AuthenticationProtocol: gosnmp.SHA256, AuthenticationPassphrase: user.AuthPassphrase,
				PrivacyProtocol: gosnmp.AES, PrivacyPassphrase: user.PrivPassphrase,
			},
		}
		return c, c.Connect()
	}
}

// agent is one side of a row: how managers reach it, the object they ask for, the program, and the one between them and it, if any.
type agent struct {
	dial    dial
	name    string
	program *server
	between *server
}

// loads makes both sides of a row.
func (l *lab) loads(set bool, theirs, mine agent) (sides, error) {
	side := func(a agent) (func() (sample, error), error) {
		var list []*gosnmp.GoSNMP
		for range clients {
			c, err := a.dial()
			if err != nil {
				return nil, err
			}
			l.cleanups = append(l.cleanups, func() { c.Conn.Close() })
			list = append(list, c)
		}
		return func() (sample, error) { return round(list, a, set) }, nil
	}
	peer, err := side(theirs)
	if err != nil {
		return sides{}, err
	}
	ours, err := side(mine)
	return sides{ours: ours, peer: peer}, err
}

// processorTimes are those of the agent, and of what is between.
func (a agent) processorTimes() (own, others time.Duration, err error) {
	if own, err = processorTime(a.program.cmd.Process.Pid); err != nil {
		return 0, 0, err
	}
	if others, err = processorTime(os.Getpid()); err == nil && a.between != nil {
		var more time.Duration
		more, err = processorTime(a.between.cmd.Process.Pid)
		others += more
	}
	return own, others, err
}

// round sends requests from every manager, one at a time each, and returns the time per request. They are encoded before the
// clock starts and looked at after it has stopped: what is measured is the agent.
func round(list []*gosnmp.GoSNMP, a agent, set bool) (s sample, err error) {
	name := a.name
	encoded, answers := make([][][]byte, len(list)), make([][][]byte, len(list))
	for i, c := range list {
		if p, err := c.Get([]string{name}); err != nil || p.Error != gosnmp.NoError { // also learns the time of the engine
			return s, fmt.Errorf("%s: %v, %w", name, p, err)
		}
		answers[i] = make([][]byte, requests)
		for range requests {
			vb, kind := gosnmp.SnmpPDU{Name: name, Type: gosnmp.Null}, gosnmp.GetRequest
			if set {
				vb.Type, vb.Value, kind = gosnmp.OctetString, "operator", gosnmp.SetRequest
			}
			message, err := c.SnmpEncodePacket(kind, []gosnmp.SnmpPDU{vb}, 0, 0)
			if err != nil {
				return s, err
			}
			encoded[i] = append(encoded[i], message)
		}
	}
	own, others, err := a.processorTimes()
	if err != nil {
		return s, err
	}
	begun := time.Now()
	if err := exchanges(list, encoded, answers); err != nil {
		return s, err
	}
	count := time.Duration(len(list) * requests)
	s.took = time.Since(begun) / count
	ownLater, othersLater, err := a.processorTimes()
	if err != nil {
		return s, err
	}
	s.processor, s.others = (ownLater-own)/count, (othersLater-others)/count
	for i, c := range list {
		for _, answer := range answers[i] {
			p, err := c.SnmpDecodePacket(answer)
			if err != nil || p.PDUType != gosnmp.GetResponse || p.Error != gosnmp.NoError || p.Variables[0].Type != gosnmp.OctetString {
				return s, fmt.Errorf("%s: answer %v, %w", name, p, err)
			}
		}
	}
	return s, nil
}

// exchanges sends the requests of all managers and keeps the answers. It is one loop over all sockets, as in a program in C: a
// goroutine for each manager would take as much processor time as the agent.
func exchanges(list []*gosnmp.GoSNMP, encoded, answers [][][]byte) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var waiting []unix.PollFd
	for i, c := range list {
		conn, ok := c.Conn.(*net.UDPConn)
		if !ok {
			return fmt.Errorf("a %T is not a UDP socket", c.Conn)
		}
		raw, err := conn.SyscallConn()
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { waiting = append(waiting, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}) }); err != nil {
			return err
		}
		if _, err := unix.Write(int(waiting[i].Fd), encoded[i][0]); err != nil {
			return err
		}
	}
	buf, next, left := make([]byte, 2048), make([]int, len(list)), len(list)
	for left > 0 {
		switch n, err := unix.Poll(waiting, 20_000); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return errors.New("a request was not answered within 20 s")
		}
		for i := range waiting {
			if waiting[i].Revents == 0 {
				continue
			}
			n, err := unix.Read(int(waiting[i].Fd), buf)
			if err != nil {
				return err
			}
			answers[i][next[i]] = bytes.Clone(buf[:n])
			if next[i]++; next[i] == len(encoded[i]) {
				waiting[i].Fd = -1 // ignored from here on
				left--
				continue
			}
			if _, err := unix.Write(int(waiting[i].Fd), encoded[i][next[i]]); err != nil {
				return err
			}
		}
	}
	return nil
}
