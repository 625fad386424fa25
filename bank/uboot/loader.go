package uboot

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"example.com/iad/bank"
)

// A Loader keeps the loader's state in an environment, in the variables of one of the
// schemes below.
type Loader struct {
	Environment *Environment
	Scheme      Scheme
	Cmdline     Cmdline
}

// A Scheme says which variables stand for a state.
type Scheme interface {
	get(*Variables) (bank.LoaderState, error)
	set(*Variables, bank.LoaderState)
}

// Started returns the bank that the kernel's command line names.
func (l *Loader) Started() (int, string) { return l.Cmdline.started() }

// Load reads the state.
func (l *Loader) Load() (bank.LoaderState, error) {
	v, _, err := l.Environment.Load()
	if err != nil {
		if errors.Is(err, ErrLost) {
			err = fmt.Errorf("%w: %w", bank.ErrLoaderLost, err)
		}
		return bank.LoaderState{}, err
	}
	s, err := l.Scheme.get(v)
	if err != nil {
		return s, fmt.Errorf("%w: %w", bank.ErrLoaderLost, err)
	}
	return s, nil
}

// Store replaces the state. The environment's other variables stay.
func (l *Loader) Store(s bank.LoaderState) error {
	return l.Environment.Update(func(v *Variables) { l.Scheme.set(v, s) })
}

// Findings returns what is wrong with a copy of the environment.
func (l *Loader) Findings() []string {
	_, findings, _ := l.Environment.Load()
	return findings
}

// Variables that our own boot script reads and writes. Numbers are hexadecimal there.
const (
	varSequence = "iad_seq"
	varNext     = "iad_next"
	varLeft     = "iad_left"
	varFallback = "iad_fallback"
	// varLost is set by the boot script in a state that it made for want of one, and by
	// nobody else: it lasts until the agent stores its own.
	varLost = "iad_lost"
)

// ScriptEnvironment is the environment that the boot script in deploy/uboot keeps: two
// copies of so many bytes without flags, of which the one with the higher iad_seq counts.
func ScriptEnvironment(e Environment) *Environment {
	e.Newer, e.Sequence, e.Create = ByVariable, varSequence, true
	return &e
}

// Script is the scheme of our own boot script: iad_next, iad_left (not set: the software
// is good, and its starts are not counted) and iad_fallback.
type Script struct{}

func (Script) get(v *Variables) (s bank.LoaderState, err error) {
	if v.Get(varLost) != "" {
		return s, errors.New("the boot script had to make a new one")
	}
	if s.Next, err = hex(v, varNext, 1, 2); err != nil {
		return s, err
	}
	if s.Fallback, err = hex(v, varFallback, 0, 2); err != nil {
		return s, err
	}
	if s.Left = bank.Uncounted; v.Get(varLeft) != "" {
		s.Left, err = hex(v, varLeft, 0, maxStarts)
	}
	return s, err
}

func (Script) set(v *Variables, s bank.LoaderState) {
	v.Set(varNext, strconv.Itoa(s.Next))
	v.Set(varFallback, strconv.Itoa(s.Fallback))
	v.Set(varLost, "")
	v.Set(varLeft, "")
	if s.Left >= 0 {
		v.Set(varLeft, strconv.FormatInt(int64(s.Left), 16))
	}
}

// maxStarts is the highest number of starts that a variable may hold.
const maxStarts = 255

// hex reads a variable as U-Boot's setexpr and test do.
func hex(v *Variables, name string, least, most int) (int, error) {
	return number(v, name, 16, least, most)
}

func number(v *Variables, name string, base, least, most int) (int, error) {
	text := v.Get(name)
	if base == 16 {
		text = strings.TrimPrefix(text, "0x")
	}
	n, err := strconv.ParseUint(text, base, 16)
	if err != nil || int(n) < least || int(n) > most {
		return 0, fmt.Errorf("variable %s is %q, want %d to %d", name, v.Get(name), least, most)
	}
	return int(n), nil
}

// RAUC is the scheme of RAUC's boot scripts: BOOT_ORDER lists the banks by name, the one
// to start first, and BOOT_NAME_LEFT is how many starts each has left. These scripts
// count every start. iad_trial, which they leave alone, names the bank on trial.
type RAUC struct {
	Names [2]string // of bank 1 and bank 2; "" for A and B
}

