package sim

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// faultyFetcher spoils the first download of software.
type faultyFetcher struct {
	procedure.Fetcher
	kind FaultKind
	log  *slog.Logger

	manifest atomic.Bool // that of an image in split form has been seen
	done     atomic.Bool
}

func (f *faultyFetcher) Open(ctx context.Context, s procedure.Server) (procedure.Files, error) {
	conn, err := f.Fetcher.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	return &faultyFiles{Files: conn, f: f, timeout: time.Duration(s.Timeout) * time.Second}, nil
}

type faultyFiles struct {
	procedure.Files
	f       *faultyFetcher
	timeout time.Duration // iadUpgServerTimeout
}

func (f *faultyFiles) Get(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	r, size, err := f.Files.Get(ctx, name, offset)
	if err != nil || offset != 0 || strings.HasSuffix(name, image.SignatureSuffix) || f.f.done.Load() {
		return r, size, err
	}
	return &faultyReader{from: bufio.NewReader(r), closer: r, ctx: ctx, files: f, name: name, size: size}, size, nil
}

// faultyReader reads a file in which the fault happens if it is software. Its
// first bytes show that; size and name do not.
type faultyReader struct {
	from   *bufio.Reader
	closer io.Closer
	ctx    context.Context
	files  *faultyFiles
	name   string
	size   int64 // -1: not known

	began, faulty, tar bool
	head               []byte // what came so far of a tar file, until at is known
	pos                int64
	at                 int64 // where the fault happens, -1: not known yet
}

func (r *faultyReader) Close() error { return r.closer.Close() }

// begin decides whether the fault happens in this file, and where.
func (r *faultyReader) begin() {
	f := r.files.f
	start, _ := r.from.Peek(len("iad-config "))
	switch {
	case bytes.HasPrefix(start, []byte("iad-config ")):
		return
	case bytes.HasPrefix(start, []byte("{")) && !f.manifest.Swap(true):
		return // the files that it names come next
	case len(start) == 0 || f.done.Swap(true):
		return
	}
	r.faulty = true
	r.tar = bytes.HasPrefix(start, []byte(image.ManifestName)[:len(start)])
	r.at = max(r.size, 0) / 2
	if r.tar && f.kind == Corrupt {
		r.at = -1
	}
}

func (r *faultyReader) Read(p []byte) (int, error) {
	if !r.began {
		r.began = true
		r.begin()
	}
	if !r.faulty {
		return r.from.Read(p)
	}
	if r.files.f.kind == Stall {
		if r.pos == r.at {
			return 0, r.stall()
		}
		p = p[:min(int64(len(p)), r.at-r.pos)]
	}
	n, err := r.from.Read(p)
	if r.at < 0 && n > 0 {
		r.head = append(r.head, p[:n]...)
		r.at = inPayload(r.head)
	}
	if r.files.f.kind == Corrupt && r.pos <= r.at && r.at < r.pos+int64(n) {
		p[r.at-r.pos] ^= 1
		r.files.f.log.Warn("a bit is flipped (injected fault)", "file", r.name, "offset", r.at)
	}
	r.pos += int64(n)
	return n, err
}

func (r *faultyReader) stall() error {
	r.files.f.log.Warn("the download hangs (injected fault)", "file", r.name, "offset", r.at)
	t := time.NewTimer(r.files.timeout)
	defer t.Stop()
	select {
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case <-t.C:
		return &procedure.Failure{Code: mib.FailCauseTransferTimeout,
			Text: fmt.Sprintf("nothing arrived for %s (injected fault)", r.files.timeout)}
	}
}

// inPayload is the offset of the middle of the first payload of an image in tar form
// of which the head has come, -1 if that is too little. A flipped bit before it would
// not look like one: the image would have a wrong structure or signature.
func inPayload(head []byte) int64 {
	const block = 512
	at := 0
	for entry := 0; len(head) >= at+block; entry++ {
		size, err := strconv.ParseInt(string(bytes.Trim(head[at+124:at+136], " \x00")), 8, 32)
		if err != nil {
			return int64(at) // not an image, or its end: anywhere will do
		}
		if entry >= 2 && size > 0 { // after manifest and signature
			return int64(at) + block + size/2
		}
		at += block + (int(size)+block-1)/block*block
	}
	return -1
}
