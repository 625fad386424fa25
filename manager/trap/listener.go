package trap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/spf13/afero"
	"golang.org/x/time/rate"

	"example.com/iad/internal/snmp"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// ListenerConfig configures a Listener.
type ListenerConfig struct {
	// Listen is HOST:PORT; the default port of SNMP is 162; port 0: any free port.
	Listen string
	// Communities are those accepted with SNMPv2c; none: any, but if there are Users
	// SNMPv2c is not accepted.
	Communities []string
	// AnyCommunity accepts SNMPv2c with other communities too. As without Communities,
	// nothing is recorded about their senders, so a notification that a device sends twice
	// is delivered twice, except to a subscription for that device.
	AnyCommunity bool
	// Users of SNMPv3. Several may have the same name: all of them are tried.
	Users []device.User
	// Root is the OID of IAD-UPGRADE-MIB on the devices; nil: mib.DefaultRoot.
	Root mib.OID
	// Files keeps the identity by which senders of SNMPv3 informs know the listener at its
	// address, in listener/. With nil or with port 0 the identity changes at every start.
	// snmpd learns it once, and sends nothing to a listener that returns with another one.
	Files afero.Fs
	// Now returns the time; nil: time.Now.
	Now func() time.Time
	// Log gets what was dropped and why; nil: nothing is logged.
	Log *slog.Logger
	// Observe, if not nil, is called with each notification as it was received, before
	// duplicates are dropped. It reports whether to treat the notification as lost: then
	// an inform is not acknowledged.
	Observe func(Raw) (lost bool)
}

// Raw is a notification of the module as received.
type Raw struct {
	Kind     *mib.Notification
	From     netip.AddrPort
	Received time.Time
	Inform   bool
	// Vars are its varbinds, without snmpTrapOID.0.
	Vars []mib.Varbind
}

// Listener receives the traps and informs of many devices on one socket and delivers them
// to subscribers. It drops duplicates of an event.
type Listener struct {
	cfg      ListenerConfig
	conn     *net.UDPConn
	module   *mib.Module
	usm      *usmReceiver
	warnings *rate.Limiter
	done     chan struct{}

	hub       Hub
	mu        sync.Mutex
	sequences map[string]*sequence // by device identity
}

// maxDevices is the maximum number of devices whose event numbers are followed.
const maxDevices = 20_000

// Listen opens the socket and starts to receive, until Close.
func Listen(cfg ListenerConfig) (*Listener, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	address, err := net.ResolveUDPAddr("udp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("notification listener: %w", err)
	}
	conn, err := net.ListenUDP("udp", address)
	if err != nil {
		return nil, fmt.Errorf("notification listener: %w", err)
	}
	// Hundreds of devices may report at the same time.
	if err := conn.SetReadBuffer(1 << 20); err != nil {
		cfg.Log.Debug("receive buffer could not be enlarged", "err", err)
	}
	usm, err := newUSM(cfg, address, conn)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	l := &Listener{
		cfg: cfg, conn: conn, module: mib.NewModule(cfg.Root), usm: usm,
		warnings: rate.NewLimiter(rate.Every(10*time.Second), 5),
		done:     make(chan struct{}), sequences: make(map[string]*sequence),
	}
	go l.receive()
	go usm.prepare(l.done)
	return l, nil
}

