package bank

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Tries is how many starts in succession software on trial gets to pass its self-test,
// see Banks.Tested.
const Tries = 3

// A Record is what the device remembers about its banks. The zero Record stands for
// one of which both copies are lost.
type Record struct {
	Banks    [2]BankRecord `json:"banks"`    // of bank 1 and bank 2
	Next     int           `json:"next"`     // the bank that starts next
	Running  int           `json:"running"`  // the bank that started last, 0 none yet, or none in rescue mode
	Fallback int           `json:"fallback"` // what Restore selects, 0 none
	Floor    string        `json:"floor"`    // no version below is accepted; "" any
}

// A BankRecord is what the device remembers about one bank.
type BankRecord struct {
	State     mib.BankStateEnum `json:"state"`
	TriesLeft int               `json:"tries"`     // starts left to pass the self-test while on trial, else 0
	Confirmed bool              `json:"confirmed"` // has been good since it was written
	// Digest is the SHA-256 of the manifest, in lower-case hexadecimal, of the
	// software that the bank holds or that is being written; "" none.
	Digest     string        `json:"digest"`
	Generation uint32        `json:"generation"` // of configuration data it last ran with, 0 none
	Written    int64         `json:"written"`    // seconds since 1970 UTC, 0 not known
	Cause      mib.FailCause `json:"cause"`      // what last went wrong with the content
	Text       string        `json:"text"`       // detail to Cause, up to 128 bytes
}

// failed is the record of a bank that is given up.
func (b BankRecord) failed(cause mib.FailCause, text string) BankRecord {
	b.State, b.TriesLeft, b.Confirmed = mib.BankStateFailed, 0, false
	b.Cause, b.Text = cause, shorten(text)
	return b
}

// bank returns the record of bank n, 1 or 2; for 0, no bank, a new empty one.
func (r *Record) bank(n int) *BankRecord {
	if n == 0 {
		return new(BankRecord)
	}
	return &r.Banks[n-1]
}

// ready is the bank with software to start in rescue mode, the next one first; 0 if
// neither has any.
func (r *Record) ready() int {
	if r.lost() {
		return 0
	}
	for _, n := range [2]int{r.Next, other(r.Next)} {
		if s := r.bank(n).State; s >= mib.BankStateReady && s <= mib.BankStateGood {
			return n
		}
	}
	return 0
}

// lost reports whether there is no record.
func (r *Record) lost() bool { return r.Next == 0 }

// other is the number of the other bank.
func other(n int) int { return 3 - n }

// recordBase is the name of the boot record without the suffix of its copies.
const (
	recordBase    = "boot"
	recordVersion = 1
)

var recordMagic = [4]byte{'I', 'A', 'D', 'b'}

func encodeRecord(r Record) []byte {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err) // of numbers, strings and booleans: cannot be
	}
	return data
}

// decodeRecord reads a record strictly: software of the same version wrote it, so
// whatever is odd is damage.
func decodeRecord(data []byte) (Record, error) {
	var r Record
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return Record{}, err
	}
	if _, err := d.Token(); err != io.EOF {
		return Record{}, errors.New("unexpected data after the record")
	}
	if err := r.check(); err != nil {
		return Record{}, err
	}
	return r, nil
}

func (r *Record) check() error {
	isBank := func(n, least int) bool { return n >= least && n <= 2 }
	if !isBank(r.Next, 1) || !isBank(r.Running, 0) || !isBank(r.Fallback, 0) {
		return fmt.Errorf("no such bank: next %d, running %d, fallback %d", r.Next, r.Running, r.Fallback)
	}
	if r.Floor != "" {
		if err := image.CheckVersion(r.Floor); err != nil {
			return fmt.Errorf("floor: %w", err)
		}
	}
	for i, b := range r.Banks {
		if b.State < mib.BankStateEmpty || b.State > mib.BankStateCorrupt {
			return fmt.Errorf("bank %d: no such state: %d", i+1, b.State)
		}
		if b.TriesLeft < 0 || b.TriesLeft > 255 || b.State != mib.BankStateTrial && b.TriesLeft != 0 {
			return fmt.Errorf("bank %d: %d tries in state %s", i+1, b.TriesLeft, b.State)
		}
		if len(b.Text) > maxText || !utf8.ValidString(b.Text) {
			return fmt.Errorf("bank %d: invalid text", i+1)
		}
		if digest, err := hex.DecodeString(b.Digest); err != nil || len(digest) != 0 && len(digest) != 32 {
			return fmt.Errorf("bank %d: invalid digest", i+1)
		}
	}
	return nil
}

// openRecord reads the boot record for use; a zero Record means that there is none.
func openRecord(fs afero.Fs) (*durable.Record, Record, []string, error) {
	store, data, findings, err := durable.OpenRecord(fs, recordBase, recordMagic, recordVersion, checkRecord)
	if err != nil || data == nil {
		return store, Record{}, findings, err
	}
	r, err := decodeRecord(data)
	return store, r, findings, err
}

// peekRecord reads the boot record without changing anything.
func peekRecord(fs afero.Fs) (Record, []string) {
	data, findings := durable.ReadRecord(fs, recordBase, recordMagic, recordVersion, checkRecord)
	if data == nil {
		return Record{}, findings
	}
	r, err := decodeRecord(data)
	if err != nil {
		findings = append(findings, err.Error())
	}
	return r, findings
}

func checkRecord(data []byte) error {
	_, err := decodeRecord(data)
	return err
}
