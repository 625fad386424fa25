package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
)

// lineReader reads lines of any length.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) *lineReader { return &lineReader{bufio.NewReaderSize(r, 64<<10)} }

// next returns the next line, io.EOF after the last one, ErrIncomplete if that has no end.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadBytes('\n')
	switch {
	case err == nil:
		return line[:len(line)-1], nil
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, ErrIncomplete
	}
	return nil, err
}

// names returns the files of a directory in their order. One file has the entries of one
// month.
func names(dir string) ([]string, error) {
	list, err := filepath.Glob(filepath.Join(dir, "audit-????-??.jsonl"))
	slices.Sort(list)
	return list, err
}

// fileFor is the name of the file for an entry.
func fileFor(dir string, at time.Time) string {
	return filepath.Join(dir, at.UTC().Format("audit-2006-01.jsonl"))
}

// VerifyDir checks all files of a directory like Verify, and returns the end of the chain.
// The error names the file.
func VerifyDir(dir string) (Head, error) {
	var problems []error
	head, err := verifyDir(dir, func(name string, problem *ChainError) {
		problems = append(problems, fmt.Errorf("%s: %w", name, problem))
	})
	return head, errors.Join(append(problems, err)...)
}

// verifyDir is VerifyDir, which calls damaged for damaged entries.
func verifyDir(dir string, damaged func(name string, problem *ChainError)) (Head, error) {
	list, err := names(dir)
	if err != nil {
		return Head{}, err
	}
	var head Head
	for i, name := range list {
		f, err := os.Open(name)
		if err != nil {
			return head, err
		}
		head, err = verify(f, head, func(problem *ChainError) { damaged(name, problem) })
		if err = errors.Join(err, f.Close()); err != nil {
			if errors.Is(err, ErrIncomplete) && i == len(list)-1 {
				err = fmt.Errorf("%w; power was lost while it was written, and the service repairs it when it starts", err)
			}
			return head, fmt.Errorf("%s: %w", name, err)
		}
	}
	return head, nil
}

// Copy copies the log to the files of a directory: first what is missing there, then, until
// ctx ends, what is added. Each entry is on disk before the next one is written. It does not
// touch files whose chain is broken or that are not a part of the log, and says so. Of an
// entry that is damaged or missing in the log it writes what is left, and continues.
func (a *Audit) Copy(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	permit := func(string, *ChainError) {}
	head, err := verifyDir(dir, permit)
	if errors.Is(err, ErrIncomplete) {
		if err = repair(dir); err == nil {
			head, err = verifyDir(dir, permit)
		}
	}
	if err != nil {
		return fmt.Errorf("the files of the audit were changed; move them away and keep them as evidence, then all entries are written again: %w", err)
	}
	end, err := a.last(ctx)
	if err != nil {
		return err
	}
	if head.Seq > end.Seq {
		return fmt.Errorf("the files in %s have %d entries and the service only %d, as after it was restored from an older copy; move the files away and keep them, then all entries are written again",
			dir, head.Seq, end.Seq)
	}
	c := &copier{audit: a, dir: dir, head: head}
	defer c.close()
	// The last entry that the files have is read again, to see that it is the same.
	return a.log.Read(ctx, max(head.Seq, 1), ">", true, c.add)
}

// copier writes entries after a head.
type copier struct {
	audit *Audit
	dir   string
	head  Head
	file  *os.File
}

func (c *copier) close() {
	if c.file != nil {
		c.file.Close()
	}
}

// add writes an entry, and marks of those before it that are missing.
func (c *copier) add(m engine.Message) error {
	if m.Sequence == c.head.Seq {
		return c.same(m)
	}
	for c.head.Seq+1 < m.Sequence {
		if err := c.write(c.audit.missing(c.head.Seq+1, m.Time), nil); err != nil {
			return err
		}
	}
	e, err := next(m.Data, c.head)
	if err != nil && !errors.Is(err, errContinued) {
		_ = c.audit.log.Damaged(m, err) // which reports it
		return c.write(damaged(m), nil)
	}
	return c.write(e, m.Data)
}

// same checks that the last entry of the files is that of the log, if it can be read there.
func (c *copier) same(m engine.Message) error {
	e, err := parse(m)
	if err == nil {
		var digest string
		if digest, err = digestOf(e); err == nil && digest != e.Digest {
			err = &ChainError{Seq: m.Sequence, Problem: "changed: its digest is not that of its content"}
		}
	}
	if err != nil {
		_ = c.audit.log.Damaged(m, err) // which reports it
		return nil
	}
	if c.head.Digest != "" && e.Digest != c.head.Digest {
		return fmt.Errorf("the files in %s belong to another audit: entry %d has another digest there", c.dir, m.Sequence)
	}
	return nil
}

// write writes an entry, whose JSON text is; nil: it is made.
func (c *copier) write(e fleet.AuditEntry, text []byte) (err error) {
	if text == nil {
		if text, err = json.Marshal(e); err != nil {
			return err
		}
	}
	if name := fileFor(c.dir, e.Time); c.file == nil || c.file.Name() != name {
		c.close()
		if c.file, err = os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		if err := syncDir(c.dir); err != nil {
			return err
		}
	}
	if _, err := c.file.Write(append(text, '\n')); err != nil {
		return err
	}
	c.head = Head{e.Seq, e.Digest}
	return c.file.Sync()
}

// repair removes the incomplete last line of the last file.
func repair(dir string) error {
	list, err := names(dir)
	if err != nil || len(list) == 0 {
		return err
	}
	f, err := os.OpenFile(list[len(list)-1], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	end := int64(0)
	for lines := newLineReader(f); ; {
		line, err := lines.next()
		if errors.Is(err, ErrIncomplete) || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		end += int64(len(line)) + 1
	}
	if err := f.Truncate(end); err != nil {
		return err
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
