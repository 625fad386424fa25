package image

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/Masterminds/semver/v3"

	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// Names and bounds of the image format.
const (
	// ManifestName is the file that describes the image.
	ManifestName = "manifest.json"
	// SignatureSuffix ends the name of the manifest's signature.
	SignatureSuffix = ".minisig"
	// SignatureName is the signature of ManifestName.
	SignatureName = ManifestName + SignatureSuffix

	// ManifestFormat is the newest format of manifests that this package reads. It reads all
	// formats from 1 on: format 2 added the encodings of payloads, format 3 their encryption.
	ManifestFormat = 3
	// EncodedFormat is the format of an image with encodings that are not encrypted.
	EncodedFormat = 2
	// PlainFormat is the format of an image without encodings.
	PlainFormat = 1
	// PlainManifestName is the file that describes the same software as ManifestName in
	// PlainFormat, in the split form of an image with encodings.
	PlainManifestName = "manifest-1.json"

	// MaxManifest and MaxSignature bound the two files in bytes: they are
	// the only ones that are held in memory.
	MaxManifest  = 64 << 10
	MaxSignature = 2 << 10
	// MaxPayloads bounds the number of payload files.
	MaxPayloads = 128
	// MaxName is the longest payload name in bytes.
	MaxName = 64
	// MaxImage bounds a payload and the sum of them in bytes, as the MIB
	// tells sizes in 32 bits.
	MaxSize = 1<<32 - 1

	// MaxEncodings bounds the encodings of one payload.
	MaxEncodings = 16

	maxVersion  = 64 // iadUpgBankVersion
	maxHardware = 64 // models of at most 64 bytes each
)

// A Manifest describes the software in an image. The signature covers it byte by
// byte, and it holds the hash of every payload.
type Manifest struct {
	// Format of the manifest itself: PlainFormat without encodings, EncodedFormat with them,
	// ManifestFormat if they are encrypted.
	Format int `json:"format"`
	// Key is an age file, in base64, with the secret by which the frames of all encodings
	// are encrypted; empty if they are not.
	Key string `json:"key,omitempty"`
	// Version of the software, by semver.org 2.0.0, up to 64 bytes. Images are built
	// without build metadata ("+..."), which have no order.
	Version string `json:"version"`
	// Hardware lists the models that the software fits; one of them must equal
	// the device's.
	Hardware []string `json:"hardware"`
	// ConfigFormat is the format of configuration data that the software reads
	// and writes, 1 or more.
	ConfigFormat uint32 `json:"config_format"`
	// NoReset says that the software can take effect without a reset.
	NoReset bool `json:"no_reset,omitempty"`
	// MinVersion is the lowest running version over which the software may be
	// installed, "" for any.
	MinVersion string `json:"min_version,omitempty"`
	// Floor is the version below which the device accepts no software any more
	// once this one is confirmed, "" to leave it.
	Floor string `json:"floor,omitempty"`
	// Payloads are the files, in the order in which they stand in the image.
	Payloads []Payload `json:"payloads"`
	// SelfTest names the payload that reports whether the software is healthy, ""
	// for none.
	SelfTest string `json:"selftest,omitempty"`
	// Converters name the payloads that convert configuration data.
	Converters []Converter `json:"converters,omitempty"`
}

// A Payload is one file of an image.
type Payload struct {
	Name   string `json:"name"`   // a plain file name of A-Z a-z 0-9 . _ + -
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // lower-case hexadecimal
	Mode   Mode   `json:"mode"`
	// Target is where the payload is stored, a file of the bank's directory if empty.
	Target Target `json:"target,omitempty"`
	// Encodings are the files that take the place of the payload's own in the image, best
	// first: there is exactly one in tar form. Without any the payload is stored as it is.
	Encodings []Encoding `json:"encodings,omitempty"`
}

