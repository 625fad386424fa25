package bank

import (
	"cmp"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// The newest trust document that the device has seen is a record of its own: it changes
// seldom, and nothing at a start depends on it. As long as there is none, Options.Trust holds.
const (
	trustBase    = "trust"
	trustVersion = 1
)

var trustMagic = [4]byte{'I', 'A', 'D', 'T'}

func checkTrust(data []byte) error {
	_, err := image.ParseChain(data)
	return err
}

// given is what Options.Trust says.
func (o *Options) given() *image.Trust { return cmp.Or(o.Trust, image.TrustKeys()) }

// held returns the newer of the document that was recorded as data, nil for none, and
// Options.Trust.
func (o *Options) held(data []byte) *image.Trust {
	trust := o.given()
	if data == nil {
		return trust
	}
	// A record that does not verify was refused, or changed on the medium.
	if recorded, err := trust.With(data); err == nil {
		return recorded
	}
	return trust
}

// peekTrust returns what the device trusts, without changing anything.
func (o *Options) peekTrust() (*image.Trust, []string) {
	if o.State == nil {
		return o.given(), nil
	}
	data, findings := durable.ReadRecord(o.State, trustBase, trustMagic, trustVersion, checkTrust)
	return o.held(data), findings
}

// openTrust reads what the device trusts.
func (b *Banks) openTrust() (findings []string, err error) {
	store, data, findings, err := durable.OpenRecord(b.opt.State, trustBase, trustMagic, trustVersion, checkTrust)
	b.trust, b.trustStore = b.opt.held(data), store
	if err == nil && data != nil && len(findings) > 0 {
		err = store.Write(data)
	}
	return findings, err
}

// adoptChains makes the trust chains of the software in the banks hold, if they are newer than
// what is held: a record was lost, or an agent that does not know chains installed them.
func (b *Banks) adoptChains(checks [2]CheckResult) {
	for i, h := range b.heads {
		if checks[i].Contents != ContentsComplete || h.Manifest.Payload(image.TrustName) == nil {
			continue
		}
		data, err := afero.ReadFile(b.opt.Banks[i], image.TrustName)
		if err == nil {
			var chain image.Chain
			if chain, err = image.ParseChain(data); err == nil {
				var next *image.Trust
				if next, err = chain.Follow(b.trust); err == nil {
					err = b.holdTrust(next)
				}
			}
		}
		if err != nil {
			b.opt.Log.Warn("the trust chain of the software does not hold", "bank", i+1, "err", err)
		}
	}
}

// trustHeld is what the device trusts.
func (b *Banks) trustHeld() *image.Trust {
	b.ops.Lock()
	defer b.ops.Unlock()
	return b.trust
}

// keepTrust records that a trust document holds from now on.
func (b *Banks) keepTrust(next *image.Trust) error {
	b.ops.Lock()
	defer b.ops.Unlock()
	return b.holdTrust(next)
}

func (b *Banks) holdTrust(next *image.Trust) error {
	if next.Serial <= b.trust.Serial {
		return nil
	}
	if b.trustStore == nil {
		return refuse(mib.FailCauseWriteError, "trust document %d could not be recorded: the state is not usable", next.Serial)
	}
	for range 2 { // each write makes one copy: an older document must not come back with a damaged file
		if err := b.trustStore.Write(next.Record()); err != nil {
			return storeError(err, "trust document %d could not be recorded", next.Serial)
		}
	}
	b.opt.Log.Info("a new trust document holds", "serial", next.Serial, "before", b.trust.Serial)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trust = next
	return nil
}
