package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/encode"
	"example.com/iad/bank/image/frame"
)

// pair is a program in two versions.
type pair struct{ old, new string } // files

// programs builds iad for two processors, as it is and as it was 80 commits ago, once.
func (l *lab) programs() (pairs []pair, err error) {
	out, err := exec.CommandContext(l.ctx, "git", "-C", l.top, "rev-list", "--skip=80", "-n", "1", "HEAD").Output()
	old := strings.TrimSpace(string(out))
	if err != nil || old == "" {
		return nil, fmt.Errorf("this clone has no commit that is 80 commits old; get it with git fetch --unshallow: %w", err)
	}
	dir := filepath.Join(l.dir, "versions")
	for _, version := range []string{old, "HEAD"} {
		tree := filepath.Join(dir, version)
		if _, err := os.Stat(tree); err == nil {
			continue
		}
		if err := os.MkdirAll(tree, 0o755); err != nil {
			return nil, err
		}
		if _, err := l.run(exec.CommandContext(l.ctx, "sh", "-c", `git -C "$1" archive "$2" | tar -x -C "$3"`, "sh", l.top, version, tree)); err != nil {
			return nil, err
		}
		for _, processor := range []string{"mipsle", "arm"} {
			build := exec.CommandContext(l.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-gcflags=all=-l", "-ldflags", "-s -w", "-o", filepath.Join(dir, processor+"-"+version), "./cmd/iad")
			build.Dir, build.Env = tree, append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+processor, "GOMIPS=softfloat", "GOARM=7")
			if _, err := l.run(build); err != nil {
				return nil, err
			}
		}
	}
	for _, processor := range []string{"mipsle", "arm"} {
		pairs = append(pairs, pair{filepath.Join(dir, processor+"-"+old), filepath.Join(dir, processor+"-HEAD")})
	}
	return pairs, nil
}

// mean returns the geometric mean of a size over the pairs.
func (l *lab) mean(size func(p pair) (int64, error)) (s sample, err error) {
	pairs, err := l.programs()
	if err != nil {
		return s, err
	}
	sum := 0.0
	for _, p := range pairs {
		n, err := size(p)
		if err != nil {
			return s, err
		}
		sum += math.Log(float64(n))
	}
	s.bytes = int64(math.Exp(sum / float64(len(pairs))))
	return s, nil
}

// compressed compares the compressed file of a payload with xz.
func compressed(l *lab) (sides, error) {
	xz, err := l.program("xz")
	ours := func(p pair) (int64, error) {
		content, err := os.ReadFile(p.new)
		if err != nil {
			return 0, err
		}
		e, err := encode.XZ(l.ctx, "app.xz", content, frame.MaxSize)
		return e.Size, err
	}
	peer := func(p pair) (int64, error) {
		out, err := exec.CommandContext(l.ctx, xz, "-9e", "--block-size=256KiB", "--stdout", p.new).Output()
		return int64(len(out)), err
	}
	return sides{func() (sample, error) { return l.mean(ours) }, func() (sample, error) { return l.mean(peer) }}, err
}

// difference compares the difference of a payload with what another program makes; its
// arguments are followed by the two files and that of the difference.
func difference(program ...string) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		path, err := l.program(program[0])
		if err != nil {
			return sides{}, err
		}
		dir, err := l.directory()
		if err != nil {
			return sides{}, err
		}
		ours := func(p pair) (int64, error) {
			e, err := delta(l, p)
			return e.Encodings[0].Size, err
		}
		peer := func(p pair) (int64, error) {
			to := filepath.Join(dir, "difference")
			if _, err := l.run(exec.CommandContext(l.ctx, path, append(program[1:len(program):len(program)], p.old, p.new, to)...)); err != nil {
				return 0, err
			}
			info, err := os.Stat(to)
			if err != nil {
				return 0, err
			}
			return info.Size(), nil
		}
		return sides{func() (sample, error) { return l.mean(ours) }, func() (sample, error) { return l.mean(peer) }}, nil
	}
}

// described is a payload with its encoding.
type described struct {
	image.Payload
	content []byte // of the encoding
}

func delta(l *lab, p pair) (d described, err error) {
	base, err := os.ReadFile(p.old)
	content, err2 := os.ReadFile(p.new)
	if err := errors.Join(err, err2); err != nil {
		return described{Payload: image.Payload{Encodings: make([]image.Encoding, 1)}}, err
	}
	e, err := encode.XZDelta(l.ctx, "app.d", content, base, frame.MaxSize)
	sum := sha256.Sum256(content)
	return described{image.Payload{Name: "app", Size: int64(len(content)), SHA256: hex.EncodeToString(sum[:]), Encodings: []image.Encoding{e.Encoding}}, e.Content}, err
}

// applying compares the memory that takes a difference with that of bspatch.
func applying(l *lab) (sides, error) {
	bsdiff, err := l.program("bsdiff")
	bspatch, err2 := l.program("bspatch")
	pairs, err3 := l.programs()
	dir, err4 := l.directory()
	if err := errors.Join(err, err2, err3, err4); err != nil {
		return sides{}, err
	}
	p := pairs[0]
	d, err := delta(l, p)
	if err != nil {
		return sides{}, err
	}
	text, err := json.Marshal(d.Payload)
	if err != nil {
		return sides{}, err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	build := exec.CommandContext(l.ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file("apply"), "./testdata/bench/apply")
	build.Dir, build.Env = l.top, append(os.Environ(), "CGO_ENABLED=0")
	_, err = l.run(build, exec.CommandContext(l.ctx, bsdiff, p.old, p.new, file("patch")))
	if err := errors.Join(err, os.WriteFile(file("payload.json"), text, 0o600), os.WriteFile(file("app.d"), d.content, 0o600)); err != nil {
		return sides{}, err
	}
	run := func(to string, cmd *exec.Cmd) (s sample, err error) {
		if s, err = l.run(cmd); err != nil {
			return s, err
		}
		s.bytes = s.memory
		got, err := os.ReadFile(file(to))
		want, err2 := os.ReadFile(p.new)
		if err := errors.Join(err, err2); err != nil {
			return s, err
		}
		if !bytes.Equal(got, want) {
			err = fmt.Errorf("%s: %s differs", cmd, to)
		}
		return s, err
	}
	return sides{
		func() (sample, error) {
			return run("ours", exec.CommandContext(l.ctx, file("apply"), file("payload.json"), file("app.d"), p.old, file("ours")))
		},
		func() (sample, error) {
			return run("theirs", exec.CommandContext(l.ctx, bspatch, p.old, file("theirs"), file("patch")))
		},
	}, nil
}