// An Encoding is a file from which a payload can be made: an index and compressed frames, as
// package frame describes.
type Encoding struct {
	File  string      `json:"file"` // its name, by the rules for names of payloads
	Codec frame.Codec `json:"codec"`
	// Base is the file from which a frame.XZDelta is the difference, nil with frame.XZ.
	Base *Base `json:"base,omitempty"`
	Size int64 `json:"size"` // of the file, in bytes
	// Frame is the frame size in bytes.
	Frame int `json:"frame"`
	// IndexSHA256 is the digest of the file's index, in lower-case hexadecimal.
	IndexSHA256 string `json:"index_sha256"`
}

// A Base is a payload of other software.
type Base struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// A Target is where a payload is stored. Software that does not know targets refuses an
// image with one, because its manifest has a field unknown to it.
type Target string

// The targets of payloads.
const (
	// TargetFile is a file, under the payload's name, in the directory of the bank.
	TargetFile Target = ""
	// TargetPartition is the bank's raw partition: a block device, flash memory or a UBI
	// volume that a boot loader reads. One payload at most has it.
	TargetPartition Target = "partition"
)

// A Converter is a payload that converts configuration data from one format to
// another.
type Converter struct {
	From    uint32 `json:"from"`
	To      uint32 `json:"to"`
	Payload string `json:"payload"`
}

// Mode is the permission bits of a payload, at most 0777; in the manifest a string
// of four octal digits such as "0755".
type Mode uint16

// MarshalText writes the four octal digits.
func (m Mode) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%04o", uint16(m)), nil }

// UnmarshalText reads four octal digits.
func (m *Mode) UnmarshalText(text []byte) error {
	n, err := strconv.ParseUint(string(text), 8, 16)
	if err != nil || len(text) != 4 || n > 0o777 {
		return fmt.Errorf("mode %q is not four octal digits up to 0777", text)
	}
	*m = Mode(n)
	return nil
}

// payloadSize is the sum of the payloads' sizes.
func (m *Manifest) payloadSize() int64 {
	var sum int64
	for _, p := range m.Payloads {
		sum += p.Size
	}
	return sum
}

// Partition returns the payload whose target is the bank's partition, nil if there is none.
func (m *Manifest) Partition() *Payload {
	for i := range m.Payloads {
		if m.Payloads[i].Target == TargetPartition {
			return &m.Payloads[i]
		}
	}
	return nil
}

// Payload returns the payload of that name, nil if there is none.
func (m *Manifest) Payload(name string) *Payload {
	for i := range m.Payloads {
		if m.Payloads[i].Name == name {
			return &m.Payloads[i]
		}
	}
	return nil
}

// Converter returns the payload name that converts from one format to another, ""
// if the image has none.
func (m *Manifest) Converter(from, to uint32) string {
	for _, c := range m.Converters {
		if c.From == from && c.To == to {
			return c.Payload
		}
	}
	return ""
}

// ParseManifest reads a manifest strictly: unknown, repeated or differently
// spelled fields, anything after the document and every value out of its range
// are refused with mib.FailCauseBadFormat.
func ParseManifest(data []byte) (*Manifest, error) {
	m := new(Manifest)
	err := decodeStrict(data, m)
	if err == nil {
		err = m.check()
	}
	if err != nil {
		return nil, &Error{Code: mib.FailCauseBadFormat, Text: "the manifest is not valid", Err: err}
	}
	return m, nil
}

func decodeStrict(data []byte, m *Manifest) error {
	switch {
	case len(data) > MaxManifest:
		return fmt.Errorf("%d bytes, %d at most", len(data), MaxManifest)
	case !utf8.Valid(data):
		return fmt.Errorf("not UTF-8")
	}
	if err := checkFormat(data); err != nil {
		return err
	}
	if err := checkFields(data); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(m); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("unexpected data after the manifest")
	}
	return nil
}

