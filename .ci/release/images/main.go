// Command images writes container images of the programs, without a container engine and without a base image: a layer with
// the program and what it needs, and its configuration. Equal input gives equal images, byte for byte.
//
//	images -version 1.2.0 -revision COMMIT -created SECONDS -source URL -in DIR -out DIR
//
// DIR of -in has a directory for each processor (amd64, arm64, armv7), with the programs and busybox, and
// busybox.copyright and LICENSES.txt. For each program, -out gets NAME-VERSION-PROCESSOR.tar ("docker load", "podman load") and
// NAME-VERSION.oci.tar, an OCI layout of all processors, for registries ("skopeo copy oci-archive:...").
package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// user is not root, and not a user of the host either. Images of others use this number too.
const user = 65532

type program struct {
	name, description string
	// shell adds busybox: self-tests, converters, the programs that iadms calls and power switches may be shell scripts.
	shell   bool
	command []string
	env     []string
	ports   []string
	volumes []string // besides /data
	health  []string
	// platforms are all those it is for; nil: every one.
	platforms []string
}

// programs are the images. deploy/images/README.md documents ports, volumes and variables.
var programs = []program{
	{
		name: "iad", description: "Upgrade agent of an integrated access device", shell: true,
		command: []string{"run"},
		env:     []string{"IAD_ROOT=/data/device", "IAD_SNMP=:1161"},
		ports:   []string{"1161/udp"},
		health:  []string{"CMD", "/usr/bin/iad", "healthcheck"},
	},
	{
		name: "iadms", description: "Management system that upgrades integrated access devices over SNMP", shell: true,
		command: []string{"--help"},
		env:     []string{"IADMS_STORE=/data/store"},
		ports:   []string{"21/tcp", "69/udp", "162/udp"},
	},
	{
		name: "iadsim", description: "Virtual integrated access devices, to test management systems", shell: true,
		command: []string{"run"},
		env:     []string{"IADSIM_ROOT=/data/devices", "IADSIM_MAKER=/data/maker", "IADSIM_SNMP=:16100", "GOMEMLIMIT=256MiB"},
		ports:   []string{"16100/udp"},
		health:  []string{"CMD", "/usr/bin/iadsim", "healthcheck"},
	},
	{
		name: "iadlab", description: "Conformance tests and power cuts for integrated access devices", shell: true,
		command: []string{"--help"},
		ports:   []string{"11162/udp"},
	},
	{
		name: "iadmsd", description: "Fleet service that upgrades many integrated access devices in campaigns", shell: true,
		command: []string{"run"},
		env: []string{
			"IADMSD_DATA=/data/service", "IADMSD_KEY=/key/iadmsd.key", "IADMSD_HEALTH=:8080",
			"IADMSD_TFTP=:6969", "IADMSD_SINGLE_PORT=true", "IADMSD_NOTIFICATIONS=:16162",
		},
		ports: []string{"8443/tcp", "4222/tcp", "6222/tcp", "8080/tcp", "6969/udp", "16162/udp"},
		// A copy of the data reveals no credentials without the key.
		volumes:   []string{"key"},
		health:    []string{"CMD", "/usr/bin/iadmsd", "healthcheck"},
		platforms: []string{"amd64", "arm64"},
	},
}

// platforms by the directory of their programs.
var platforms = map[string]v1.Platform{
	"amd64": {OS: "linux", Architecture: "amd64"},
	"arm64": {OS: "linux", Architecture: "arm64"},
	"armv7": {OS: "linux", Architecture: "arm", Variant: "v7"},
}

type builder struct {
	version, revision, source, in, out string
	created                            time.Time
}

func main() {
	var b builder
	var seconds int64
	flag.StringVar(&b.version, "version", "", "version of the programs, and tag of the images")
	flag.StringVar(&b.revision, "revision", "", "commit that they were built from")
	flag.StringVar(&b.source, "source", "", "URL of the source")
	flag.Int64Var(&seconds, "created", 0, "time of creation in seconds since 1970")
	flag.StringVar(&b.in, "in", "", "directory with the programs")
	flag.StringVar(&b.out, "out", "", "directory for the images")
	flag.Parse()
	b.created = time.Unix(seconds, 0).UTC()
	if err := b.all(); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

func (b *builder) all() error {
	for i := range programs {
		var index v1.ImageIndex = mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
		for _, processor := range slices.Sorted(maps.Keys(platforms)) {
			if programs[i].platforms != nil && !slices.Contains(programs[i].platforms, processor) {
				continue
			}
			image, err := b.image(&programs[i], processor)
			if errors.Is(err, fs.ErrNotExist) && !exists(filepath.Join(b.in, processor)) {
				continue // not asked for
			} else if err != nil {
				return err
			}
			if err := b.write(&programs[i], processor, image); err != nil {
				return err
			}
			platform := platforms[processor]
			index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &platform}})
		}
		if err := b.writeIndex(&programs[i], index); err != nil {
			return err
		}
	}
	return nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func (b *builder) image(p *program, processor string) (v1.Image, error) {
	content, err := b.layer(p, processor)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: b.created}, CreatedBy: "make images"}})
	if err != nil {
		return nil, err
	}
	platform := platforms[processor]
	config := &v1.ConfigFile{
		Architecture: platform.Architecture, OS: platform.OS, Variant: platform.Variant, Created: v1.Time{Time: b.created},
		Config: v1.Config{
			User:       fmt.Sprintf("%d:%d", user, user),
			Entrypoint: []string{"/usr/bin/" + p.name},
			Cmd:        p.command,
			Env:        append([]string{"PATH=/usr/bin:/bin", "HOME=/data"}, p.env...),
			WorkingDir: "/data",
			Volumes:    map[string]struct{}{"/data": {}},
			StopSignal: "SIGTERM",
			Labels: map[string]string{
				"org.opencontainers.image.title":       p.name,
				"org.opencontainers.image.description": p.description,
				"org.opencontainers.image.version":     b.version,
				"org.opencontainers.image.revision":    b.revision,
				"org.opencontainers.image.source":      b.source,
				"org.opencontainers.image.created":     b.created.Format(time.RFC3339),
			},
			ExposedPorts: map[string]struct{}{},
		},
	}
	for _, port := range p.ports {
		config.Config.ExposedPorts[port] = struct{}{}
	}
	for _, volume := range p.volumes {
		config.Config.Volumes["/"+volume] = struct{}{}
	}
	if p.health != nil {
		config.Config.Healthcheck = &v1.HealthConfig{Test: p.health, Interval: 30 * time.Second, Timeout: 5 * time.Second, StartPeriod: 10 * time.Second, Retries: 3}
	}
	// The configuration file of the image has the digests and the history of its layers.
	old, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.RootFS, config.History = old.RootFS, old.History
	return mutate.ConfigFile(image, config)
}

