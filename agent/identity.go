package agent

import (
	"encoding/json"
	"errors"

	"example.com/iad/agent/snmp"
	"example.com/iad/internal/durable"
)

// identity is what the embedded SNMP engine keeps over a restart (RFC 3414
// section 2.3: snmpEngineBoots must never go back).
type identity struct {
	EngineID []byte `json:"engine_id"`
	Boots    uint32 `json:"boots"`
}

// identity counts a start of the engine and stores it before anybody can see
// it. A record that is lost or cannot be written gives a new engine ID, so that
// no old time window is valid again.
func (a *Agent) identity(given []byte) ([]byte, uint32, error) {
	rec, data, findings, err := durable.OpenRecord(a.cfg.State, "identity", identityMagic, stateVersion)
	for _, f := range findings {
		a.log.Warn("found at the start", "what", f)
	}
	var id identity
	if len(data) > 0 {
		err = errors.Join(err, json.Unmarshal(data, &id))
	}
	if len(given) > 0 {
		id.EngineID = given
	}
	// 2^31-1 boots mean that the engine must be given a new identity.
	if id.Boots++; len(id.EngineID) == 0 || id.Boots >= 1<<31-1 {
		var e error
		if id, e = newIdentity(); e != nil {
			return nil, 0, e
		}
	}
	if rec != nil {
		var data []byte
		if data, err = json.Marshal(id); err == nil {
			err = rec.Write(data)
		}
	}
	if err != nil && len(given) == 0 {
		var e error
		if id, e = newIdentity(); e != nil {
			return nil, 0, e
		}
	}
	return id.EngineID, id.Boots, err
}

func newIdentity() (identity, error) {
	id, err := snmp.NewEngineID()
	return identity{EngineID: id, Boots: 1}, err
}