// checkFormat refuses another format before anything else is looked at: the fields
// of a newer format are unknown here, and their names would say less than its number.
func checkFormat(data []byte) error {
	var head struct {
		Format *json.Number `json:"format"`
	}
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(data, &head); err != nil && !errors.As(err, &wrongType) || head.Format == nil {
		return nil // not JSON, or no number: the strict decoder says what is wrong
	}
	if n, err := strconv.Atoi(head.Format.String()); err != nil || n < PlainFormat || n > ManifestFormat {
		return wrongFormat(head.Format.String())
	}
	return nil
}

func wrongFormat(format string) error {
	return fmt.Errorf("format %s; this software reads formats %d to %d", format, PlainFormat, ManifestFormat)
}

// fields are the names that a manifest may use, as they are spelled.
var fields = []string{"format", "version", "hardware", "config_format", "no_reset", "min_version", "floor",
	"payloads", "selftest", "converters", "name", "size", "sha256", "mode", "target", "from", "to", "payload",
	"encodings", "file", "codec", "base", "frame", "index_sha256", "key"}

// checkFields refuses what encoding/json lets pass: a field named twice, of which
// the last one would count, and a field in another spelling of case. It also
// refuses null, which would stand for the zero value.
func checkFields(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	type level struct {
		seen []string // nil for an array
		key  bool     // a key comes next
	}
	var stack []level
	for {
		token, err := d.Token()
		if err != nil {
			return err
		}
		top := len(stack) - 1
		switch t := token.(type) {
		case json.Delim:
			switch t {
			case '{':
				stack = append(stack, level{seen: []string{}, key: true})
				continue
			case '[':
				stack = append(stack, level{})
				continue
			}
			stack = stack[:top]
			top--
		case nil:
			return fmt.Errorf("null is not allowed")
		case string:
			if top >= 0 && stack[top].key {
				switch {
				case !slices.Contains(fields, t):
					return fmt.Errorf("unknown field %q", t)
				case slices.Contains(stack[top].seen, t):
					return fmt.Errorf("duplicate field %q", t)
				}
				stack[top].seen = append(stack[top].seen, t)
				stack[top].key = false
				continue
			}
		}
		// A value ended: in an object a key follows.
		if top < 0 {
			return nil
		}
		stack[top].key = stack[top].seen != nil
	}
}

// check judges the values.
func (m *Manifest) check() error {
	if m.Format < PlainFormat || m.Format > ManifestFormat {
		return wrongFormat(strconv.Itoa(m.Format))
	}
	if m.Key != "" && m.Format < ManifestFormat {
		return fmt.Errorf("format %d has no key", m.Format)
	}
	if _, err := parseVersion(m.Version); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	for _, v := range []struct{ field, text string }{{"min_version", m.MinVersion}, {"floor", m.Floor}} {
		if v.text == "" {
			continue
		}
		if _, err := parseVersion(v.text); err != nil {
			return fmt.Errorf("%s: %w", v.field, err)
		}
	}
	if m.Floor != "" && Older(m.Version, m.Floor) {
		return fmt.Errorf("floor %s is above version %s", m.Floor, m.Version)
	}
	if len(m.Hardware) == 0 || len(m.Hardware) > maxHardware {
		return fmt.Errorf("%d hardware models, 1 to %d wanted", len(m.Hardware), maxHardware)
	}
	for _, h := range m.Hardware {
		if err := checkModel(h); err != nil {
			return err
		}
	}
	if m.ConfigFormat == 0 {
		return fmt.Errorf("config_format must be 1 or more")
	}
	return m.checkPayloads()
}

