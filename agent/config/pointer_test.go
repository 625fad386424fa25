package config

import (
	"encoding/json"
	"reflect"
	"testing"
)

func FuzzDecodePointer(f *testing.F) {
	f.Add([]byte(`{"current":3,"before":2,"last":3,"applied":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte(`{"current":0,"before":0,"last":0,"applied":"0001-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := decodePointer(payload)
		if err != nil {
			return
		}
		if p.Current > p.Last || p.Before > p.Last {
			t.Fatalf("accepted a pointer past the highest number: %+v", p)
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := decodePointer(again); err != nil || q.Current != p.Current || q.Before != p.Before || q.Last != p.Last || !q.Applied.Equal(p.Applied) {
			t.Fatalf("%+v does not survive being written: %+v, %v", p, q, err)
		}
	})
}

func FuzzDecodeDescription(f *testing.F) {
	f.Add([]byte(`{"number":1,"format":2,"files":[{"kind":"userData","size":3,"sha256":"AAAA"},{"kind":"otherData","size":0,"sha256":""}],"digest":"AAAA"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		d, err := decodeDescription(payload)
		if err != nil {
			return
		}
		g := d.generation()
		if g.Number == 0 || g.Format == 0 || len(g.Kinds) == 0 || len(g.Kinds) > len(Kinds()) {
			t.Fatalf("accepted an impossible generation: %+v", g)
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if e, err := decodeDescription(again); err != nil || !reflect.DeepEqual(e.generation().Kinds, g.Kinds) {
			t.Fatalf("%+v does not survive being written: %+v, %v", d, e, err)
		}
	})
}
