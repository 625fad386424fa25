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
	head, err := verifyDir(dir, func(name string, seq uint64) {
		problems = append(problems, fmt.Errorf("%s: %w", name, damagedEntry(seq)))
	})
	return head, errors.Join(append(problems, err)...)
}

// verifyDir is VerifyDir, which calls damaged for damaged entries.
func verifyDir(dir string, damaged func(name string, seq uint64)) (Head, error) {
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
		head, err = verify(f, head, func(seq uint64) { damaged(name, seq) })
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
// entry that is damaged in the log it writes what is left, and continues.
func (a *Audit) Copy(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	permit := func(string, uint64) {}
	head, err := verifyDir(dir, permit)
	if errors.Is(err, ErrIncomplete) {
		if err = repair(dir); err == nil {
			head, err = verifyDir(dir, permit)
		}
	}
	if err != nil {
		return fmt.Errorf("the files of the audit were changed; move them away and keep them as evidence, then all entries are written again: %w", err)
	}
	var file *os.File
	defer func() {
		if file != nil {
			file.Close()
		}
	}()
	// The last entry that the files have is read again, to see that it is the same.
	from := max(head.Seq, 1)
	return a.log.Read(ctx, from, ">", true, func(m engine.Message) error {
		if m.Sequence == head.Seq {
			if head.Digest == "" {
				return nil
			}
			e, err := parse(m)
			if err == nil && e.Digest != head.Digest {
				err = fmt.Errorf("the files in %s belong to another audit: entry %d has another digest there", dir, m.Sequence)
			}
			return err
		}
		text := m.Data
		e, err := next(text, head)
		if err != nil {
			_ = a.log.Damaged(m, err) // which reports it
			e = damaged(m)
			if text, err = json.Marshal(e); err != nil {
				return err
			}
		}
		if name := fileFor(dir, e.Time); file == nil || file.Name() != name {
			if file != nil {
				if err := file.Close(); err != nil {
					return err
				}
			}
			if file, err = os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
				return err
			}
			if err := syncDir(dir); err != nil {
				return err
			}
		}
		if _, err := file.Write(append(text, '\n')); err != nil {
			return err
		}
		head = Head{e.Seq, e.Digest}
		return file.Sync()
	})
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