func (m *Manifest) checkPayloads() error {
	if len(m.Payloads) == 0 || len(m.Payloads) > MaxPayloads {
		return fmt.Errorf("%d payloads, 1 to %d wanted", len(m.Payloads), MaxPayloads)
	}
	names := make(map[string]bool, len(m.Payloads))
	var sum int64
	for _, p := range m.Payloads {
		if err := CheckName(p.Name); err != nil {
			return err
		}
		if names[p.Name] {
			return fmt.Errorf("duplicate payload %s", p.Name)
		}
		names[p.Name] = true
		if p.Size < 0 || p.Size > MaxSize {
			return fmt.Errorf("payload %s: size %d is out of range", p.Name, p.Size)
		}
		if sum += p.Size; sum > MaxSize {
			return fmt.Errorf("the payloads are more than %d bytes", int64(MaxSize))
		}
		if !isDigest(p.SHA256) {
			return fmt.Errorf("payload %s: sha256 is not 64 lower-case hexadecimal digits", p.Name)
		}
	}
	if err := m.checkEncodings(names); err != nil {
		return err
	}
	if err := m.checkTargets(); err != nil {
		return err
	}
	if p := m.Payload(TrustName); p != nil && (p != &m.Payloads[0] || p.Size > MaxTrustChain || len(p.Encodings) > 0 || p.Target != TargetFile) {
		return fmt.Errorf("payload %s must be the first one, not larger than %d bytes, and a plain file", TrustName, MaxTrustChain)
	}
	if m.SelfTest != "" && !names[m.SelfTest] {
		return fmt.Errorf("the self-test %q is not among the payloads", m.SelfTest)
	}
	for i, c := range m.Converters {
		switch {
		case !names[c.Payload]:
			return fmt.Errorf("the converter %q is not among the payloads", c.Payload)
		case c.From == 0 || c.To == 0 || c.From == c.To:
			return fmt.Errorf("converter %s: cannot convert format %d to %d", c.Payload, c.From, c.To)
		case slices.ContainsFunc(m.Converters[:i], func(o Converter) bool { return o.From == c.From && o.To == c.To }):
			return fmt.Errorf("two converters from format %d to %d", c.From, c.To)
		}
	}
	return nil
}

func isDigest(text string) bool {
	digest, err := hex.DecodeString(text)
	return err == nil && len(digest) == 32 && hex.EncodeToString(digest) == text
}

// checkEncodings judges the encodings of the payloads, whose names are taken.
func (m *Manifest) checkEncodings(payloads map[string]bool) error {
	files := make(map[string]bool)
	for i := range m.Payloads {
		p := &m.Payloads[i]
		switch {
		case m.Format == PlainFormat && p.Encodings != nil:
			return fmt.Errorf("payload %s: format %d has no encodings", p.Name, PlainFormat)
		case len(p.Encodings) > MaxEncodings:
			return fmt.Errorf("payload %s: %d encodings, %d at most", p.Name, len(p.Encodings), MaxEncodings)
		}
		for j := range p.Encodings {
			e := &p.Encodings[j]
			if err := e.check(p.Size); err != nil {
				return fmt.Errorf("payload %s: encoding %q: %w", p.Name, e.File, err)
			}
			if files[e.File] || payloads[e.File] || e.File == PlainManifestName || e.File == PlainManifestName+SignatureSuffix {
				return fmt.Errorf("payload %s: the name of encoding %s is taken", p.Name, e.File)
			}
			files[e.File] = true
		}
	}
	return nil
}

// check judges an encoding of a payload of size bytes.
func (e *Encoding) check(size int64) error {
	if err := CheckName(e.File); err != nil {
		return err
	}
	if err := frame.CheckSize(e.Frame); err != nil {
		return err
	}
	index := frame.IndexSize(size, e.Frame)
	switch {
	case e.Codec != frame.XZ && e.Codec != frame.XZDelta:
		return fmt.Errorf("unknown codec %q; this software knows %q and %q", e.Codec, frame.XZ, frame.XZDelta)
	case (e.Base != nil) != (e.Codec == frame.XZDelta):
		return fmt.Errorf("a base is needed with codec %q, and with no other", frame.XZDelta)
	case e.Base != nil && (e.Base.Size <= 0 || e.Base.Size > MaxSize || !isDigest(e.Base.SHA256)):
		return fmt.Errorf("the base has no valid size and sha256")
	case index == 0 || index > frame.MaxIndex:
		return fmt.Errorf("a payload of %d bytes cannot have it in frames of %d bytes", size, e.Frame)
	case e.Size <= index || e.Size > MaxSize:
		return fmt.Errorf("size %d is out of range", e.Size)
	case !isDigest(e.IndexSHA256):
		return fmt.Errorf("index_sha256 is not 64 lower-case hexadecimal digits")
	}
	return nil
}

