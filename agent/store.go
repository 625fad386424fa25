package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"example.com/iad/agent/config"
	"example.com/iad/agent/procedure"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// store is the configuration data of the device as the procedure sees them.
type store struct{ *device }

var _ procedure.ConfigStore = store{}

func (s store) Status() procedure.ConfigStatus {
	g := s.config.InForce()
	return procedure.ConfigStatus{Generation: g.Number, Format: s.format(), Digest: g.Digest, Applied: g.Applied,
		NeedsReset: s.unused.Load() || s.needsReset.Load()}
}

// Collect gives a kind that the generation lacks as its first line alone, so
// that the recovery of a backup puts back exactly what there was.
func (s store) Collect(_ context.Context, kinds procedure.FileSet) (procedure.ConfigFiles, uint32, error) {
	g := s.config.InForce()
	set, err := s.config.Read(g.Number)
	if err != nil {
		return nil, 0, err
	}
	format := g.Format
	if g.Number == 0 {
		format = s.format()
	}
	if format == 0 {
		return nil, 0, &procedure.Failure{Code: mib.FailCausePreconditionMissing,
			Text: "rescue mode: no software runs, and no configuration data are in force that could be sent"}
	}
	files := procedure.ConfigFiles{}
	for _, k := range kinds.Kinds() {
		data, ok := set[k]
		if !ok {
			data = config.WithHeader(k, format, nil)
		}
		files[k] = data
	}
	return files, format, s.seal(files)
}

func (s store) Examine(files procedure.ConfigFiles) (procedure.ConfigFiles, uint32, error) {
	plain := procedure.ConfigFiles{}
	for k, data := range files {
		data, err := s.unseal(k, data)
		if err != nil {
			return nil, 0, err
		}
		if int64(len(data)) > s.maxFile {
			return nil, 0, &procedure.Failure{Code: mib.FailCauseFileTooLarge,
				Text: fmt.Sprintf("%s has %d bytes, %d fit", k, len(data), s.maxFile)}
		}
		plain[k] = data
	}
	format, err := config.Set(plain).Format()
	return plain, format, err
}

func (s store) HasOtherFormat() bool {
	_, ok := s.other()
	return ok
}

// other is what was in force before, if that is in another format: what is newer
// may have been given up. Only without it, or if that holds nothing, the newest in
// another format counts.
func (s store) other() (config.Generation, bool) {
	another := func(format uint32) bool { return format != s.format() }
	if g, ok := s.config.Before(); ok && another(g.Format) && !g.Bare {
		return g, true
	}
	return s.config.Newest(another)
}

func (s store) OtherFormat(_ context.Context) (procedure.ConfigFiles, uint32, bool, error) {
	g, ok := s.other()
	if !ok {
		return nil, 0, false, nil
	}
	set, err := s.config.Read(g.Number)
	if err != nil {
		return nil, 0, false, err
	}
	return procedure.ConfigFiles(set), g.Format, true, nil
}

// converter finds the conversion program: one of the running software, or the
// board's own.
func (d *device) converter(from, to uint32) (Program, bool) {
	n := d.banks.Known().Running
	if m, err := d.banks.Manifest(n); err == nil {
		if payload := m.Converter(from, to); payload != "" {
			return Program{Bank: n, Payload: payload}, true
		}
	}
	return Program{}, d.platform.CanConvert(from, to)
}

// ConvertPrefix begins the names of directories in Platform.Work with configuration data that are being converted. A platform
// removes what an agent that was killed left in them.
const ConvertPrefix = "convert-"

func (s store) Convert(ctx context.Context, from, to uint32, files procedure.ConfigFiles) (_ procedure.ConfigFiles, err error) {
	program, ok := s.converter(from, to)
	if !ok {
		return nil, &procedure.Failure{Code: mib.FailCauseConvertToolMissing,
			Text: fmt.Sprintf("neither the running software nor the device has a program that converts format %d to %d", from, to)}
	}
	// A directory that no other run ever had: a program that outlived the agent
	// that started it may still be writing into its own.
	others := func(name string) bool { return !strings.HasPrefix(name, ConvertPrefix) }
	if err := durable.Clear(s.work, ".", others); err != nil {
		s.log.Warn("what is left of an earlier conversion could not be removed", "err", err)
	}
	dir := ConvertPrefix + rand.Text()
	if err := s.work.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	defer func() {
		if e := s.work.RemoveAll(dir); e != nil && !errors.Is(e, fs.ErrNotExist) {
			s.log.Warn("the directory of the conversion could not be removed", "err", e)
		}
	}()
	set, err := config.Convert(ctx, runner{s.platform, program}, s.work, dir, from, to, config.Set(files), s.maxFile)
	if err != nil {
		return nil, err
	}
	return procedure.ConfigFiles(set), nil
}

