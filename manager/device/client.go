package device

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

// Target is a device and how to reach it.
type Target struct {
	// Address is HOST or HOST:PORT; the default port is 161.
	Address string
	// Credentials are a user or communities.
	Credentials Credentials
	// Root is the OID of IAD-UPGRADE-MIB on the device; nil: mib.DefaultRoot.
	Root mib.OID
	// Timeout is the time to wait for an answer; 0: 2 s. It doubles with every retry.
	Timeout time.Duration
	// Retries is how often a request is sent again; 0: 2, negative: never.
	Retries int
	// Warn gets a text if the device returns with another SNMP engine ID; it may be nil.
	Warn func(text string)
}

// Client is typed access to IAD-UPGRADE-MIB on one device. It is safe for concurrent use;
// it sends one request after the other.
type Client struct {
	address string
	module  *mib.Module
	creds   Credentials
	timeout time.Duration

	retries int
	seen    atomic.Bool // the module was there once

	mu   sync.Mutex
	snmp *gosnmp.GoSNMP
	engineState
}

// Errors of SNMP access that a Client returns, wrapped.
var (
	// ErrNoAnswer: the device is down, restarting or unreachable, or does not know the
	// community; or its SNMP agent runs, but not the subagent that serves the module.
	ErrNoAnswer = errors.New("no answer")
	// ErrCredentials: the device does not accept the user, password or security level.
	ErrCredentials = errors.New("credentials refused")
	// ErrNotSupported: the device does not have the object.
	ErrNotSupported = errors.New("not supported by the device")
)

// Dial prepares access to a device; it sends nothing.
func Dial(t Target) (*Client, error) {
	host, port, err := splitAddress(t.Address)
	if err != nil {
		return nil, err
	}
	if t.Root == nil {
		t.Root = mib.DefaultRoot
	}
	s := &gosnmp.GoSNMP{
		Target: host, Port: port, Transport: "udp", Version: gosnmp.Version2c,
		Timeout: t.Timeout, Retries: t.Retries, ExponentialTimeout: true,
		MaxOids: 60, MaxRepetitions: 20,
	}
	if s.Timeout <= 0 {
		s.Timeout = 2 * time.Second
	}
	switch {
	case s.Retries == 0:
		s.Retries = 2
	case s.Retries < 0:
		s.Retries = 0
	}
	if u := t.Credentials.User; u != nil {
		if err := u.Check(); err != nil {
			return nil, err
		}
		s.Version, s.SecurityModel, s.MsgFlags = gosnmp.Version3, gosnmp.UserSecurityModel, u.Level()
		s.SecurityParameters, s.ContextName = u.USM(), u.Context
	} else if err := checkCommunities(t.Credentials); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Address, err)
	}
	// Nothing is sent yet. Only the resolver takes time, and a machine that runs thousands
	// of upgrades.
	timeout := s.Timeout
	s.Timeout = max(timeout, dialPatience)
	if err := s.Connect(); err != nil {
		return nil, fmt.Errorf("%s: %w", t.Address, err)
	}
	s.Timeout = timeout
	return &Client{
		address: net.JoinHostPort(host, strconv.Itoa(int(port))),
		module:  mib.NewModule(t.Root), creds: t.Credentials, timeout: s.Timeout, retries: s.Retries, snmp: s,
		engineState: engineState{warn: t.Warn},
	}, nil
}

func checkCommunities(c Credentials) error {
	for _, community := range []string{c.Read, c.Write} {
		if len(community) > 127 { // gosnmp writes the length into one byte
			return errors.New("a community has at most 127 bytes")
		}
	}
	if c.Read == "" && c.Write == "" {
		return errors.New("no credentials: name a community or an SNMPv3 user in the credentials file")
	}
	return nil
}

// splitAddress separates HOST and PORT; an IPv6 address may stand alone.
func splitAddress(address string) (string, uint16, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		host, portText = strings.Trim(address, "[]"), "161"
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || host == "" {
		return "", 0, fmt.Errorf("%q is not the address of a device; use HOST or HOST:PORT", address)
	}
	return host, uint16(port), nil
}

