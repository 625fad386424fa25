package sim

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"example.com/iad/agent/procedure"
	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// transferFaults are the faults of file transfers.
var transferFaults = []FaultKind{Stall, Corrupt, Truncate}

// faultyFetcher reaches file servers of which faults make something else.
type faultyFetcher struct {
	procedure.Fetcher
	device *Device
}

func (f *faultyFetcher) Open(ctx context.Context, s procedure.Server) (procedure.Files, error) {
	f.device.look()
	if _, ok := f.device.occasion(Refuse); ok {
		return nil, &procedure.Failure{Code: mib.FailCauseServerUnreachable, Text: "connection refused (injected fault)"}
	}
	conn, err := f.Fetcher.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	return &faultyFiles{Files: conn, device: f.device, timeout: time.Duration(s.Timeout) * time.Second}, nil
}

type faultyFiles struct {
	procedure.Files
	device   *Device
	timeout  time.Duration // iadUpgServerTimeout
	manifest bool          // that of an image in split form has been seen
}

func (f *faultyFiles) Get(ctx context.Context, name string, offset int64) (io.ReadCloser, int64, error) {
	r, size, err := f.Files.Get(ctx, name, offset)
	if err != nil || strings.HasSuffix(name, image.SignatureSuffix) {
		return r, size, err
	}
	return &faultyReader{from: bufio.NewReader(r), closer: r, ctx: ctx, files: f, pos: offset, size: size}, size, nil
}

func (f *faultyFiles) Put(ctx context.Context, name string, r io.ReadSeeker, size int64) error {
	if op, _ := f.device.operation(); op != mib.OperationKindBackupConfig {
		return f.Files.Put(ctx, name, r, size)
	}
	f.device.count(transferFaults...)
	if _, ok := f.device.happens(func(a *armed) bool { return a.Operation == mib.OperationKindBackupConfig }, Stall); ok {
		return f.stall(ctx)
	}
	return f.Files.Put(ctx, name, r, size)
}

// stall waits as long as the device does for a server that sends nothing.
func (f *faultyFiles) stall(ctx context.Context) error {
	t := time.NewTimer(f.timeout)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return &procedure.Failure{Code: mib.FailCauseTransferTimeout,
			Text: fmt.Sprintf("nothing arrived for %s (injected fault)", f.timeout)}
	}
}

// faultyReader reads a file in which faults happen if it is software. Its first bytes show
// that; size and name do not.
type faultyReader struct {
	from   *bufio.Reader
	closer io.Closer
	ctx    context.Context
	files  *faultyFiles
	failed error // of from, once its buffer is empty
	pos    int64
	size   int64 // -1: not known

	began, software bool
	head            []byte // what came so far of a tar file, until flipAt is known
	flipAt          int64  // the byte that Corrupt flips, -1: not known yet
}

func (r *faultyReader) Close() error { return r.closer.Close() }

// next reads what comes next, as it is.
func (r *faultyReader) next(p []byte) (int, error) {
	if r.failed != nil && r.from.Buffered() == 0 {
		return 0, r.failed
	}
	return r.from.Read(p)
}

// begin finds out whether faults happen in this file, and where.
func (r *faultyReader) begin() {
	var start []byte
	start, r.failed = r.from.Peek(len("iad-config ")) // which keeps no error for the next Read
	switch {
	case bytes.HasPrefix(start, []byte("iad-config ")):
		return
	case bytes.HasPrefix(start, []byte("{")) && !r.files.manifest:
		r.files.manifest = true
		return // the files that it names come next
	case len(start) == 0:
		return
	}
	r.software = true
	r.flipAt = max(r.size, 0) / 2
	if r.pos == 0 && bytes.HasPrefix(start, []byte(image.ManifestName)[:len(start)]) {
		r.flipAt = -1
	}
	r.files.device.count(transferFaults...)
}

func (r *faultyReader) Read(p []byte) (int, error) {
	if !r.began {
		r.began = true
		r.begin()
	}
	d := r.files.device
	if d.look(); r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	if !r.software || !d.faults.has(transferFaults...) && len(r.head) == 0 {
		n, err := r.next(p)
		r.pos += int64(n)
		return n, err
	}
	half := max(r.size, 0) / 2
	if r.pos >= half {
		if _, ok := d.happens(nil, Stall); ok {
			return 0, r.files.stall(r.ctx)
		}
		if _, ok := d.happens(nil, Truncate); ok {
			return 0, &procedure.Failure{Code: mib.FailCauseSizeMismatch, Text: fmt.Sprintf("the file ended after %d of %d bytes (injected fault)", r.pos, r.size)}
		}
	} else {
		p = p[:min(int64(len(p)), half-r.pos)]
	}
	n, err := r.next(p)
	if r.flipAt < 0 && n > 0 {
		if int64(len(r.head)) == r.pos {
			r.head = append(r.head, p[:n]...)
			r.flipAt = inPayload(r.head)
		} else {
			r.flipAt = r.pos // the fault came after the beginning
		}
		if r.flipAt >= 0 {
			r.head = nil
		}
	}
	if at := max(r.flipAt, r.pos); r.flipAt >= 0 && at < r.pos+int64(n) {
		if _, ok := d.happens(nil, Corrupt); ok {
			p[at-r.pos] ^= 1
		}
	}
	r.pos += int64(n)
	return n, err
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