// checkTargets judges where the payloads are to be stored. Programs that the device runs are files.
func (m *Manifest) checkTargets() error {
	first := m.Partition()
	for i := range m.Payloads {
		p := &m.Payloads[i]
		switch {
		case p.Target != TargetFile && p.Target != TargetPartition:
			return fmt.Errorf("payload %s: unknown target %q; this software knows %q", p.Name, p.Target, TargetPartition)
		case p.Target == TargetFile:
		case p != first:
			return fmt.Errorf("the payloads %s and %s are both for the partition; it holds one", first.Name, p.Name)
		case p.Size == 0:
			return fmt.Errorf("payload %s is for the partition, and empty", p.Name)
		case p.Name == m.SelfTest || slices.ContainsFunc(m.Converters, func(c Converter) bool { return c.Payload == p.Name }):
			return fmt.Errorf("payload %s is a program that the device runs, and must not be for the partition", p.Name)
		}
	}
	return nil
}

// CheckName refuses what is not safe as the name of a payload: it must be 1 to
// MaxName bytes of A-Z a-z 0-9 . _ + - and start with a letter or digit, and not be
// one of the names that the bank itself uses.
func CheckName(name string) error {
	if len(name) == 0 || len(name) > MaxName {
		return fmt.Errorf("payload name of %d bytes, 1 to %d wanted", len(name), MaxName)
	}
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '.' && c != '_' && c != '+' && c != '-') {
			return fmt.Errorf("payload name %q: only letters, digits and . _ + - are allowed, first a letter or digit", name)
		}
	}
	if name == ManifestName || name == SignatureName || name == ManifestName+durable.TempSuffix || name == SignatureName+durable.TempSuffix {
		return fmt.Errorf("payload name %q is reserved", name)
	}
	return nil
}

func checkModel(model string) error {
	if len(model) == 0 || len(model) > 64 {
		return fmt.Errorf("hardware model of %d bytes, 1 to 64 wanted", len(model))
	}
	for _, r := range model {
		if !strconv.IsPrint(r) {
			return fmt.Errorf("hardware model %q is not printable", model)
		}
	}
	return nil
}

// CheckVersion refuses a text that is not a version by semver.org 2.0.0, or too long.
func CheckVersion(text string) error {
	_, err := parseVersion(text)
	return err
}

func parseVersion(text string) (*semver.Version, error) {
	if len(text) > maxVersion {
		return nil, fmt.Errorf("version of %d bytes, %d at most", len(text), maxVersion)
	}
	v, err := semver.StrictNewVersion(text)
	if err != nil {
		return nil, fmt.Errorf("%q is not a version such as 2.0.0: %w", text, err)
	}
	return v, nil
}

// Older reports whether version a is below b, by semver's order. Texts that are not
// versions are below all that are.
func Older(a, b string) bool {
	va, errA := semver.StrictNewVersion(a)
	vb, errB := semver.StrictNewVersion(b)
	if errA != nil || errB != nil {
		return errA != nil && errB == nil
	}
	return va.LessThan(vb)
}

// marshal writes the manifest as Build puts it into images.
func (m *Manifest) marshal() ([]byte, error) {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(data, '\n'), nil
}

// FileMode is the mode of the payload in the bank. The owner may always read and write, so that
// an agent that is not root can check the file and continue it; nobody else may
// write.
func (m Mode) FileMode() os.FileMode { return os.FileMode(m)&^0o022 | 0o600 }