// SameAddress reports whether two addresses of targets denote the same place.
func SameAddress(a, b string) bool {
	hostA, portA, errA := splitAddress(a)
	hostB, portB, errB := splitAddress(b)
	return errA == nil && errB == nil && hostA == hostB && portA == portB
}

// Address returns HOST:PORT of the device.
func (c *Client) Address() string { return c.address }

// Close releases the socket.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.snmp.Close()
}

// patience is how long nobody may listen at the device's port: its agent is starting or
// restarting.
const patience = 5 * time.Second

// dialPatience is the minimum time to wait for the resolver and a socket.
const dialPatience = 30 * time.Second

// pause waits a moment; false if ctx has ended.
func pause(ctx context.Context) bool {
	t := time.NewTimer(100 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// exchange runs one request of gosnmp; ctx ends it early.
func (c *Client) exchange(ctx context.Context, write bool, request func(*gosnmp.GoSNMP) (*gosnmp.SnmpPacket, error)) ([]mib.Varbind, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.snmp.Conn == nil {
		return nil, fmt.Errorf("%s: %w", c.address, net.ErrClosed)
	}
	c.snmp.Context = ctx
	c.snmp.Community = c.creds.Write
	if !write && c.creds.Read != "" {
		c.snmp.Community = c.creds.Read
	}
	conn := c.snmp.Conn
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		_ = conn.SetDeadline(time.Unix(1, 0))
	})
	defer func() {
		if !stop() {
			<-ended // or it would end the next request
		}
	}()
	if err := c.sameEngine(ctx, write); err != nil {
		return nil, err
	}
	packet, err := c.patiently(ctx, request)
	if err != nil && c.discover(err) {
		if err := c.sameEngine(ctx, write); err != nil {
			return nil, err
		}
		packet, err = c.patiently(ctx, request)
	}
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	c.noteEngine()
	if packet.PDUType == gosnmp.Report && reportName(packet) == notInTimeWindows {
		return nil, fmt.Errorf("%s: %w: the device restarted while it was asked", c.address, ErrNoAnswer)
	}
	if packet.PDUType == gosnmp.Report {
		return nil, fmt.Errorf("%s: %w: the device reports %s", c.address, ErrCredentials, reportName(packet))
	}
	if packet.Error != gosnmp.NoError {
		return nil, &SetError{Device: c.address, Status: mib.Status(packet.Error), Index: int(packet.ErrorIndex)}
	}
	vbs := make([]mib.Varbind, len(packet.Variables))
	for i, pdu := range packet.Variables {
		if vbs[i], err = decodePDU(pdu); err != nil {
			return nil, fmt.Errorf("%s: %w", c.address, err)
		}
	}
	return vbs, nil
}

// patiently repeats a request while nobody listens at the device's port.
func (c *Client) patiently(ctx context.Context, request func(*gosnmp.GoSNMP) (*gosnmp.SnmpPacket, error)) (*gosnmp.SnmpPacket, error) {
	packet, err := request(c.snmp)
	for until := time.Now().Add(patience); errors.Is(err, syscall.ECONNREFUSED) && time.Now().Before(until) && pause(ctx); {
		packet, err = request(c.snmp)
	}
	return packet, err
}

func (c *Client) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, refused := range []error{
		gosnmp.ErrUnknownUsername, gosnmp.ErrWrongDigest, gosnmp.ErrDecryption, gosnmp.ErrUnknownSecurityLevel,
	} {
		if errors.Is(err, refused) {
			return fmt.Errorf("%s: %w: %w", c.address, ErrCredentials, err)
		}
	}
	if strings.Contains(err.Error(), "not authentic") {
		return fmt.Errorf("%s: %w: user, authentication or privacy password wrong, or the answer was forged", c.address, ErrCredentials)
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: %w: no agent listens there", c.address, ErrNoAnswer)
	case c.creds.User == nil:
		return fmt.Errorf("%s: %w (a wrong community is not answered either): %w", c.address, ErrNoAnswer, err)
	}
	return fmt.Errorf("%s: %w: %w", c.address, ErrNoAnswer, err)
}

