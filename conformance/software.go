package conformance

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"aead.dev/minisign"
	"github.com/Masterminds/semver/v3"

	"example.com/iad/bank/image"
	"example.com/iad/manager/device"
)

// software makes the images of a run.
type software struct {
	key      *minisign.PrivateKey
	hardware string
	format   uint32
	current  string // what the device runs
	version  string // of newer
	newer    []byte // nil: there is none
}

// payloadSize is how many bytes of payload the images have that are made here: enough for
// several windows of TFTP.
const payloadSize = 300_000

func newSoftware(cfg Config, d *device.Device) (*software, error) {
	s := &software{key: cfg.Key, hardware: d.Hardware, format: d.ConfigFormat, current: d.Version}
	switch {
	case cfg.Image != nil:
		info, err := image.Inspect(bytes.NewReader(cfg.Image))
		if err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		s.newer, s.version = cfg.Image, info.Manifest.Version
	case cfg.Key != nil:
		if d.Rescue() {
			return nil, errors.New("the device is in rescue mode: install software first")
		}
		var err error
		if s.version, err = bump(d.Version, 1); err != nil {
			return nil, err
		}
		if s.newer, err = s.build(spec{}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// bump returns a version that is n patches above another one.
func bump(version string, n uint64) (string, error) {
	v, err := semver.StrictNewVersion(version)
	if err != nil {
		return "", fmt.Errorf("the device runs version %q, which has no successor by semver.org: give an image: %w", version, err)
	}
	return fmt.Sprintf("%d.%d.%d", v.Major(), v.Minor(), v.Patch()+n), nil
}

// spec is an image to be made; the zero value is software that the device accepts.
type spec struct {
	version  string // empty: the newer one
	hardware string // empty: the device's
	selfTest string // a shell script; empty: none
	size     int    // of the payload; 0: payloadSize
	minimum  string // running version
	key      *minisign.PrivateKey
}

// build makes an image. It needs a key.
func (s *software) build(p spec) ([]byte, error) {
	m := image.Manifest{Version: p.version, Hardware: []string{p.hardware}, ConfigFormat: s.format, MinVersion: p.minimum}
	if p.version == "" {
		m.Version = s.version
	}
	if p.hardware == "" {
		m.Hardware = []string{s.hardware}
	}
	size := p.size
	if size == 0 {
		size = payloadSize
	}
	files := []image.PayloadFile{payload("firmware", 0o644, pattern(m.Version, size))}
	if p.selfTest != "" {
		m.SelfTest = "selftest"
		files = append(files, payload("selftest", 0o755, []byte(p.selfTest)))
	}
	key := s.key
	if p.key != nil {
		key = p.key
	}
	var b bytes.Buffer
	if err := image.Build(&b, m, files, *key); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func payload(name string, mode image.Mode, data []byte) image.PayloadFile {
	return image.PayloadFile{Name: name, Mode: mode, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }}
}

// pattern is content that differs by version.
func pattern(version string, size int) []byte {
	line := fmt.Appendf(nil, "software %s for conformance tests\n", version)
	return bytes.Repeat(line, size/len(line)+1)[:size]
}

// image makes an image for a test.
func (t *T) image(p spec) []byte {
	data, err := t.software.build(p)
	if err != nil {
		t.skip("the image for this test cannot be made: %v", err)
	}
	return data
}

// stranger is a key that no device trusts.
func (t *T) stranger() *minisign.PrivateKey {
	_, key, err := minisign.GenerateKey(nil)
	if err != nil {
		t.skip("no key: %v", err)
	}
	return &key
}
