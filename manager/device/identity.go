package device

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Identity is a device to which data belong: its device ID and SNMP engine ID. Addresses
// change: they are recorded for people and never compared.
type Identity struct {
	Device string `json:"device"`
	// EngineID is in hexadecimal digits. It is empty with SNMPv2c, which does not
	// authenticate it: then the device ID alone counts.
	EngineID string `json:"engine_id,omitempty"`
	// Address is the HOST:PORT at which the device was reached.
	Address string `json:"address,omitempty"`
	// Target is the name of the device in the configuration; empty: none.
	Target string    `json:"target,omitempty"`
	Time   time.Time `json:"time"` // when it was recorded
}

// Same reports whether two identities are the same device, as far as both are known.
func (i Identity) Same(o Identity) bool {
	return i.Device == o.Device && (i.EngineID == "" || o.EngineID == "" || i.EngineID == o.EngineID)
}

func Quoted(text string) string { return fmt.Sprintf("%q", printable([]byte(text))) }

// String returns the device, engine, configured name and address.
func (i Identity) String() string {
	text := "device " + Quoted(i.Device)
	if i.EngineID != "" {
		text += ", engine ID " + printable([]byte(i.EngineID))
	}
	if i.Target != "" {
		text += ", configured as " + Quoted(i.Target)
	}
	if i.Address != "" {
		text += ", at " + printable([]byte(i.Address))
	}
	return text
}

// IdentityError says that data belong to another device.
type IdentityError struct {
	What      string
	Want, Got Identity
	Remedy    string
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("%s: %s belongs to another device (%s); %s", e.Got, e.What, e.Want, e.Remedy)
}

func (e *IdentityError) Unwrap() error { return ErrIdentity }

// Identity returns what is known about the device. Before the first answer that is only its
// address.
func (c *Client) Identity() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Identity{Device: c.device, EngineID: hex.EncodeToString([]byte(c.engine)), Address: c.address}
}

// DirectoryName returns the name of the directory for a device ID. A byte other than a
// letter, a digit, "-" or "_" becomes %XX, so that no two devices share a name.
func DirectoryName(device string) string {
	var b strings.Builder
	for _, c := range []byte(device) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	if b.Len() == 0 {
		return "%" // an empty name would be the directory above
	}
	return b.String()
}

// ErrIdentity is wrapped by an error that ends a procedure because the device that
// answers is not the one to which the data or the journal belong.
var ErrIdentity = errors.New("another device")