// notInTimeWindows is usmStatsNotInTimeWindows.0 (RFC 3414 section 5). gosnmp has tried again
// with the device's new time; a second report means that the device restarted once more.
const notInTimeWindows = ".1.3.6.1.6.3.15.1.1.2.0"

func reportName(p *gosnmp.SnmpPacket) string {
	if len(p.Variables) == 0 {
		return "an unnamed problem"
	}
	return p.Variables[0].Name
}

// SetError is an error-status in a response.
type SetError struct {
	Device string
	Status mib.Status
	// Index is the position of the varbind at fault, from 1; 0: none.
	Index int
	// Object is its name, if known.
	Object string
}

func (e *SetError) Error() string {
	what := gosnmp.SNMPError(e.Status).String()
	if e.Object != "" {
		return fmt.Sprintf("%s: %s for %s", e.Device, what, e.Object)
	}
	return fmt.Sprintf("%s: %s at position %d", e.Device, what, e.Index)
}

// Uncertain reports whether the device could not store what it was to change: after a restart it may
// have the old values or the new ones.
func (e *SetError) Uncertain() bool {
	return e.Status == mib.CommitFailed || e.Status == mib.UndoFailed
}

// get reads instances; the answer has one varbind for each.
func (c *Client) get(ctx context.Context, oids []mib.OID) ([]mib.Varbind, error) {
	requested := make([]string, len(oids))
	for i, oid := range oids {
		requested[i] = oid.String()
	}
	vbs, err := c.exchange(ctx, false, func(s *gosnmp.GoSNMP) (*gosnmp.SnmpPacket, error) { return s.Get(requested) })
	if err != nil {
		return nil, err
	}
	if len(vbs) != len(oids) {
		return nil, fmt.Errorf("%s: %d values for %d objects", c.address, len(vbs), len(oids))
	}
	return vbs, nil
}

// getNext reads the first instance after an OID.
func (c *Client) getNext(ctx context.Context, at mib.OID) (mib.Varbind, error) {
	vbs, err := c.exchange(ctx, false, func(s *gosnmp.GoSNMP) (*gosnmp.SnmpPacket, error) { return s.GetNext([]string{at.String()}) })
	if err == nil && len(vbs) != 1 {
		err = fmt.Errorf("%s: %d values for one object", c.address, len(vbs))
	}
	if err != nil {
		return mib.Varbind{}, err
	}
	return vbs[0], nil
}

// read fills fields from the instance index, {0} for scalars. A field whose object the
// device does not have keeps its zero value, but the first object must exist.
func (c *Client) read(ctx context.Context, index mib.OID, fields []Field) error {
	oids := make([]mib.OID, len(fields))
	for i, f := range fields {
		oids[i] = c.module.OID(f.Object, index...)
	}
	vbs, err := c.get(ctx, oids)
	if silent(vbs, err) {
		vbs, err = c.served(ctx, oids) // it may have been away when it was asked first
	}
	if err != nil {
		return err
	}
	if vbs[0].Value.IsException() {
		return fmt.Errorf("%s: %s (%s): %w: check what the user may read",
			c.address, fields[0].Object.Name, vbs[0].OID, ErrNotSupported)
	}
	c.seen.Store(true)
	for i, f := range fields {
		if Fits(f.Object, vbs[i].Value) {
			f.Set(vbs[i].Value)
		}
	}
	return nil
}

// silent reports whether an answer says that nobody serves the first object: a master
// agent answers for a subagent that is absent (noSuchObject) or hangs (genErr).
func silent(vbs []mib.Varbind, err error) bool {
	var status *SetError
	return err == nil && vbs[0].Value.IsException() || errors.As(err, &status) && status.Status == mib.GenErr
}

// awaitModule returns nil when the device serves the module. The error wraps ErrNoAnswer.
func (c *Client) awaitModule(ctx context.Context) error {
	_, err := c.served(ctx, nil)
	return err
}

