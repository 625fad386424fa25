package agent

import (
	"encoding/json"
	"fmt"

	"example.com/iad/agent/snmp"
	"example.com/iad/internal/durable"
)

// identity is what the embedded SNMP engine keeps over a restart (RFC 3414
// section 2.3: snmpEngineBoots must never go back).
type identity struct {
	EngineID []byte `json:"engine_id"`
	Boots    uint32 `json:"boots"`
}

// openIdentity counts a start of the engine and stores it before anybody can see
// it. A record that is lost or cannot be written gives a new engine ID, so that
// no old time window is valid again. findings name what was damaged or could not
// be stored.
func (a *Agent) openIdentity(given []byte) (id identity, findings []string, err error) {
	rec, data, findings, bad := durable.OpenRecord(a.cfg.State, "identity", identityMagic, stateVersion, checkIdentity)
	if bad == nil && data != nil {
		bad = json.Unmarshal(data, &id)
	}
	if len(given) > 0 {
		id.EngineID = given
	}
	// 2^31-1 boots mean that the engine must be given a new identity.
	if id.Boots++; len(id.EngineID) == 0 || id.Boots >= 1<<31-1 {
		if id, err = newIdentity(); err != nil {
			return id, findings, err
		}
	}
	if rec != nil {
		if data, bad = json.Marshal(id); bad == nil {
			bad = rec.Write(data)
		}
	}
	if bad != nil {
		findings = append(findings, fmt.Sprintf("the identity of the SNMP engine could not be stored: %v", bad))
		if len(given) == 0 {
			id, err = newIdentity()
		}
	}
	return id, findings, err
}

func checkIdentity(data []byte) error { return json.Unmarshal(data, new(identity)) }

func newIdentity() (identity, error) {
	id, err := snmp.NewEngineID()
	return identity{EngineID: id, Boots: 1}, err
}
