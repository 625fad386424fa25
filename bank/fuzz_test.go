package bank

import (
	"testing"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// framed wraps the content of a boot record as it lies on the medium.
func framed(payload []byte) []byte {
	return durable.EncodeFrame(recordMagic, recordVersion, 1, payload)
}

// FuzzBootRecord: what is accepted is within its ranges and decides without harm.
func FuzzBootRecord(f *testing.F) {
	f.Add(encodeRecord(Record{Next: 1, Banks: [2]BankRecord{{State: mib.BankStateGood}, {State: mib.BankStateEmpty}}}))
	f.Add(encodeRecord(Record{Next: 2, Running: 1, Fallback: 1, Floor: "1.0.0", Banks: [2]BankRecord{{State: mib.BankStateGood}, {State: mib.BankStateTrial, TriesLeft: 3}}}))
	f.Add([]byte(`{"next":7}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRecord(data)
		if err != nil {
			return
		}
		again, err := decodeRecord(encodeRecord(r))
		if err != nil || again != r {
			t.Errorf("written and read again: %+v, %v", again, err)
		}
		d := Decide(r, [2]CheckResult{{Contents: ContentsComplete}, {Contents: ContentsDamaged}})
		if d.Bank != 1 || d.Record.check() != nil {
			t.Errorf("%+v", d)
		}
	})
}
