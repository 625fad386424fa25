package config

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	iofs "io/fs"
	"path/filepath"

	"github.com/spf13/afero"

	"example.com/iad/mib"
)

// Runner runs a conversion program, PROGRAM FROM TO INDIR OUTDIR: it reads the
// files of format from in directory inDir, named as their kinds, and writes those
// of format to in directory outDir, which is empty at first.
//
// The error's Cause method, if it has one, gives the failure cause. Otherwise
// an error that wraps context.DeadlineExceeded stands for convertTimeout, one
// that wraps fs.ErrNotExist for convertToolMissing, any other for
// convertFailed.
type Runner interface {
	Convert(ctx context.Context, from, to uint32, inDir, outDir string) error
}

// Convert runs the conversion program on a copy of set and returns what it made.
// The copy lies in directory dir of fs, which must exist and be empty; the caller
// removes it afterwards. fs must be what the Runner's program sees.
//
// A result is returned only if it is complete and valid: it has every kind of
// set (and may have more), each a regular file of at most maxFile bytes (0 stands
// for DefaultMaxFile) whose first line names its kind and the format to. The error is an *Error with one
// of the causes convertFailed, convertTimeout, convertToolMissing, or what the
// Runner says. If ctx was cancelled it wraps context.Canceled.
func Convert(ctx context.Context, r Runner, fs afero.Fs, dir string, from, to uint32, set Set, maxFile int64) (Set, error) {
	if format, err := set.Format(); err != nil {
		return nil, err
	} else if format != from {
		return nil, fail(mib.FailCauseConfigFormatMismatch, "", fmt.Errorf("the files are in format %d, not in %d", format, from))
	}
	maxFile = cmp.Or(maxFile, DefaultMaxFile)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := writeCopy(fs, in, out, set); err != nil {
		return nil, failWrite(mib.FailCauseWriteError, "", fmt.Errorf("copy for the conversion: %w", err))
	}
	if err := r.Convert(ctx, from, to, in, out); err != nil {
		return nil, fail(convertCause(err), "", fmt.Errorf("conversion from format %d to %d: %w", from, to, err))
	}
	result, err := readResult(fs, out, set, maxFile)
	if err == nil {
		var format uint32
		if format, err = result.Format(); err == nil && format != to {
			err = fmt.Errorf("the result is in format %d", format)
		}
	}
	if err != nil {
		return nil, fail(mib.FailCauseConvertFailed, "", fmt.Errorf("conversion from format %d to %d: %w", from, to, err))
	}
	return result, nil
}

func convertCause(err error) mib.FailCause {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return mib.CauseOf(err, mib.FailCauseConvertTimeout)
	case errors.Is(err, iofs.ErrNotExist):
		return mib.CauseOf(err, mib.FailCauseConvertToolMissing)
	}
	return mib.CauseOf(err, mib.FailCauseConvertFailed)
}

// writeCopy writes files that are not needed after the conversion: they need not last.
func writeCopy(fs afero.Fs, in, out string, set Set) error {
	for _, dir := range []string{in, out} {
		if err := fs.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	for kind, data := range set {
		if err := afero.WriteFile(fs, filepath.Join(in, kind.String()), data, 0o600); err != nil { //durable: scratch copy
			return err
		}
	}
	return nil
}

// readResult reads what the program wrote for the kinds there are, and at least
// for those of set. Other files are the program's own business.
func readResult(fs afero.Fs, out string, set Set, maxFile int64) (Set, error) {
	// If a link replaced the directory, it could lead to other files of the system.
	if info, err := lstat(fs, out); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s, where the result should be, is not a directory", filepath.Base(out))
	}
	result := Set{}
	for _, kind := range Kinds() {
		name := filepath.Join(out, kind.String())
		info, err := lstat(fs, name)
		_, needed := set[kind]
		switch {
		case errors.Is(err, iofs.ErrNotExist) && !needed:
			continue
		case errors.Is(err, iofs.ErrNotExist):
			return nil, fmt.Errorf("the result has no %s", kind)
		case err != nil:
			return nil, err
		case !info.Mode().IsRegular():
			return nil, fmt.Errorf("%s of the result is not a regular file", kind)
		case info.Size() > maxFile:
			return nil, fmt.Errorf("%s of the result has %d bytes; a configuration file has %d at most", kind, info.Size(), maxFile)
		}
		if result[kind], err = readPlain(fs, name, maxFile); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// readPlain reads a regular file, limit+1 bytes of it at most. It looks at what it has
// opened: what the program left running may have put something else in its place.
func readPlain(fs afero.Fs, name string, limit int64) ([]byte, error) {
	f, err := fs.OpenFile(name, openPlain, 0) //durable: only read
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", name))
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, err
}

// lstat does not follow a symbolic link: the program could point one at any
// file that this process may read.
func lstat(fs afero.Fs, name string) (iofs.FileInfo, error) {
	if l, ok := fs.(afero.Lstater); ok {
		info, _, err := l.LstatIfPossible(name)
		return info, err
	}
	return fs.Stat(name)
}
