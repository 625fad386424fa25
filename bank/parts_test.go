package bank

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/internal/imagetest"
	"example.com/iad/mib"
)

// split is a server that has the split form in the directory dir.
func split(p *imagetest.Parts) *server { return &server{files: p.Split("dir")} }

// snapshot is everything on the device.
func snapshot(t testing.TB, opt Options) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for i, fs := range []afero.Fs{opt.Banks[0], opt.Banks[1], opt.State} {
		infos, err := afero.ReadDir(fs, ".")
		if err != nil {
			t.Fatal(err)
		}
		for _, info := range infos {
			data, err := afero.ReadFile(fs, info.Name())
			if err != nil {
				t.Fatal(err)
			}
			all[fmt.Sprint(i, " ", info.Name())] = string(data)
		}
	}
	return all
}

// refused installs from src and expects a refusal with that cause. before says that
// nothing at all may have been changed.
func refused(t *testing.T, src *server, name string, want mib.FailCause, before bool) {
	t.Helper()
	opt := device(t)
	b, _ := boot(t, opt)
	was := snapshot(t, opt)
	_, err := b.Install(context.Background(), src, name, InstallOptions{})
	var e *Error
	if !errors.As(err, &e) || e.Code != want {
		t.Fatalf("got %v, want cause %d", err, want)
	}
	if before && !maps.Equal(snapshot(t, opt), was) {
		t.Error("something was changed")
	}
	is := snapshot(t, opt)
	for name, data := range was {
		if strings.HasPrefix(name, "0 ") && is[name] != data {
			t.Errorf("the running bank was changed: %s", name)
		}
	}
	if s := b.Status(); s.Next != 1 || s.Banks[1].State >= mib.BankStateReady {
		t.Errorf("after the refusal: %+v", s)
	}
	if err := b.Activate(2); err == nil {
		t.Error("the refused software could be activated")
	}
}
