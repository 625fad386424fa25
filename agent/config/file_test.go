package config_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"example.com/iad/agent/config"
	"example.com/iad/mib"
)

// cause returns the failure cause that err carries, 0 if it carries none.
func cause(err error) mib.FailCause {
	return mib.CauseOf(err, 0)
}

func TestParseHeader(t *testing.T) {
	for _, c := range []struct {
		data   string
		kind   mib.FileType
		format uint32
	}{
		{"iad-config userData 1\nname = x\n", mib.FileTypeUserData, 1},
		{"iad-config portData 2\r\nport 1\r\n", mib.FileTypePortData, 2},
		{"iad-config protocolParams 4294967295", mib.FileTypeProtocolParams, 1<<32 - 1},
		{" iad-config\tdefaultParams  7 \n\n", mib.FileTypeDefaultParams, 7},
		{"iad-config otherData 3\n", mib.FileTypeOtherData, 3},
	} {
		kind, format, err := config.ParseHeader([]byte(c.data))
		if err != nil || kind != c.kind || format != c.format {
			t.Errorf("%q: %v %d %v, want %v %d", c.data, kind, format, err, c.kind, c.format)
		}
	}
	for _, bad := range []string{
		"", "\n", "iad-config userData\n", "iad-config userData 1 2\n", "iad_config userData 1\n",
		"iad-config software 1\n", "iad-config 2 1\n", "iad-config userdata 1\n",
		"iad-config userData 0\n", "iad-config userData -1\n", "iad-config userData 4294967296\n", "iad-config userData 0x1\n",
		"\niad-config userData 1\n", "\xef\xbb\xbfiad-config userData 1\n", "\xff\xfei\x00a\x00d\x00", "\xfe\xff\x00i\x00a\x00d",
		"iad-config userData 1" + strings.Repeat(" ", 200) + "\n",
	} {
		_, _, err := config.ParseHeader([]byte(bad))
		if cause(err) != mib.FailCauseConfigParseError {
			t.Errorf("%q: %v, want configParseError", bad, err)
		}
		if marked := bad != "" && bad[0] > 0x7f; marked != strings.Contains(fmt.Sprint(err), "byte order mark") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestHeaderAndBody(t *testing.T) {
	file := config.WithHeader(mib.FileTypePortData, 12, []byte("a\nb\n"))
	if want := "iad-config portData 12\na\nb\n"; string(file) != want {
		t.Fatalf("%q, want %q", file, want)
	}
	if got := config.Body(file); string(got) != "a\nb\n" {
		t.Fatalf("body %q", got)
	}
	if got := config.Body([]byte("iad-config portData 12")); len(got) != 0 {
		t.Fatalf("body of a file without one: %q", got)
	}
}

func TestKindNames(t *testing.T) {
	for i, k := range config.Kinds() {
		if int(k) != i+2 {
			t.Errorf("kind %v has number %d", k, k)
		}
		if back, ok := config.ParseKind(k.String()); !ok || back != k {
			t.Errorf("%v is parsed as %v", k, back)
		}
	}
	if k, ok := config.ParseKind("software"); ok {
		t.Errorf("%v is accepted as a kind of configuration data", k)
	}
}

func TestSetFormat(t *testing.T) {
	user := []byte("iad-config userData 2\n")
	if f, err := (config.Set{mib.FileTypeUserData: user, mib.FileTypePortData: []byte("iad-config portData 2\nx")}).Format(); f != 2 || err != nil {
		t.Errorf("format %d, %v", f, err)
	}
	for name, c := range map[string]struct {
		set  config.Set
		want mib.FailCause
	}{
		"empty":      {config.Set{}, mib.FailCauseConfigReadError},
		"mixed":      {config.Set{mib.FileTypeUserData: user, mib.FileTypePortData: []byte("iad-config portData 1\n")}, mib.FailCauseConfigFormatMismatch},
		"wrong kind": {config.Set{mib.FileTypePortData: user}, mib.FailCauseConfigParseError},
		"no header":  {config.Set{mib.FileTypePortData: []byte("port = 1\n")}, mib.FailCauseConfigParseError},
	} {
		if _, err := c.set.Format(); cause(err) != c.want {
			t.Errorf("%s: %v, want cause %d", name, err, c.want)
		}
	}
}

func TestSetDigest(t *testing.T) {
	set := config.Set{mib.FileTypeOtherData: []byte("last"), mib.FileTypeUserData: []byte("first"), mib.FileTypeProtocolParams: []byte("middle")}
	want := sha256.Sum256([]byte("firstmiddlelast"))
	if got := set.Digest(); !bytes.Equal(got, want[:]) {
		t.Errorf("digest %x, want %x", got, want)
	}
	if got := (config.Set{}).Digest(); got != nil {
		t.Errorf("digest of nothing %x", got)
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add([]byte("iad-config userData 1\nname = x\n"))
	f.Add([]byte("iad-config otherData 4294967295\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, format, err := config.ParseHeader(data)
		if err != nil {
			if cause(err) != mib.FailCauseConfigParseError {
				t.Fatalf("error without its cause: %v", err)
			}
			return
		}
		again, againFormat, err := config.ParseHeader(config.WithHeader(kind, format, config.Body(data)))
		if err != nil || again != kind || againFormat != format {
			t.Fatalf("%v %d does not survive being written: %v %d %v", kind, format, again, againFormat, err)
		}
	})
}
