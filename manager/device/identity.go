package device

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Identity is what data of a device belong to: its device ID and its SNMP engine ID.
// Addresses change, so they are recorded to be shown, and never compared.
type Identity struct {
	Device string `json:"device"`
	// EngineID is in hexadecimal digits; empty with SNMPv2c, which has no
	// authenticated engine ID: then the device ID alone counts.
	EngineID string `json:"engine_id,omitempty"`
	// Address is where the device was reached, HOST:PORT.
	Address string `json:"address,omitempty"`
	// Target is the name by which the configuration knows the device; empty: none.
	Target string    `json:"target,omitempty"`
	Time   time.Time `json:"time"` // when it was recorded
}

// Same reports whether two identities are of the same device as far as both are known.
func (i Identity) Same(o Identity) bool {
	return i.Device == o.Device && (i.EngineID == "" || o.EngineID == "" || i.EngineID == o.EngineID)
}

func Quoted(text string) string { return fmt.Sprintf("%q", printable([]byte(text))) }

// String names device, engine, configured name and address.
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

// IdentityError says that a device is not the one that data belong to.
type IdentityError struct {
	What      string
	Want, Got Identity
	Remedy    string
}

func (e *IdentityError) Error() string {
	return fmt.Sprintf("%s: %s belongs to another device (%s); %s", e.Got, e.What, e.Want, e.Remedy)
}

func (e *IdentityError) Unwrap() error { return ErrIdentity }

// Identity returns what is known of the device that the client talks to. Without an
// answer from it so far, all but the address is empty.
func (c *Client) Identity() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Identity{Device: c.device, EngineID: hex.EncodeToString([]byte(c.engine)), Address: c.address}
}

// FolderName turns a device identity into a folder name: what is not a
// letter, a digit, "-" or "_" becomes %XX, so that no two devices share one.
func FolderName(device string) string {
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
		return "%" // an empty name would be the folder above
	}
	return b.String()
}

// ErrIdentity is wrapped by an error that ends a procedure because the device
// that answers is not the one whose data or journal would be used.
var ErrIdentity = errors.New("another device")
