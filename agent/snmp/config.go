package snmp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"slices"
	"time"

	"example.com/iad/internal/snmp"
	"example.com/iad/mib"
)

// Protocols and security levels of the USM.
type (
	AuthProtocol = snmp.AuthProtocol
	PrivProtocol = snmp.PrivProtocol
	Level        = snmp.Level
)

// Security levels, in order.
const (
	NoAuthNoPriv = snmp.NoAuthNoPriv
	AuthNoPriv   = snmp.AuthNoPriv
	AuthPriv     = snmp.AuthPriv
)

// Authentication protocols.
const (
	NoAuth = snmp.NoAuth
	MD5    = snmp.MD5
	SHA1   = snmp.SHA1
	SHA224 = snmp.SHA224
	SHA256 = snmp.SHA256
	SHA384 = snmp.SHA384
	SHA512 = snmp.SHA512
)

// Privacy protocols.
const (
	NoPriv  = snmp.NoPriv
	DES     = snmp.DES
	AES128  = snmp.AES128
	AES192  = snmp.AES192
	AES256  = snmp.AES256
	AES192C = snmp.AES192C
	AES256C = snmp.AES256C
)

// Config describes an engine. The zero value answers nobody and notifies nobody.
type Config struct {
	// Conn is the UDP socket that requests arrive on, as Listen opens it; nil
	// if no requests are answered. The engine does not close it: the next
	// engine of a device that restarts takes it over.
	Conn net.PacketConn
	// Communities are those that SNMPv1 and v2c are answered for. None: both
	// are off.
	Communities []Community
	// Users are those of SNMPv3. None: SNMPv3 is off.
	Users []User
	// WeakCrypto permits users with MD5 or DES.
	WeakCrypto bool
	// EngineID is the device's snmpEngineID, 5 to 32 bytes that are never
	// given to another device (see NewEngineID). Needed if there are Users.
	EngineID []byte
	// Boots is snmpEngineBoots, 1 to 2^31-1. Whoever makes an engine adds one
	// to it each time, durably and beforehand. Needed if there are Users.
	Boots uint32
	// Sinks receive every notification.
	Sinks []Sink
	// Changes is what managers have changed of keys and sinks, as Store got it last.
	Changes []byte
	// Store makes what managers change last, before they get an answer. Nil means that they
	// can change nothing. After an error that wraps ErrUncertain it is called again soon, with what
	// is in force.
	Store func(changes []byte) error
	// Dial opens the sockets that notifications leave from, as net.Dialer.DialContext
	// does, which nil means.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// System are the values of the system group.
	System System
	// MaxSize is the longest message sent or received, 484 to 65507 bytes;
	// 0 means 8192. Answers to GETBULK over SNMPv2c keep to 1472 bytes,
	// which travel unfragmented.
	MaxSize int
	// Now returns the time; nil means time.Now. Waiting for answers to informs
	// goes by the sockets' real time.
	Now func() time.Time
	// Log takes what the operator should know; nil means nowhere.
	Log *slog.Logger
}

// Community is a community of SNMPv1 and v2c and what it may do.
type Community struct {
	Name string
	// Write permits SET.
	Write bool
	// Sources are the addresses it is answered to; none means all.
	Sources []netip.Prefix
	// View are the objects it sees; nil means everything.
	View View
}

// User is a user of the USM (RFC 3414). Without Access it may do nothing.
type User struct {
	// Name has 1 to 32 bytes.
	Name string
	Auth AuthProtocol
	// AuthPassphrase has at least 8 bytes; it is not used with NoAuth.
	AuthPassphrase string
	// Priv needs an Auth other than NoAuth.
	Priv PrivProtocol
	// PrivPassphrase has at least 8 bytes; it is not used with NoPriv.
	PrivPassphrase string
	Access         []Access
}

// level is the highest security level that the user can speak at.
func (u *User) level() Level { return snmp.LevelOf(u.Auth, u.Priv) }

// Sink is a receiver of notifications.
type Sink struct {
	// Address is HOST or HOST:PORT; the port is 162 if not given.
	Address string
	// Community is used with SNMPv2c, unless User is given.
	Community string
	// User is one of Config.Users, whose Access must permit notifications at
	// the user's highest level; they are sent at that level.
	User string
	// Inform asks the receiver for an acknowledgement (RFC 3416 section
	// 4.2.7) and repeats the notification until it comes.
	Inform bool
	// Timeout is how long to wait for one; 0 means 2 seconds.
	Timeout time.Duration
	// Retries is how often to repeat an inform; 0 means 3 times, negative
	// means never.
	Retries int
}

// System are the values of the system group (RFC 3418 section 2), read-only.
// Texts have at most 255 bytes.
type System struct {
	Descr string
	// ObjectID is sysObjectID; empty means 0.0.
	ObjectID mib.OID
	Contact  string
	Name     string
	Location string
	// Started is when the device began to count sysUpTime; the zero value
	// means when the engine was made.
	Started time.Time
}

