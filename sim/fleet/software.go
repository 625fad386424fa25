package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/bank/image"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// software prepares what the disks of each kind of device begin with.
func (f *Fleet) software() (err error) {
	trust := f.cfg.Trust
	var key *minisign.PrivateKey
	for i := range f.kinds {
		k := &f.kinds[i].Kind
		d := &disks{}
		for j := range i {
			if k.equal(&f.kinds[j].Kind) {
				d = f.disks[j]
			}
		}
		f.disks = append(f.disks, d)
		if d.image != nil {
			continue
		}
		if d.set, err = readConfig(k.ConfigDir); err != nil {
			return err
		}
		if k.Image != "" {
			if d.image, err = os.ReadFile(k.Image); err != nil {
				return err
			}
			continue
		}
		if key == nil {
			made, err := MakerKey(f.cfg.Maker, f.options.Notes)
			if err != nil {
				return err
			}
			key = &made
			trust = append(trust, f.cfg.Maker+".pub")
		}
		content := []byte("software " + k.version() + " of a virtual device\n")
		if d.image, err = Build(image.Manifest{Version: k.version(), Hardware: []string{k.Hardware}, ConfigFormat: 1}, content, *key); err != nil {
			return mistake("software", "%s: %v", k.version(), err)
		}
	}
	f.trust, err = readTrust(trust)
	return err
}

// Build makes an image with a payload firmware.
func Build(m image.Manifest, content []byte, key minisign.PrivateKey) ([]byte, error) {
	var b bytes.Buffer
	err := image.Build(&b, m, []image.PayloadFile{{Name: "firmware", Mode: 0o644, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}}}, key)
	return b.Bytes(), err
}

// MakerKey reads MAKER.key, or creates the key pair and says so.
func MakerKey(maker string, notes io.Writer) (minisign.PrivateKey, error) {
	file := maker + ".key"
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		pub, priv, err := image.GenerateKey("")
		if err != nil {
			return minisign.PrivateKey{}, err
		}
		host := afero.NewOsFs()
		if err := errors.Join(
			durable.ReplaceFile(host, maker+".pub", pub, 0o644),
			durable.ReplaceFile(host, file, priv, 0o600),
		); err != nil {
			return minisign.PrivateKey{}, err
		}
		fmt.Fprintf(notes, "made %s and %s.pub: sign software for these devices with it\n", file, maker)
		data = priv
	} else if err != nil {
		return minisign.PrivateKey{}, err
	}
	if image.KeyEncrypted(data) {
		return minisign.PrivateKey{}, fmt.Errorf("%s is encrypted: use an image, or another maker", file)
	}
	return image.ReadPrivateKey(data, "")
}

func readTrust(files []string) (*image.Trust, error) {
	trust := image.TrustKeys()
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		if trust, err = trust.With(data); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
	}
	return trust, nil
}

// readConfig reads configuration data from a directory; without one they are built in.
func readConfig(dir string) (config.Set, error) {
	if dir == "" {
		return builtin(), nil
	}
	set := config.Set{}
	var names []string
	for _, k := range config.Kinds() {
		names = append(names, k.String())
		data, err := os.ReadFile(filepath.Join(dir, k.String()))
		switch {
		case err == nil:
			set[k] = data
		case !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
	}
	if len(set) == 0 {
		return nil, mistake("config-dir", "%s has none of the files %s", dir, strings.Join(names, ", "))
	}
	return set, nil
}

// builtin are configuration data to start with.
func builtin() config.Set {
	set := config.Set{}
	for k, body := range map[mib.FileType]string{
		mib.FileTypeUserData:       "line.1 = +49 30 5550101\nline.2 = +49 30 5550102\n",
		mib.FileTypePortData:       "port.1 = fxs\nport.2 = fxs\n",
		mib.FileTypeProtocolParams: "protocol = mgcp\ncall_agent = 192.0.2.1\n",
		mib.FileTypeDefaultParams:  "codec = g711a\n",
		mib.FileTypeOtherData:      "contact = noc@example.com\n",
	} {
		set[k] = config.WithHeader(k, 1, []byte(body))
	}
	return set
}