// runner runs one conversion program.
type runner struct {
	platform Platform
	program  Program
}

func (r runner) Convert(ctx context.Context, from, to uint32, inDir, outDir string) error {
	return r.platform.Convert(ctx, Conversion{Program: r.program, From: from, To: to, InDir: inDir, OutDir: outDir})
}

func (s store) Check(_ context.Context, files procedure.ConfigFiles) error {
	set := config.Set(files)
	format, err := set.Format()
	if err != nil {
		return err
	}
	if want := s.format(); format != want {
		return &procedure.Failure{Code: mib.FailCauseConfigFormatMismatch,
			Text: fmt.Sprintf("the files are of format %d, the running software reads format %d", format, want)}
	}
	return s.platform.CheckConfig(set)
}

// Apply has the platform put files to use, then puts them in force and has the
// running bank remember them. If any of it fails, what was in force before is
// put to use again. A power cut in the middle leaves what was in force before:
// the start puts it to use.
func (s store) Apply(ctx context.Context, files procedure.ConfigFiles) (needsReset bool, err error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	before := s.config.InForce()
	staged, err := s.config.Stage(config.Set(files))
	if err != nil {
		return false, err
	}
	if staged.Generation().Bare {
		s.log.Warn("the configuration files hold no settings: the software gets its defaults; the last settings are kept")
	}
	needsReset, err = s.platform.ApplyConfig(ctx, staged.Generation(), staged.Set())
	if err != nil {
		err = errors.Join(applyError(err), staged.Discard())
	} else if err = s.putInForce(staged, before); err == nil {
		s.unused.Store(false)
		s.needsReset.Store(false)
		return needsReset, nil
	}
	if back := s.goBack(ctx, before); back != nil {
		err = alsoFailed(err, back)
		s.log.Error("the previous configuration data could not be put to use again", "generation", before.Number, "err", back)
	}
	return false, err
}

// alsoFailed adds to an error that the previous data are not in use either.
func alsoFailed(err, back error) error {
	f := &procedure.Failure{Code: mib.CauseOf(err, mib.FailCauseConfigApplyError), Text: err.Error()}
	var first, second *procedure.Failure
	if errors.As(err, &first) {
		f.Text = first.Text
	}
	text := back.Error()
	if errors.As(back, &second) {
		text = second.Text
	}
	f.Text = fmt.Sprintf("the previous data are not in use either: %s; %s", text, f.Text)
	return f
}

// applyError gives an error of the platform its cause.
func applyError(err error) error {
	if mib.CauseOf(err, 0) != 0 {
		return err
	}
	return &procedure.Failure{Code: mib.FailCauseConfigApplyError, Text: err.Error()}
}

// store puts a staged generation in force.
func (s store) putInForce(staged *config.Staged, before config.Generation) error {
	g, err := staged.Commit(s.clock.Now())
	if err != nil {
		return errors.Join(err, staged.Discard())
	}
	err = s.recordGeneration(g.Number)
	if err != nil && before.Number == 0 {
		// A bank that remembers nothing gets what is in force.
		s.log.Warn("the generation could not be noted with the bank", "generation", g.Number, "err", err)
		return nil
	}
	return err
}

// goBack puts to use, and in force, what was in force before.
func (d *device) goBack(ctx context.Context, before config.Generation) error {
	g := d.config.InForce()
	var err error
	if g.Number != before.Number {
		g, err = d.config.Boot(d.format(), before.Number)
	}
	set, rerr := d.config.Read(g.Number)
	if rerr == nil {
		rerr = d.use(ctx, g, set)
	}
	return errors.Join(err, rerr)
}

func (s store) MaxFile() int64 {
	if s.backupKey == nil {
		return s.maxFile
	}
	return s.maxFile + s.maxFile/1024 + maxEnvelope
}
