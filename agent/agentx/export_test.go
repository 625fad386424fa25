package agentx

import (
	"os"
	"syscall"
)

// What the tests with a real agent, which imports this package, use of the
// others.

type (
	Program = program
	Snmpd   = snmpd
)

var (
	FreePort   = freePort
	StartSnmpd = startSnmpd
	StartTrapd = startTrapd
	Client     = client
	ClientV3   = clientV3
)

const (
	AuthPass = authPass
	PrivPass = privPass
)

func (p *program) Kill() { p.kill() }

// Signal sends a signal to the program.
func (p *program) Signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(os.Signal(sig)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) Await(from int, words ...string) (line string, next int) {
	p.t.Helper()
	return p.await(from, words...)
}

// Lines are those that the program has printed.
func (p *program) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[:len(p.lines):len(p.lines)]
}

// Restart starts a killed snmpd again.
func (s *snmpd) Restart() { s.t.Helper(); s.start() }

func (s *snmpd) Port() uint16    { return s.port }
func (s *snmpd) Address() string { return s.address }