// layer returns an archive of the file system.
func (b *builder) layer(p *program, processor string) ([]byte, error) {
	var buf bytes.Buffer
	l := layer{tar.NewWriter(&buf), b.created}
	volumes := append([]string{"data"}, p.volumes...)
	for _, dir := range append(volumes, "bin", "etc", "tmp", "usr", "usr/bin", "usr/share", "usr/share/licenses", "usr/share/licenses/"+p.name) {
		h := tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}
		switch {
		case slices.Contains(volumes, dir):
			h.Uid, h.Gid, h.Mode = user, user, 0o700
		case dir == "tmp":
			h.Mode = 0o1777
		}
		if err := l.add(h, nil); err != nil {
			return nil, err
		}
	}
	files := []struct{ from, to string }{
		{filepath.Join(processor, p.name), "usr/bin/" + p.name},
		{"LICENSES.txt", "usr/share/licenses/" + p.name + "/LICENSES.txt"},
	}
	if p.shell {
		files = append(files, struct{ from, to string }{filepath.Join(processor, "busybox"), "bin/busybox"},
			struct{ from, to string }{"busybox.copyright", "usr/share/licenses/" + p.name + "/busybox.txt"})
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(b.in, f.from))
		if err != nil {
			return nil, err
		}
		mode := int64(0o644)
		if path.Base(path.Dir(f.to)) == "bin" {
			mode = 0o755
		}
		if err := l.add(tar.Header{Typeflag: tar.TypeReg, Name: f.to, Mode: mode}, text); err != nil {
			return nil, err
		}
	}
	for _, f := range []struct{ name, text string }{
		{"etc/passwd", fmt.Sprintf("root:x:0:0:root:/:/bin/sh\niad:x:%d:%d:iad:/data:/bin/sh\n", user, user)},
		{"etc/group", fmt.Sprintf("root:x:0:\niad:x:%d:\n", user)},
	} {
		if err := l.add(tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644}, []byte(f.text)); err != nil {
			return nil, err
		}
	}
	if p.shell {
		for _, applet := range applets {
			if err := l.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox", Mode: 0o777}, nil); err != nil {
				return nil, err
			}
		}
	}
	if err := l.w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// applets of busybox that a self-test or a converter may call by name; the others are there as "busybox NAME".
var applets = strings.Fields("[ awk basename cat chmod cmp cp cut date dd df diff dirname echo env expr false find grep gunzip gzip head hostname " +
	"id ln ls md5sum mkdir mktemp mv nc ping printf ps readlink rm rmdir sed seq sh sha256sum sleep sort stat sync tail tar tee test " +
	"touch tr true uname uniq vi wc wget xargs")

type layer struct {
	w       *tar.Writer
	created time.Time
}

func (l *layer) add(h tar.Header, text []byte) error {
	h.ModTime, h.Format, h.Size = l.created, tar.FormatUSTAR, int64(len(text))
	if err := l.w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := l.w.Write(text)
	return err
}

// write writes what "docker load" reads, and prints the size.
func (b *builder) write(p *program, processor string, image v1.Image) error {
	tag, err := name.NewTag(p.name + ":" + b.version)
	if err != nil {
		return err
	}
	file := filepath.Join(b.out, fmt.Sprintf("%s-%s-%s.tar", p.name, b.version, processor))
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		return err
	}
	layers, err := image.Layers()
	if err != nil {
		return err
	}
	var compressed, plain int64
	for _, l := range layers {
		n, err := l.Size()
		if err != nil {
			return err
		}
		compressed += n
		r, err := l.Uncompressed()
		if err != nil {
			return err
		}
		n, err = io.Copy(io.Discard, r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		plain += n
	}
	digest, err := image.Digest()
	fmt.Printf("%-44s %5.2f MB, unpacked %5.2f MB  %s\n", filepath.Base(file), float64(compressed)/1e6, float64(plain)/1e6, digest)
	return err
}

// writeIndex writes the OCI layout of all processors as an archive.
func (b *builder) writeIndex(p *program, index v1.ImageIndex) error {
	dir, err := os.MkdirTemp(b.out, ".oci-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := l.AppendIndex(index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": b.version})); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(b.out, fmt.Sprintf("%s-%s.oci.tar", p.name, b.version)))
	if err != nil {
		return err
	}
	defer f.Close()
	w := layer{tar.NewWriter(f), b.created}
	// WalkDir goes in the order of the names.
	err = filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil || file == dir {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return w.add(tar.Header{Typeflag: tar.TypeDir, Name: filepath.ToSlash(name) + "/", Mode: 0o755}, nil)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return w.add(tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Mode: 0o644}, text)
	})
	return errors.Join(err, w.w.Close(), f.Sync())
}