// served reads instances in a response that proves that the device serves the module: an
// exception in it means that the device lacks the instance. If the device served the
// module before, served waits for as long as for an answer: a device without a master
// agent would not answer either. A device may go away again at any time, as when software
// fails its self-test, so one response has the proof and the values.
func (c *Client) served(ctx context.Context, oids []mib.OID) ([]mib.Varbind, error) {
	oids = append([]mib.OID{c.module.OID(mib.DeviceId, scalar...)}, oids...)
	wait := c.timeout * time.Duration(1<<(c.retries+1)-1)
	for until := time.Now().Add(wait); ; {
		vbs, err := c.get(ctx, oids)
		var status *SetError
		switch {
		case err == nil && !silent(vbs, nil):
			return vbs[1:], nil
		case err != nil && !silent(nil, err), errors.As(err, &status) && status.Index > 1: // not of the first object
			return nil, err
		case c.seen.Load() && time.Now().Before(until):
			if !pause(ctx) {
				return nil, ctx.Err()
			}
		default:
			return nil, fmt.Errorf("%s: %w: the SNMP agent is up, but nothing there serves IAD-UPGRADE-MIB (%s); check that iad runs, the root OID and what the user may read",
				c.address, ErrNoAnswer, c.module.Root())
		}
	}
}

// maxInstances bounds a walk: iadUpgHistTable has 1024 rows of 15 readable columns
// at most.
const maxInstances = 1 << 14

// walk visits all instances of the columns of a table, column by column.
func (c *Client) walk(ctx context.Context, row *mib.Object, visit func(column *mib.Object, index mib.OID, v mib.Value)) error {
	top := c.module.OID(row)
	visited := 0
	began := time.Now()
	for at := top; ; {
		start := at.String()
		// A device that returns one value at a time must not take hours.
		limit := 10*c.timeout + time.Duration(visited)*c.timeout/40
		paced, cancel := context.WithDeadline(ctx, began.Add(limit))
		vbs, err := c.exchange(paced, false, func(s *gosnmp.GoSNMP) (*gosnmp.SnmpPacket, error) {
			return s.GetBulk([]string{start}, 0, s.MaxRepetitions)
		})
		late := paced.Err() != nil && ctx.Err() == nil
		cancel()
		if err != nil && late {
			return fmt.Errorf("%s: %w: only %d values of %s in %s", c.address, ErrNoAnswer, visited, row.Name, limit)
		}
		if err != nil {
			return err
		}
		if len(vbs) == 0 || visited == 0 && (vbs[0].Value.IsException() || !vbs[0].OID.HasPrefix(top)) {
			return c.awaitModule(ctx) // an empty table, or nobody who has it
		}
		for _, vb := range vbs {
			if vb.Value.IsException() || !vb.OID.HasPrefix(top) {
				return nil
			}
			if vb.OID.Compare(at) <= 0 {
				return fmt.Errorf("%s: the agent's answers are out of order at %s", c.address, vb.OID)
			}
			at = vb.OID
			if visited++; visited > maxInstances {
				return fmt.Errorf("%s: %s does not end: more than %d values", c.address, row.Name, maxInstances)
			}
			if o, index, ok := c.module.Lookup(vb.OID); ok {
				visit(o, index, vb.Value)
			}
		}
	}
}

// set writes varbinds in one request: all or none takes effect.
func (c *Client) set(ctx context.Context, vbs []mib.Varbind) error {
	pdus := make([]gosnmp.SnmpPDU, len(vbs))
	for i, vb := range vbs {
		pdus[i] = encodePDU(vb)
	}
	_, err := c.exchange(ctx, true, func(s *gosnmp.GoSNMP) (*gosnmp.SnmpPacket, error) { return s.Set(pdus) })
	var refused *SetError
	if errors.As(err, &refused) && c.seen.Load() {
		switch refused.Status {
		case mib.NoAccess, mib.NotWritable, mib.NoCreation, mib.GenErr: // what a master agent says of a subagent that is away
			if err := c.awaitModule(ctx); err != nil {
				return err
			}
		}
	}
	if errors.As(err, &refused) && refused.Index >= 1 && refused.Index <= len(vbs) {
		if o, _, ok := c.module.Lookup(vbs[refused.Index-1].OID); ok {
			refused.Object = o.Name
		}
	}
	return err
}

// Root returns the OID of IAD-UPGRADE-MIB on the device.
func (c *Client) Root() mib.OID { return c.module.Root() }
