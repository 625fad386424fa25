package command

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/afero"
	"github.com/spf13/pflag"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager"
	"example.com/iad/manager/files"
)

// keptFlags are flags that the journal keeps, so that a resumed upgrade is as safe as the
// original one. None contains a secret: identity names a file.
var keptFlags = []string{
	"allow-downgrade", "convert-with", "device-retries", "edit", "force", "identity", "on-fail", "protocol", "retries", "server", "server-ca", "server-pin", "skip-backup",
	"time-limit", "verify-with",
}

// kept returns the options of this call for the journal.
func (r *upgradeRun) kept() map[string][]string {
	kept := make(map[string][]string)
	for _, name := range keptFlags {
		if f := r.flags.Lookup(name); f.Changed {
			kept[name] = flagValues(f)
		}
	}
	// An upgrade may be resumed from another directory.
	here, err := os.Getwd()
	if err != nil {
		return kept
	}
	kept[keptDirectory] = []string{here}
	for _, name := range []string{"convert-with", "verify-with"} {
		if dir := r.inherited[name]; dir != "" && dir != here {
			kept[keptDirectory+" "+name] = []string{dir}
		}
	}
	for _, name := range []string{"server-ca", "identity"} {
		for i, file := range kept[name] {
			kept[name][i] = absolute(here, file)
		}
	}
	for i, policy := range kept["on-fail"] {
		if file, ok := strings.CutPrefix(policy, "other="); ok {
			kept["on-fail"][i] = "other=" + absolute(here, file)
		}
	}
	return kept
}

// keptDirectory is the directory in which the options of a journal were given, and their
// commands run. The name of a command follows if it was given elsewhere, to an earlier
// call.
const keptDirectory = "working-directory"

func absolute(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// openImageFile opens an image by its absolute path, which the journal keeps.
func openImageFile(name string) (*files.Image, error) {
	img, err := files.OpenImage(afero.NewOsFs(), name)
	if err != nil {
		return nil, err
	}
	img.Path, err = filepath.Abs(name)
	return img, err
}

func flagValues(f *pflag.Flag) []string {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return slices.Clone(list.GetSlice())
	}
	return []string{f.Value.String()}
}

// asBefore returns the run for a resumed device: with the options of the original call,
// unless they are given again.
func (r *upgradeRun) asBefore(journal *manager.FileJournal, reporter report.Reporter) (*upgradeRun, error) {
	record, err := journal.Load()
	if err != nil {
		return nil, err
	}
	again := *r
	o := &upgradeOptions{globals: r.globals}
	again.inherited = make(map[string]string)
	again.upgradeOptions, again.flags, again.policies = o, pflag.NewFlagSet("upgrade", pflag.ContinueOnError), nil
	o.register(again.flags)
	// Visit sorts the flags that it is called on, and devices are resumed concurrently.
	r.flagsMu.Lock()
	r.flags.Visit(func(f *pflag.Flag) {
		if again.flags.Lookup(f.Name) != nil && err == nil {
			err = setFlag(again.flags, f.Name, flagValues(f))
		}
	})
	r.flagsMu.Unlock()
	if err != nil {
		return nil, err
	}
	var options []string
	for _, name := range keptFlags {
		values, ok := record.Options[name]
		if !ok || again.flags.Changed(name) || name == "edit" && o.convertWith != "" || name == "convert-with" && o.edit {
			continue
		}
		if name == "on-fail" && !r.asks { // there is nobody to be asked now
			values = slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == string(manager.PolicyAsk) })
		}
		if err := setFlag(again.flags, name, values); err != nil {
			return nil, fmt.Errorf("journal: option --%s: %w", name, err)
		}
		for _, key := range []string{keptDirectory, keptDirectory + " " + name} {
			if directory := record.Options[key]; len(directory) == 1 {
				again.inherited[name] = directory[0]
			}
		}
		options = append(options, fmt.Sprintf("--%s=%s", name, strings.Join(values, ",")))
	}
	if len(options) > 0 {
		reporter.Line("    options of the interrupted upgrade: " + strings.Join(options, " "))
	}
	return &again, again.parse()
}

func setFlag(flags *pflag.FlagSet, name string, values []string) error {
	f := flags.Lookup(name)
	f.Changed = true
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	return f.Value.Set(strings.Join(values, ","))
}

// fileServers are the file servers of one call, one for each set of options: resumed
// devices may use another one than the rest.
type fileServers struct {
	store string
	log   *slog.Logger

	mu      sync.Mutex
	running map[string]files.FileServer
	stops   []func()
}

// open returns the file server for the options.
func (s *fileServers) open(o *fileServerOptions) (files.FileServer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := strings.Join([]string{o.protocol, o.server, o.serverPin, o.serverCA}, " ")
	if fs, ok := s.running[key]; ok {
		return fs, nil
	}
	fs, stop, err := o.open(s.store, s.log)
	if err != nil {
		return nil, err
	}
	if s.running == nil {
		s.running = make(map[string]files.FileServer)
	}
	s.running[key] = fs
	s.stops = append(s.stops, stop)
	return fs, nil
}

func (s *fileServers) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stop := range s.stops {
		stop()
	}
}