const (
	defaultMaxSize = 8192
	maxUDPPayload  = 65507
	defaultTimeout = 2 * time.Second
	defaultRetries = 3
)

// check refuses what cannot work and fills in defaults, not in the caller's
// lists.
func (c *Config) check() error {
	c.Communities, c.Users, c.Sinks = slices.Clone(c.Communities), slices.Clone(c.Users), slices.Clone(c.Sinks)
	if c.MaxSize == 0 {
		c.MaxSize = defaultMaxSize
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.MaxSize < snmp.MinMaxSize || c.MaxSize > maxUDPPayload {
		return fmt.Errorf("snmp: message size %d is not within %d and %d", c.MaxSize, snmp.MinMaxSize, maxUDPPayload)
	}
	for _, text := range []string{c.System.Descr, c.System.Contact, c.System.Name, c.System.Location} {
		if len(text) > 255 {
			return fmt.Errorf("snmp: %.20q... is longer than the 255 bytes of an object of the system group", text)
		}
	}
	for _, comm := range c.Communities {
		if comm.Name == "" {
			return errors.New("snmp: a community without a name")
		}
	}
	if len(c.Users) > 0 {
		if err := checkEngine(c.EngineID, c.Boots); err != nil {
			return err
		}
	}
	seen := make(map[string]bool)
	for i := range c.Users {
		u := &c.Users[i]
		if err := u.check(c.WeakCrypto); err != nil {
			return err
		}
		if seen[u.Name] {
			return fmt.Errorf("snmp: user %s is configured twice", u.Name)
		}
		seen[u.Name] = true
	}
	for i := range c.Sinks {
		if err := c.checkSink(&c.Sinks[i]); err != nil {
			return err
		}
	}
	return nil
}

func checkEngine(id []byte, boots uint32) error {
	if len(id) < snmp.MinEngineID || len(id) > snmp.MaxEngineID {
		return fmt.Errorf("snmp: an engine ID has %d to %d bytes, not %d", snmp.MinEngineID, snmp.MaxEngineID, len(id))
	}
	if boots == 0 || boots > math.MaxInt32 {
		return fmt.Errorf("snmp: engine boots %d is not within 1 and %d", boots, math.MaxInt32)
	}
	return nil
}

func (u *User) check(weak bool) error {
	switch {
	case u.Name == "" || len(u.Name) > snmp.MaxUserName:
		return fmt.Errorf("snmp: user name %q must have 1 to %d bytes", u.Name, snmp.MaxUserName)
	case !u.Auth.Known() || !u.Priv.Known():
		return fmt.Errorf("snmp: user %s has an unknown protocol", u.Name)
	case u.Priv != NoPriv && u.Auth == NoAuth:
		return fmt.Errorf("snmp: user %s has privacy without authentication", u.Name)
	case (u.Auth == MD5 || u.Priv == DES) && !weak:
		return fmt.Errorf("snmp: user %s has MD5 or DES, which are broken: choose SHA-256 and AES, or permit weak cryptography", u.Name)
	case u.Auth != NoAuth && len(u.AuthPassphrase) < snmp.MinPassphrase,
		u.Priv != NoPriv && len(u.PrivPassphrase) < snmp.MinPassphrase:
		return fmt.Errorf("snmp: a passphrase of user %s has less than %d bytes", u.Name, snmp.MinPassphrase)
	}
	for _, a := range u.Access {
		if a.Level > u.level() {
			return fmt.Errorf("snmp: user %s has access at %v but no protocols for it", u.Name, a.Level)
		}
	}
	return nil
}

func (c *Config) checkSink(s *Sink) error {
	if _, _, err := net.SplitHostPort(s.Address); err != nil {
		s.Address = net.JoinHostPort(s.Address, "162")
		if _, _, err := net.SplitHostPort(s.Address); err != nil {
			return fmt.Errorf("snmp: notification receiver: %w", err)
		}
	}
	if s.Timeout <= 0 {
		s.Timeout = defaultTimeout
	}
	switch {
	case s.Retries == 0:
		s.Retries = defaultRetries
	case s.Retries < 0:
		s.Retries = 0
	}
	if s.User == "" {
		if s.Community == "" {
			return fmt.Errorf("snmp: notification receiver %s has neither community nor user", s.Address)
		}
		return nil
	}
	for i := range c.Users {
		if u := &c.Users[i]; u.Name == s.User {
			if a := accessFor(u.Access, u.level(), netip.Addr{}); a == nil || len(a.Notify) == 0 {
				return fmt.Errorf("snmp: user %s of notification receiver %s has no view for notifications at %v",
					s.User, s.Address, u.level())
			}
			return nil
		}
	}
	return fmt.Errorf("snmp: notification receiver %s has user %s, who is not configured", s.Address, s.User)
}
