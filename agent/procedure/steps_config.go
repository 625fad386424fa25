package procedure

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"

	"example.com/iad/mib"
)

// connect opens the server of the request.
func (t *task) connect() error {
	conn, err := t.e.cfg.Fetcher.Open(t.ctx, t.server)
	if err != nil {
		return err
	}
	t.conn = conn
	return nil
}

// collect takes the configuration files of a backup, all of one generation.
func (t *task) collect() (err error) {
	t.files, t.format, err = t.e.cfg.Store.Collect(t.ctx, filesOf(t.op.Kind, &t.op.Params))
	return err
}

// upload sends the collected files.
func (t *task) upload() error {
	var done, total uint64
	for _, data := range t.files {
		total += uint64(len(data))
	}
	t.progress(0, total)
	t.sent = map[mib.FileType][]byte{}
	for _, k := range filesOf(t.op.Kind, &t.op.Params).Kinds() {
		data, name := t.files[k], t.rows[k-1].Name
		t.file(name)
		if t.op.Params.Options.Has(CheckOnly) {
			continue
		}
		t.transfers()
		sum := sha256.Sum256(data)
		r := &position{r: bytes.NewReader(data), moved: func(at uint64) { t.progress(done+at, total) }}
		if err := t.conn.Put(t.ctx, name, r, int64(len(data))); err != nil {
			t.result(k, FileResult{Result: classify(err).Code, Size: r.at})
			return err
		}
		done += uint64(len(data))
		t.sent[k] = sum[:]
		t.result(k, FileResult{Result: mib.FailCauseNone, Size: uint64(len(data)), Digest: sum[:], Format: t.format})
	}
	return nil
}

// readBack fetches what was sent and compares it. A server that does not let
// its uploads be read is no failure: the manager compares the digests.
func (t *task) readBack() error {
	for _, k := range filesOf(t.op.Kind, &t.op.Params).Kinds() {
		if t.sent[k] == nil {
			continue
		}
		name := t.rows[k-1].Name
		t.file(name)
		data, err := t.fetch(name, int64(len(t.files[k])), nil)
		if err == nil && bytes.Equal(data, t.files[k]) {
			continue
		}
		var f Failure
		if err != nil {
			f = *classify(err)
		}
		switch {
		case err == nil || f.Code == mib.FailCauseFileTooLarge:
			t.result(k, FileResult{Result: mib.FailCauseDigestMismatch})
			return failure(mib.FailCauseDigestMismatch, cut("the server returned different contents for "+name))
		case f.Code == mib.FailCauseFileNotFound || f.Code == mib.FailCauseAccessDenied:
			t.e.log.Warn("the backup could not be read back from the server", "file", name, "err", err)
		default:
			return err
		}
	}
	return nil
}