// newUSM makes the receiver of SNMPv3, with the identity of the listener at its address.
func newUSM(cfg ListenerConfig, address *net.UDPAddr, conn *net.UDPConn) (*usmReceiver, error) {
	files := cfg.Files
	if address.Port == 0 {
		files = nil
	}
	self, err := startEngine(files, conn.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil && self.id == "" {
		return nil, err
	}
	if err != nil {
		cfg.Log.Warn("the notification listener has a new identity; restart snmpd if no informs come", "err", err)
	}
	return newUSMReceiver(cfg.Users, cfg.Now, self)
}

// Addr returns the address that the listener receives on.
func (l *Listener) Addr() netip.AddrPort {
	return l.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// Close stops receiving and closes the channels of all subscriptions.
func (l *Listener) Close() error {
	err := l.conn.Close()
	<-l.done
	l.hub.Close()
	return err
}

func (l *Listener) receive() {
	defer close(l.done)
	buf := make([]byte, 65535)
	for {
		n, from, err := l.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			l.cfg.Log.Warn("notification not read", "err", err)
			continue
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		answer, err := l.handle(buf[:n], from)
		level := slog.LevelDebug
		if errors.Is(err, errNoCredentials) && l.warnings.Allow() { // anybody can cause it
			level = slog.LevelWarn
		}
		if err != nil {
			l.cfg.Log.Log(context.Background(), level, "notification dropped", "from", from, "err", err)
		}
		if answer == nil {
			continue
		}
		if _, err := l.conn.WriteToUDPAddrPort(answer, from); err != nil {
			l.cfg.Log.Warn("inform not answered", "from", from, "err", err)
		}
	}
}

// message is a message that was accepted at its security level.
type message struct {
	snmp.PDU
	user    string // or the community
	vouched bool   // the sender knows a secret of the configuration
	// acknowledge returns the datagram with a response.
	acknowledge func(snmp.PDU) ([]byte, error)
}

// handle processes one datagram and returns the datagram to send back, nil if there is
// none.
func (l *Listener) handle(datagram []byte, from netip.AddrPort) ([]byte, error) {
	version, err := snmp.ReadVersion(datagram)
	if err != nil {
		return nil, err
	}
	var m *message
	switch version {
	case snmp.Version2c:
		if !l.acceptsV2() {
			return nil, errors.New("SNMPv2c is not accepted: only users of SNMPv3 are configured")
		}
		m, err = l.openV2(datagram)
	case snmp.Version3:
		var report []byte
		if m, report, err = l.usm.open(datagram); m == nil {
			return report, err
		}
	default:
		return nil, fmt.Errorf("SNMP message version %d is not accepted", version)
	}
	if err != nil {
		return nil, err
	}
	if m.Kind != snmp.PDUTrap && m.Kind != snmp.PDUInform {
		return nil, fmt.Errorf("PDU type %#x is not a notification", m.Kind)
	}
	if err := l.accept(m, from); err != nil {
		return nil, err
	}
	if m.Kind == snmp.PDUInform { // RFC 3416 section 4.2.7
		return m.acknowledge(snmp.PDU{Kind: snmp.PDUResponse, RequestID: m.RequestID, Vars: m.Vars})
	}
	return nil, nil
}

// openV2 reads a message of SNMPv2c.
func (l *Listener) openV2(datagram []byte) (*message, error) {
	community, p, err := snmp.ReadCommunityMessage(datagram)
	if err != nil {
		return nil, err
	}
	name := string(community)
	vouched := slices.Contains(l.cfg.Communities, name)
	if !vouched && !l.cfg.AnyCommunity && len(l.cfg.Communities) > 0 {
		return nil, errors.New("community not accepted")
	}
	return &message{PDU: p, user: name, vouched: vouched, acknowledge: func(response snmp.PDU) ([]byte, error) {
		return snmp.AppendCommunityMessage(nil, snmp.Version2c, name, response, snmp.EncodeVars(response.Vars)), nil
	}}, nil
}

// acceptsV2 reports whether SNMPv2c is configured.
func (l *Listener) acceptsV2() bool {
	return l.cfg.AnyCommunity || len(l.cfg.Communities) > 0 || len(l.cfg.Users) == 0
}

var trapOID = mib.MustParseOID("1.3.6.1.6.3.1.1.4.1.0") // snmpTrapOID.0, RFC 3418

// errLost: ListenerConfig.Observe wants the notification to be lost.
var errLost = errors.New("treated as lost")

// accept finds out which notification it is and delivers it.
func (l *Listener) accept(m *message, from netip.AddrPort) error {
	var kind *mib.Notification
	var vbs []mib.Varbind
	for _, vb := range m.Vars {
		if vb.OID.Compare(trapOID) == 0 {
			kind, _ = l.module.NotificationByOID(vb.Value.OID)
			continue
		}
		vbs = append(vbs, vb)
	}
	if kind == nil {
		return nil // of another module: received, of no interest here
	}
	received, inform := l.cfg.Now(), m.Kind == snmp.PDUInform
	if l.cfg.Observe != nil && l.cfg.Observe(Raw{Kind: kind, From: from, Received: received, Inform: inform, Vars: vbs}) {
		return errLost
	}
	n, err := parseNotification(l.module, kind, vbs)
	if err != nil {
		return err
	}
	n.From, n.Received, n.Inform, n.User = from, received, inform, m.user
	l.deliver(n, m.vouched)
	return nil
}

// deliver sends a notification to its subscribers. The event numbers of a device are
// followed if its sender is authenticated or a subscription is for it: anybody could make
// up any number of devices.
func (l *Listener) deliver(n *Notification, vouched bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq := l.sequences[n.DeviceID]
	if seq == nil && (vouched && len(l.sequences) < maxDevices || l.hub.Named(n.DeviceID)) {
		seq = new(sequence)
		l.sequences[n.DeviceID] = seq
	}
	if seq != nil {
		duplicate, missed := seq.judge(n)
		if duplicate {
			l.cfg.Log.Debug("duplicate notification", "device", n.DeviceID, "seq", n.Seq)
			return
		}
		n.Missed = missed
	}
	l.hub.Deliver(n)
}

// Subscribe starts a stream; see Hub.Subscribe.
func (l *Listener) Subscribe(f Filter, size int) *Subscription { return l.hub.Subscribe(f, size) }
