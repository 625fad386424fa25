package board

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// newSuffix ends the name of a file that is to replace the one in force.
const newSuffix = ".new"

// exitNeedsReset is the exit status of ApplyProgram for success that needs a
// restart.
const exitNeedsReset = 3

// ApplyConfig brings the files in Applied up to date and runs ApplyProgram. An
// error that wraps agent.ErrNotHandedOver means that the files could not be
// written: the previous ones are still there, all of them.
func (p *Platform) ApplyConfig(ctx context.Context, _ config.Generation, set config.Set) (bool, error) {
	if err := p.replaceApplied(set); err != nil {
		code := mib.FailCauseWriteError
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			code = mib.FailCauseStorageFull
		}
		return false, notHandedOver{&procedure.Failure{Code: code,
			Text: fmt.Sprintf("files could not be handed to the software, which keeps the previous ones: %v", withoutPath(err))}}
	}
	if p.ApplyProgram == "" {
		return false, nil
	}
	_, err := Run(ctx, Command{Path: p.ApplyProgram, Args: []string{p.Applied}, Temp: p.Work, Limit: p.Limit})
	var exit *ExitError
	if errors.As(err, &exit) && exit.Status == exitNeedsReset {
		return true, nil
	}
	return false, err
}

// withoutPath is err without the directories of its file: a text of the MIB has no room
// for them and the reason.
func withoutPath(err error) error {
	var pathError *os.PathError
	if errors.As(err, &pathError) {
		return fmt.Errorf("%s: %w", filepath.Base(pathError.Path), pathError.Err)
	}
	return err
}

// notHandedOver is an error that wraps agent.ErrNotHandedOver.
type notHandedOver struct{ *procedure.Failure }

func (notHandedOver) Is(target error) bool { return target == agent.ErrNotHandedOver }
func (e notHandedOver) Unwrap() error      { return e.Failure }

// replaceApplied writes all files of the set beside those in Applied, then renames
// them. Until the first rename nothing has changed. Files that have not changed are
// left alone, which saves room and flash.
func (p *Platform) replaceApplied(set config.Set) error {
	if info, err := os.Lstat(p.Applied); err == nil && !info.IsDir() && info.Mode()&os.ModeSymlink == 0 {
		if err := os.Remove(p.Applied); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(p.Applied, 0o700); err != nil {
		return err
	}
	if err := p.confine(p.Applied, 0o700); err != nil {
		return err
	}
	var fresh []string
	for _, k := range set.Kinds() {
		name := filepath.Join(p.Applied, k.String())
		if holds(name, set[k]) {
			if err := p.confine(name, 0o600); err != nil {
				return err
			}
			continue
		}
		fresh = append(fresh, name)
		if err := p.writeBeside(name, set[k]); err != nil {
			for _, name := range fresh {
				_ = os.Remove(name + newSuffix) // it only takes room
			}
			return err
		}
	}
	for _, name := range fresh {
		if err := rename(name+newSuffix, name); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(p.Applied)
	if err != nil {
		return err
	}
	for _, e := range entries {
		kind, ok := config.ParseKind(e.Name())
		if _, wanted := set[kind]; !ok || !wanted {
			err = errors.Join(err, os.RemoveAll(filepath.Join(p.Applied, e.Name())))
		}
	}
	return err
}

// writeBeside writes the file that is to take the place of name. It is synced: a
// rename that reaches the medium before the content would leave an empty file, which
// the software may read before the next start of the agent repairs it.
func (p *Platform) writeBeside(name string, data []byte) error {
	beside := name + newSuffix
	if err := os.RemoveAll(beside); err != nil {
		return err
	}
	f, err := os.OpenFile(beside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //durable: a copy; the store has the original
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return p.confine(beside, 0o600)
}

// rename replaces to, even if it is a directory.
func rename(from, to string) error {
	if info, err := os.Lstat(to); err == nil && info.IsDir() {
		if err := os.RemoveAll(to); err != nil {
			return err
		}
	}
	return os.Rename(from, to) //durable: a copy; the store has the original
}

// holds reports whether name is a regular file with this content.
func holds(name string, data []byte) bool {
	info, err := os.Lstat(name)
	if err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(data)) {
		return false
	}
	got, err := os.ReadFile(name)
	return err == nil && bytes.Equal(got, data)
}

// NotHandedOver returns the kinds of set whose copy in Applied is missing or
// different.
func (p *Platform) NotHandedOver(set config.Set) (kinds []mib.FileType) {
	for _, k := range set.Kinds() {
		if !holds(filepath.Join(p.Applied, k.String()), set[k]) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// layOut writes copies of files into an empty directory.
func (p *Platform) layOut(dir string, set config.Set) error {
	for _, k := range set.Kinds() {
		name := filepath.Join(dir, k.String())
		if err := os.WriteFile(name, set[k], 0o600); err != nil { //durable: a copy for one program
			return err
		}
		if err := p.confine(name, 0o600); err != nil {
			return err
		}
	}
	return p.confine(dir, 0o700)
}

// confine gives a file or directory its mode, and lets the group that programs of
// the software run as read it: configuration data may hold passwords, and the
// software reads but does not change them.
func (p *Platform) confine(name string, mode fs.FileMode) error {
	if p.As == nil {
		return os.Chmod(name, mode)
	}
	return errors.Join(os.Lchown(name, -1, int(p.As.GID)), os.Chmod(name, mode|mode>>3&0o050))
}
