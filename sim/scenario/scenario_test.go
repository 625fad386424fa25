package scenario_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"example.com/iad/sim/scenario"
)

// Devices are named by numbers, ranges and IDs; actions have the form of the commands.
func TestParse(t *testing.T) {
	const rest = "\n[[expect]]\nstate = 'running'\n"
	for do, want := range map[string]string{
		"fault 1 stall":                     "",
		"fault SIM-00003,1-2 silent,for=1s": "",
		"clear all":                         "",
		"clear all silent":                  "",
		"power 5 off":                       "",
		"restart 1-5":                       "",
		"set 2 calls=3":                     "",
		"fault 6 stall":                     "want numbers from 1 to 5",
		"fault 0 stall":                     "want numbers from 1 to 5",
		"fault 3-2 stall":                   "want numbers from 1 to 5",
		"fault SIM-00006 stall":             "want numbers from 1 to 5",
		"fault 1":                           "want fault DEVICES FAULT",
		"fault 1 fire":                      "unknown kind",
		"clear 1 fire":                      "unknown kind",
		"clear 1 stall silent":              "want clear DEVICES [KIND]",
		"power 1":                           "want power DEVICES off|on|cut",
		"restart 1 now":                     "want restart DEVICES",
		"set 1 calls=-1":                    "is not a setting",
		"explode 1":                         "unknown action",
		"restart":                           "want fault, clear, power, restart or set",
	} {
		_, err := scenario.Parse([]byte("[fleet]\ndevices = 5\n[[when]]\nafter = '1s'\ndo = ['"+do+"']"+rest), ".")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", do, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	list, err := filepath.Glob("../../deploy/scenarios/*.toml")
	if err != nil || len(list) == 0 {
		f.Fatalf("%q, %v", list, err)
	}
	for _, name := range list {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("[[when]]\ndevice = '1-5,SIM-00003'\nphase = 'trying'\ndo = ['set all calls=1']\n[[expect]]\ndevices = 'faulty'\nstate = 'off'\nat-most = 3"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := scenario.Parse(text, ".")
		if err != nil {
			return
		}
		for i := range s.Expect {
			_ = s.Expect[i].String()
		}
		for i := range s.Steps {
			_ = s.Steps[i].String()
		}
	})
}
