package uboot_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/bank/uboot"
	"example.com/iad/internal/peers"
)

const envSize = 0x2000

// fwConfig writes a fw_env.config that places so many copies into one file, and returns
// its path and the file's.
func fwConfig(t *testing.T, copies int) (config, image string) {
	t.Helper()
	dir := t.TempDir()
	config, image = filepath.Join(dir, "fw_env.config"), filepath.Join(dir, "disk")
	text := "# device offset size\n"
	for i := range copies {
		text += fmt.Sprintf("%s %#x %#x\n", image, 0x1000+i*0x4000, envSize)
	}
	for name, data := range map[string][]byte{config: []byte(text), image: make([]byte, 0x9000)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config, image
}

func run(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(peers.Find(t, name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func open(t *testing.T, config string) *uboot.Environment {
	t.Helper()
	file, err := os.Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	e, err := uboot.ReadConfig(file, binary.NativeEndian)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// TestToolsAgree lets fw_setenv and this package change the same environment in turn.
// Each must see what the other one wrote, also when the counter of the copies wraps.
func TestToolsAgree(t *testing.T) {
	for copies := 1; copies <= 2; copies++ {
		t.Run(fmt.Sprintf("%d copies", copies), func(t *testing.T) {
			config, image := fwConfig(t, copies)
			start := filepath.Join(t.TempDir(), "env.bin")
			args := []string{"-s", fmt.Sprint(envSize), "-o", start, "-"}
			if copies == 2 {
				args = append([]string{"-r"}, args...)
			}
			run(t, "bootcmd=run distro_bootcmd\nboard=iad=4fxs\n", "mkenvimage", args...)
			data, err := os.ReadFile(start)
			if err != nil {
				t.Fatal(err)
			}
			disk, _ := os.ReadFile(image)
			copy(disk[0x1000:], data)
			if err := os.WriteFile(image, disk, 0o600); err != nil {
				t.Fatal(err)
			}
			e := open(t, config)
			rounds := 3
			if copies == 2 {
				rounds = 140 // two writes each: past 255
			}
			for i := range rounds {
				ours, theirs := fmt.Sprintf("ours %d", i), fmt.Sprintf("theirs %d", i)
				if err := e.Update(func(v *uboot.Variables) { v.Set("from_iad", ours) }); err != nil {
					t.Fatal(err)
				}
				if got := strings.TrimSpace(run(t, "", "fw_printenv", "-c", config, "-n", "from_iad")); got != ours {
					t.Fatalf("round %d: fw_printenv read %q, want %q", i, got, ours)
				}
				run(t, "", "fw_setenv", "-c", config, "from_fw", theirs)
				v, _, err := e.Load()
				if err != nil {
					t.Fatal(err)
				}
				if got := v.Get("from_fw"); got != theirs || v.Get("from_iad") != ours {
					t.Fatalf("round %d: read %q and %q", i, got, v.Get("from_iad"))
				}
			}
			for _, want := range []string{"bootcmd=run distro_bootcmd", "board=iad=4fxs"} {
				if out := run(t, "", "fw_printenv", "-c", config); !strings.Contains(out, want+"\n") {
					t.Errorf("%q was lost:\n%s", want, out)
				}
			}
		})
	}
}

// TestSchemesAreReadByTools stores a state in each scheme and reads the variables with
// fw_printenv.
func TestSchemesAreReadByTools(t *testing.T) {
	config, image := fwConfig(t, 2)
	run(t, "bootcmd=x\n", "mkenvimage", "-r", "-s", fmt.Sprint(envSize), "-o", image+".env", "-")
	data, _ := os.ReadFile(image + ".env")
	disk, _ := os.ReadFile(image)
	copy(disk[0x1000:], data)
	if err := os.WriteFile(image, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range schemeVariables {
		l := &uboot.Loader{Environment: open(t, config), Scheme: schemes[name]}
		if err := l.Store(trial); err != nil {
			t.Fatal(err)
		}
		for _, line := range want {
			variable, value, _ := strings.Cut(line, "=")
			if got := strings.TrimSpace(run(t, "", "fw_printenv", "-c", config, "-n", variable)); got != value {
				t.Errorf("%s: %s is %q, want %q", name, variable, got, value)
			}
		}
	}
}

// TestEnvironmentIsWhatMkenvimageMakes compares whole images of both kinds and both byte
// orders.
func TestEnvironmentIsWhatMkenvimageMakes(t *testing.T) {
	for _, big := range []bool{false, true} {
		for copies := 1; copies <= 2; copies++ {
			config, image := fwConfig(t, copies)
			e := open(t, config)
			e.Order, e.Create = binary.LittleEndian, true
			var args []string
			if big {
				e.Order, args = binary.BigEndian, append(args, "-b")
			}
			if copies == 2 {
				args = append(args, "-r")
			}
			run(t, "a=1\nb=two words\n", "mkenvimage", append(args, "-p", "0", "-s", fmt.Sprint(envSize), "-o", image+".want", "-")...)
			if err := e.Update(func(v *uboot.Variables) { v.Set("a", "1"); v.Set("b", "two words") }); err != nil {
				t.Fatal(err)
			}
			want, _ := os.ReadFile(image + ".want")
			disk, _ := os.ReadFile(image)
			got := disk[0x1000 : 0x1000+envSize]
			if !bytes.Equal(got, want) {
				t.Errorf("big endian %v, %d copies: differs from mkenvimage:\n%q\n%q", big, copies, got[:32], want[:32])
			}
		}
	}
}
