package config_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/afero"

	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// runner is a conversion program as a function.
type runner func(ctx context.Context, from, to uint32, in, out string) error

func (r runner) Convert(ctx context.Context, from, to uint32, in, out string) error {
	return r(ctx, from, to, in, out)
}

// rewrite returns a program that gives every file of the input the format to,
// except those that change, by kind, gives another content or (nil) leaves out.
func rewrite(fs afero.Fs, change config.Set) runner {
	return func(_ context.Context, _, to uint32, in, out string) error {
		infos, err := afero.ReadDir(fs, in)
		if err != nil {
			return err
		}
		result := config.Set{}
		for _, info := range infos {
			kind, ok := config.ParseKind(info.Name())
			if !ok {
				return fmt.Errorf("unexpected input %s", info.Name())
			}
			data, err := afero.ReadFile(fs, filepath.Join(in, info.Name()))
			if err != nil {
				return err
			}
			result[kind] = config.WithHeader(kind, to, config.Body(data))
		}
		for kind, data := range change {
			result[kind] = data
		}
		for kind, data := range result {
			if data == nil {
				continue
			}
			if err := afero.WriteFile(fs, filepath.Join(out, kind.String()), data, 0o600); err != nil {
				return err
			}
		}
		return afero.WriteFile(fs, filepath.Join(out, "log"), []byte("done"), 0o600)
	}
}

func TestConvert(t *testing.T) {
	mem := afero.NewMemMapFs()
	if err := mem.Mkdir("work", 0o700); err != nil {
		t.Fatal(err)
	}
	given := files(1, "text", mib.FileTypeUserData, mib.FileTypePortData)
	extra := config.WithHeader(mib.FileTypeOtherData, 2, []byte("made by the conversion\n"))
	got, err := config.Convert(t.Context(), rewrite(mem, config.Set{mib.FileTypeOtherData: extra}), mem, "work", 1, 2, given, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := files(2, "text", mib.FileTypeUserData, mib.FileTypePortData)
	want[mib.FileTypeOtherData] = extra
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(files(1, "text", mib.FileTypeUserData, mib.FileTypePortData), given); diff != "" {
		t.Errorf("what was given changed: %s", diff)
	}
}

func TestConvertRefusesResults(t *testing.T) {
	for name, change := range map[string]config.Set{
		"kind missing":  {mib.FileTypePortData: nil},
		"old format":    {mib.FileTypeUserData: files(1, "x")[mib.FileTypeUserData]},
		"third format":  {mib.FileTypeUserData: files(3, "x")[mib.FileTypeUserData], mib.FileTypePortData: files(3, "x")[mib.FileTypePortData]},
		"no header":     {mib.FileTypePortData: []byte("port = 1\n")},
		"other kind":    {mib.FileTypePortData: files(2, "x")[mib.FileTypeUserData]},
		"empty file":    {mib.FileTypePortData: []byte{}},
		"too large":     {mib.FileTypePortData: config.WithHeader(mib.FileTypePortData, 2, make([]byte, 5000))},
		"extra invalid": {mib.FileTypeOtherData: []byte("x")},
	} {
		t.Run(name, func(t *testing.T) {
			mem := afero.NewMemMapFs()
			set, err := config.Convert(t.Context(), rewrite(mem, change), mem, "", 1, 2, files(1, "text", mib.FileTypeUserData, mib.FileTypePortData), 4096)
			if cause(err) != mib.FailCauseConvertFailed || set != nil {
				t.Errorf("%v, %v; want convertFailed", set, err)
			}
		})
	}
}

func TestConvertProgramFails(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want mib.FailCause
	}{
		"failed":    {errors.New("exit status 3: line 7 not understood"), mib.FailCauseConvertFailed},
		"cancelled": {context.Canceled, mib.FailCauseConvertFailed},
		"timeout":   {fmt.Errorf("converter: %w", context.DeadlineExceeded), mib.FailCauseConvertTimeout},
		"missing":   {&os.PathError{Op: "exec", Path: "/conv", Err: fs.ErrNotExist}, mib.FailCauseConvertToolMissing},
		"own cause": {&config.Error{Code: mib.FailCauseStorageFull, Err: fs.ErrNotExist}, mib.FailCauseStorageFull},
	} {
		mem := afero.NewMemMapFs()
		program := runner(func(context.Context, uint32, uint32, string, string) error { return c.err })
		_, err := config.Convert(t.Context(), program, mem, "", 1, 2, files(1, "x"), 0)
		if cause(err) != c.want || !errors.Is(err, c.err) || !strings.Contains(err.Error(), "from format 1 to 2") {
			t.Errorf("%s: %v, want cause %d", name, err, c.want)
		}
	}
}

func TestConvertGivesWholeCopy(t *testing.T) {
	mem := afero.NewMemMapFs()
	given := files(1, "x")
	seen := config.Set{}
	program := runner(func(_ context.Context, from, to uint32, in, _ string) error {
		if from != 1 || to != 2 {
			t.Errorf("asked for %d to %d", from, to)
		}
		for _, k := range config.Kinds() {
			data, err := afero.ReadFile(mem, filepath.Join(in, k.String()))
			if err != nil {
				t.Error(err)
			}
			seen[k] = data
		}
		return nil
	})
	if _, err := config.Convert(t.Context(), program, mem, "", 1, 2, given, 0); cause(err) != mib.FailCauseConvertFailed {
		t.Errorf("a program that writes nothing: %v", err)
	}
	if diff := cmp.Diff(given, seen); diff != "" {
		t.Error(diff)
	}
}

func TestConvertDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, config.WithHeader(mib.FileTypeUserData, 2, []byte("secret\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	program := runner(func(_ context.Context, _, _ uint32, _, out string) error {
		return os.Symlink(secret, filepath.Join(out, "userData"))
	})
	set, err := config.Convert(t.Context(), program, afero.NewOsFs(), dir, 1, 2, files(1, "x", mib.FileTypeUserData), 0)
	if cause(err) != mib.FailCauseConvertFailed {
		t.Errorf("%q, %v", set, err)
	}
}

func TestConvertBadInput(t *testing.T) {
	program := runner(func(context.Context, uint32, uint32, string, string) error {
		t.Error("program started")
		return nil
	})
	mem := afero.NewMemMapFs()
	if _, err := config.Convert(t.Context(), program, mem, "", 1, 2, files(3, "x"), 0); cause(err) != mib.FailCauseConfigFormatMismatch {
		t.Errorf("data in another format: %v", err)
	}
	if _, err := config.Convert(t.Context(), program, mem, "", 1, 2, config.Set{}, 0); cause(err) != mib.FailCauseConfigReadError {
		t.Errorf("no data: %v", err)
	}
	full := &faulty{Fs: mem, match: "in", err: syscall.ENOSPC}
	if _, err := config.Convert(t.Context(), program, full, "", 1, 2, files(1, "x"), 0); cause(err) != mib.FailCauseStorageFull {
		t.Errorf("full disk: %v", err)
	}
	if _, err := config.Convert(t.Context(), program, afero.NewReadOnlyFs(mem), "w", 1, 2, files(1, "x"), 0); cause(err) != mib.FailCauseWriteError {
		t.Errorf("disk that cannot be written: %v", err)
	}
}