// fetch reads a small file, at most limit bytes of it.
func (t *task) fetch(name string, limit int64, count func(n int, size int64)) ([]byte, error) {
	r, size, err := t.conn.Get(t.ctx, name, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > limit {
		return nil, failure(mib.FailCauseFileTooLarge, cut(fmt.Sprintf("%s has %d bytes, %d fit", name, size, limit)))
	}
	c := &counter{r: r}
	if count != nil {
		c.n = func(n int) { count(n, size) }
	}
	data, err := io.ReadAll(io.LimitReader(c, limit+1))
	if err == nil && int64(len(data)) > limit {
		return nil, failure(mib.FailCauseFileTooLarge, cut(fmt.Sprintf("%s has more than %d bytes", name, limit)))
	}
	return data, err
}

// download fetches the configuration files of a recovery.
func (t *task) download() error {
	t.files = ConfigFiles{}
	kinds := filesOf(t.op.Kind, &t.op.Params).Kinds()
	var done, total uint64
	known := true
	for _, k := range kinds {
		total += uint64(t.rows[k-1].Size)
		known = known && t.rows[k-1].Size != 0
	}
	if !known {
		total = 0
	}
	for _, k := range kinds {
		row := t.rows[k-1]
		t.file(row.Name)
		t.transfers()
		data, err := t.fetch(row.Name, t.e.cfg.Store.MaxFile(), func(n int, size int64) {
			done += uint64(n)
			if total == 0 && len(kinds) == 1 && size > 0 {
				total = uint64(size)
			}
			t.progress(done, total)
		})
		r := FileResult{Result: mib.FailCauseNone, Size: uint64(len(data))}
		if err == nil { // it is complete
			sum := sha256.Sum256(data)
			r.Digest = sum[:]
			err = checkExpected(row, data)
		}
		if err != nil {
			r.Result = classify(err).Code
		}
		t.result(k, r)
		if err != nil {
			return err
		}
		t.files[k] = data
	}
	t.progress(done, done)
	return nil
}

func checkExpected(row File, data []byte) error {
	if row.Size != 0 && uint64(row.Size) != uint64(len(data)) {
		return failure(mib.FailCauseSizeMismatch, cut(fmt.Sprintf("%s has %d bytes, %d were announced", row.Name, len(data), row.Size)))
	}
	if sum := sha256.Sum256(data); len(row.Digest) != 0 && !bytes.Equal(sum[:], row.Digest) {
		return failure(mib.FailCauseDigestMismatch, cut(fmt.Sprintf("%s has SHA-256 %x, expected %x", row.Name, sum[:4], row.Digest[:4])))
	}
	return nil
}

// examine finds out the format of the files fetched and whether they can be
// used.
func (t *task) examine() (err error) {
	if t.files, t.format, err = t.e.cfg.Store.Examine(t.files); err != nil {
		return err
	}
	t.update(func(j *journal) {
		for k := range t.files {
			j.Files[k-1].Format = t.format
		}
	})
	want := t.e.cfg.Store.Status().Format
	if t.format != want && !t.op.Params.Options.Has(ConvertFirst) {
		return failure(mib.FailCauseConfigFormatMismatch,
			fmt.Sprintf("the files are of format %d, the running software reads format %d", t.format, want))
	}
	return nil
}

// findOther finds data on the device that are in another format.
func (t *task) findOther() error {
	files, format, ok, err := t.e.cfg.Store.OtherFormat(t.ctx)
	if err != nil {
		return err
	}
	if !ok {
		return failure(mib.FailCausePreconditionMissing, "the device holds no configuration data in another format")
	}
	t.files, t.format = files, format
	return nil
}

// otherFormat reports whether the files have to be converted.
func (t *task) otherFormat() bool { return t.format != t.e.cfg.Store.Status().Format }

// convert brings the files to the format of the running software.
func (t *task) convert() error {
	want := t.e.cfg.Store.Status().Format
	files, err := t.e.cfg.Store.Convert(t.ctx, t.format, want, t.files)
	if err != nil {
		return err
	}
	t.files, t.format = files, want
	// The program gets the whole set; what is put in force was asked for.
	maps.DeleteFunc(t.files, func(k mib.FileType, _ []byte) bool { return !filesOf(t.op.Kind, &t.op.Params).Has(k) })
	return nil
}

// apply puts the files in force.
func (t *task) apply() error {
	o := t.op.Params.Options
	if err := t.e.cfg.Store.Check(t.ctx, t.files); err != nil || o.Has(CheckOnly) {
		return err
	}
	if o.Has(ThenReset) {
		if err := t.checkCalls(); err != nil {
			return err
		}
	}
	if err := t.pointOfNoReturn(mib.OperationPhaseApplying, nil); err != nil {
		return err
	}
	// Not stopped half way: what is applied is applied as a whole.
	needsReset, err := t.e.cfg.Store.Apply(context.WithoutCancel(t.ctx), t.files)
	if err != nil {
		return err
	}
	t.update(func(j *journal) { j.ConfigReset = j.ConfigReset || needsReset })
	return nil
}

// position reports where in a file an upload is. An upload that starts again takes
// the progress back with it.
type position struct {
	r     io.ReadSeeker
	moved func(at uint64)
	at    uint64
}

func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if n > 0 {
		p.at += uint64(n)
		p.moved(p.at)
	}
	return n, err
}

func (p *position) Seek(offset int64, whence int) (int64, error) {
	at, err := p.r.Seek(offset, whence)
	if err == nil && uint64(at) != p.at {
		p.at = uint64(at)
		p.moved(p.at)
	}
	return at, err
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n func(int)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.n != nil && n > 0 {
		c.n(n)
	}
	return n, err
}
