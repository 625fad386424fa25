package trap

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"path"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
)

// engine is the identity of the authoritative side of informs (RFC 3414 section 2.2): its
// snmpEngineID, and how often it has started with it. snmpd asks a receiver for these
// once and keeps using them.
type engine struct {
	id    string
	boots uint32
}

// engineDirectory has an engine for each address that is listened on. Only one listener at a
// time has an address, so two running listeners never share an identity.
const engineDirectory = "listener"

// engineRecord is the engine's file.
type engineRecord struct {
	EngineID string `json:"engine_id"` // hexadecimal
	Boots    uint32 `json:"boots"`     // of the last start
}

// newEngine creates an identity (RFC 3411 section 5, SnmpEngineID): the enterprise number
// of Net-SNMP's playpen, then format 5 (bytes) and random bytes.
func newEngine() (engine, error) {
	id := append([]byte{0x80, 0x00, 0x1f, 0x88, 5}, make([]byte, 12)...)
	_, err := rand.Read(id[5:])
	return engine{id: string(id), boots: 1}, err
}

// startEngine returns the identity of the listener at an address, after counting this
// start durably. With an error, it returns an identity for this run only.
func startEngine(files afero.Fs, at netip.AddrPort) (engine, error) {
	fresh, err := newEngine()
	if err != nil || files == nil {
		return fresh, err
	}
	name := path.Join(engineDirectory, device.DirectoryName(at.String())+".json")
	e := fresh
	known, err := readEngine(files, name)
	switch {
	case err == nil && known.boots < math.MaxInt32:
		e = engine{id: known.id, boots: known.boots + 1}
	case err == nil: // all starts are used up: RFC 3414 section 2.2.2 wants another identity
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case !errors.Is(err, errEngineDamaged):
		return fresh, err
	}
	damage := err
	data, err := json.Marshal(engineRecord{EngineID: hex.EncodeToString([]byte(e.id)), Boots: e.boots})
	if err == nil {
		err = durable.MkdirAll(files, engineDirectory, 0o700)
	}
	if err == nil {
		err = durable.ReplaceFile(files, name, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fresh, err
	}
	return e, damage
}

var errEngineDamaged = errors.New("damaged")

func readEngine(files afero.Fs, name string) (engine, error) {
	data, err := afero.ReadFile(files, name)
	if err != nil {
		return engine{}, err
	}
	var r engineRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return engine{}, fmt.Errorf("%s: %w: %w", name, errEngineDamaged, err)
	}
	id, err := hex.DecodeString(r.EngineID)
	if err != nil || len(id) < 5 || len(id) > 32 || r.Boots == 0 || r.Boots > math.MaxInt32 {
		return engine{}, fmt.Errorf("%s: %w", name, errEngineDamaged)
	}
	return engine{id: string(id), boots: r.Boots}, nil
}
