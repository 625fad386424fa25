package board

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"example.com/iad/agent"
	"example.com/iad/internal/durable"
)

// SelfTestLog is the file in Platform.State with the output of the last self-test
// that the agent ran.
const SelfTestLog = "selftest.log"

// MaxSelfTestOutput is how much of the end of a self-test's output is kept and
// logged, in bytes.
const MaxSelfTestOutput = 16 << 10

// SelfTest runs the self-test: exit status 0 means healthy. The program sees
// IAD_BANK (its directory), IAD_VERSION, and IAD_CONFIG: the directory with the
// configuration files in force, or "none" on the defaults. The end of its output goes
// to Log and to the file SelfTestLog in State.
func (p *Platform) SelfTest(ctx context.Context, t agent.SelfTest) error {
	output, ran, err := p.RunSelfTest(ctx, t)
	if ran {
		p.keepOutput(t, output, err)
	}
	return err
}

// RunSelfTest is SelfTest, but only returns the output, MaxOutput bytes of its end at
// most. ran is false if there is no program to run.
func (p *Platform) RunSelfTest(ctx context.Context, t agent.SelfTest) (output []byte, ran bool, err error) {
	payload := p.payload(t.Program)
	path := cmp.Or(payload, p.SelfTestProgram)
	if path == "" {
		return nil, false, nil
	}
	settings := "none"
	if t.Generation != 0 {
		settings = p.Applied
	}
	output, err = Run(ctx, Command{Path: path, Temp: p.Work, Limit: p.Limit, User: p.As, Env: []string{
		"IAD_BANK=" + p.Banks[t.Bank-1], "IAD_VERSION=" + t.Version, "IAD_CONFIG=" + settings,
	}})
	return output, true, boardFault(err, payload, p.As)
}

// keepOutput logs the output of a self-test and writes it to State. Neither is worth
// failing for.
func (p *Platform) keepOutput(t agent.SelfTest, output []byte, err error) {
	result := "passed"
	if err != nil {
		result = err.Error()
	}
	if excess := len(output) - MaxSelfTestOutput; excess > 0 {
		output = output[excess:]
		if _, rest, found := bytes.Cut(output, []byte("\n")); found {
			output = rest // whole lines
		}
		output = append(fmt.Appendf(nil, "(only the end, %d bytes of it)\n", len(output)), output...)
	}
	if p.Log != nil {
		level := slog.LevelInfo
		if err != nil {
			level = slog.LevelError
		}
		p.Log.Log(context.Background(), level, "self-test", "bank", t.Bank, "version", t.Version, "result", result, "output", string(output))
	}
	if p.State == "" {
		return
	}
	head := fmt.Sprintf("%s bank %d, version %s: %s\n", time.Now().UTC().Format(time.RFC3339), t.Bank, t.Version, result)
	if err := durable.ReplaceFile(Directory(p.State), SelfTestLog, append([]byte(head), output...), 0o600); err != nil && p.Log != nil {
		p.Log.Warn("the output of the self-test could not be kept", "err", err)
	}
}