const (
	varOrder    = "BOOT_ORDER"
	varTrial    = "iad_trial"
	raucStarts  = 3 // that RAUC gives to good software
	raucDefault = "AB"
)

func (r RAUC) name(n int) string {
	if r.Names[n-1] != "" {
		return r.Names[n-1]
	}
	return raucDefault[n-1 : n]
}

func (r RAUC) left(n int) string { return "BOOT_" + r.name(n) + "_LEFT" }

func (r RAUC) get(v *Variables) (s bank.LoaderState, err error) {
	order := v.Get(varOrder)
	switch a, b := r.name(1), r.name(2); order {
	case a:
		s.Next = 1
	case b:
		s.Next = 2
	case a + " " + b:
		s.Next, s.Fallback = 1, 2
	case b + " " + a:
		s.Next, s.Fallback = 2, 1
	default:
		return s, fmt.Errorf("variable %s is %q, want %q, %q or one of them", varOrder, order, a+" "+b, b+" "+a)
	}
	left, err := hex(v, r.left(s.Next), 0, maxStarts)
	if err != nil {
		return s, err
	}
	if s.Left = bank.Uncounted; v.Get(varTrial) == r.name(s.Next) {
		s.Left = left
	} else {
		s.Stale = left < raucStarts
	}
	if s.Fallback != 0 {
		left, err = hex(v, r.left(s.Fallback), 0, maxStarts)
		s.Stale = s.Stale || left < raucStarts
	}
	return s, err
}

func (r RAUC) set(v *Variables, s bank.LoaderState) {
	order := r.name(s.Next)
	left, trial := raucStarts, ""
	if s.Left >= 0 {
		left, trial = s.Left, r.name(s.Next)
	}
	v.Set(r.left(s.Next), strconv.FormatInt(int64(left), 16)) // setexpr of the boot script reads it
	if s.Fallback > 0 {
		order += " " + r.name(s.Fallback)
		v.Set(r.left(s.Fallback), strconv.Itoa(raucStarts))
	}
	v.Set(varOrder, order)
	v.Set(varTrial, trial)
}

// Bootcount is the scheme of U-Boot's boot counter: while upgrade_available is 1, U-Boot
// adds one to bootcount before each start, and runs altbootcmd instead of bootcmd once it
// exceeds bootlimit. altbootcmd has to select the other bank, clear upgrade_available and
// save the environment. The fallback is always the other bank, and only on trial.
type Bootcount struct {
	Variable string    // that names the bank to start
	Values   [2]string // of it, for bank 1 and bank 2
}

const (
	varAvailable = "upgrade_available"
	varCount     = "bootcount"
	varLimit     = "bootlimit"
)

func (b Bootcount) get(v *Variables) (s bank.LoaderState, err error) {
	switch v.Get(b.Variable) {
	case b.Values[0]:
		s.Next = 1
	case b.Values[1]:
		s.Next = 2
	default:
		return s, fmt.Errorf("variable %s is %q, want %q or %q", b.Variable, v.Get(b.Variable), b.Values[0], b.Values[1])
	}
	s.Left, s.Fallback = bank.Uncounted, bank.FallbackNotKept
	if v.Get(varAvailable) != "1" {
		return s, nil
	}
	limit, err := number(v, varLimit, 10, 0, maxStarts)
	if err != nil {
		return s, err
	}
	count := 0
	if v.Get(varCount) != "" {
		if count, err = number(v, varCount, 10, 0, 1<<16-1); err != nil {
			return s, err
		}
	}
	s.Left = max(0, limit-count)
	return s, nil
}

func (b Bootcount) set(v *Variables, s bank.LoaderState) {
	v.Set(b.Variable, b.Values[s.Next-1])
	v.Set(varCount, "0")
	if s.Left < 0 {
		v.Set(varAvailable, "0")
		return
	}
	// bootlimit 0 would switch the counter off: with no starts left, one is already used.
	limit := max(1, s.Left)
	v.Set(varAvailable, "1")
	v.Set(varLimit, strconv.Itoa(limit))
	v.Set(varCount, strconv.Itoa(limit-s.Left))
}
