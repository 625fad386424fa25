//go:build unix

package config_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// swapping replaces a file once somebody has looked at it.
type swapping struct {
	afero.OsFs
	swap func(name string) error
}

func (s swapping) LstatIfPossible(name string) (os.FileInfo, bool, error) {
	info, err := os.Lstat(name)
	if err == nil {
		err = s.swap(name)
	}
	return info, true, err
}

// What a program that is still running puts in the place of a result after it was
// looked at is not read.
func TestConvertReadsWhatItLookedAt(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, config.WithHeader(mib.FileTypeUserData, 2, []byte("secret\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, make := range map[string]func(name string) error{
		"link": func(name string) error { return os.Symlink(secret, name) },
		"FIFO": func(name string) error { return syscall.Mkfifo(name, 0o600) },
	} {
		fs := swapping{swap: func(name string) error {
			if err := os.Remove(name); err != nil {
				return err
			}
			return make(name)
		}}
		got, err := config.Convert(t.Context(), rewrite(fs, nil), fs, t.TempDir(), 1, 2, files(1, "text", mib.FileTypeUserData), 0)
		if cause(err) != mib.FailCauseConvertFailed || got != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// A link in the place of the directory of results is not followed.
func TestConvertRefusesLinkedResults(t *testing.T) {
	elsewhere := t.TempDir()
	for kind, data := range files(2, "secret", mib.FileTypeUserData) {
		if err := os.WriteFile(filepath.Join(elsewhere, kind.String()), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := runner(func(_ context.Context, _, _ uint32, _, out string) error {
		return errors.Join(os.Remove(out), os.Symlink(elsewhere, out))
	})
	got, err := config.Convert(t.Context(), program, afero.NewOsFs(), t.TempDir(), 1, 2, files(1, "text", mib.FileTypeUserData), 0)
	if cause(err) != mib.FailCauseConvertFailed || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}
