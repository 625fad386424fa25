package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	"example.com/iad/fleet"
)

// Kind is what the values of a field are.
type Kind string

// Kinds of fields.
const (
	Text     Kind = "text"
	Version  Kind = "version" // a text that has an order; see VersionKey
	Number   Kind = "number"
	Bool     Kind = "true or false"
	Duration Kind = "duration" // such as "36h"
	Tags     Kind = "tags"
)

// Field is something of a device that filters can use.
type Field struct {
	Name    string
	Kind    Kind
	Meaning string
	text    func(*fleet.Device) string
	number  func(*fleet.Device) int64
	truth   func(*fleet.Device) bool
}

var fields = []Field{
	{Name: "name", Kind: Text, Meaning: "the name in the inventory", text: func(d *fleet.Device) string { return d.Name }},
	{Name: "address", Kind: Text, Meaning: "host, or host and port", text: func(d *fleet.Device) string { return d.Address }},
	{Name: "site", Kind: Text, Meaning: "the site; empty: none", text: func(d *fleet.Device) string { return d.Site }},
	{Name: "pool", Kind: Text, Meaning: "the workers that reach the device", text: func(d *fleet.Device) string { return d.PoolName() }},
	{Name: "tags", Kind: Tags, Meaning: "the tags"},
	{Name: "credentials", Kind: Text, Meaning: "the name of its credentials", text: func(d *fleet.Device) string { return d.SecretName() }},
	{Name: "previous_credentials", Kind: Text, Meaning: "the names of the credentials that are tried if the device refuses these, with spaces between them", text: PreviousCredentials},
	{Name: "rotating", Kind: Text, Meaning: "the campaign that has begun to change the credentials, as long as the device has not shown that it accepts them; empty: none",
		text: func(d *fleet.Device) string { return d.Rotating }},
	{Name: "note", Kind: Text, Meaning: "the note", text: func(d *fleet.Device) string { return d.Note }},
	{Name: "device_id", Kind: Text, Meaning: "the device ID; empty: not known yet", text: func(d *fleet.Device) string {
		if d.Identity == nil {
			return ""
		}
		return d.Identity.Device
	}},
	{Name: "model", Kind: Text, Meaning: "the model", text: func(d *fleet.Device) string { return facts(d).Model }},
	{Name: "hardware", Kind: Text, Meaning: "the hardware", text: func(d *fleet.Device) string { return facts(d).Hardware }},
	{Name: "version", Kind: Version, Meaning: "the version of the software that runs; empty: rescue mode, or not known", text: func(d *fleet.Device) string { return facts(d).Version }},
	{Name: "format", Kind: Number, Meaning: "the format of configuration data that the software reads", number: func(d *fleet.Device) int64 { return int64(facts(d).ConfigFormat) }},
	{Name: "generation", Kind: Number, Meaning: "the generation of the configuration data in force; 0: defaults", number: func(d *fleet.Device) int64 { return int64(facts(d).Generation) }},
	{Name: "known", Kind: Bool, Meaning: "the device has answered at least once", truth: func(d *fleet.Device) bool { return d.Facts != nil }},
	{Name: "reachable", Kind: Bool, Meaning: "the device answered the last time", truth: func(d *fleet.Device) bool { return Reachable(d) }},
	{Name: "silent", Kind: Duration, Meaning: "the time since the device answered last; of devices that never did, longer than any other"},
	{Name: "busy", Kind: Bool, Meaning: "a campaign works on the device now", truth: func(d *fleet.Device) bool { return d.ActiveRun != "" }},
	{Name: "last_campaign", Kind: Text, Meaning: "the campaign that worked on the device last", text: func(d *fleet.Device) string { return d.LastCampaign }},
	{Name: "last_outcome", Kind: Text, Meaning: "how that ended: succeeded, unchanged, failed or canceled", text: func(d *fleet.Device) string { return string(d.LastOutcome) }},
}

// PreviousCredentials returns the value of the field previous_credentials.
func PreviousCredentials(d *fleet.Device) string { return strings.Join(d.PreviousCredentials, " ") }

func facts(d *fleet.Device) fleet.Facts {
	if d.Facts == nil {
		return fleet.Facts{}
	}
	return *d.Facts
}

// Reachable reports whether a device answered the last time.
func Reachable(d *fleet.Device) bool { return !d.Contact.Time.IsZero() && d.Contact.Problem == "" }

// LastAnswer returns when a device answered last; zero: never.
func LastAnswer(d *fleet.Device) time.Time {
	if Reachable(d) {
		return d.Contact.Time
	}
	return d.Contact.Since
}

// Fields lists the fields that filters can use.
func Fields() []Field { return slices.Clone(fields) }

// FieldOf returns the field with a name.
func FieldOf(name string) (Field, bool) {
	i := slices.IndexFunc(fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return fields[i], true
}

// Text returns the value of a field of the kind Text or Version.
func (f Field) Text(d *fleet.Device) string { return f.text(d) }

// Number returns the value of a field of the kind Number.
func (f Field) Number(d *fleet.Device) int64 { return f.number(d) }

// Truth returns the value of a field of the kind Bool.
func (f Field) Truth(d *fleet.Device) bool { return f.truth(d) }

// Op is how a Test compares.
type Op string

// The operators of tests.
const (
	Equal        Op = "=="
	NotEqual     Op = "!="
	Less         Op = "<"
	LessEqual    Op = "<="
	Greater      Op = ">"
	GreaterEqual Op = ">="
	In           Op = "in" // of tags: the tag Texts[0] is among them
	Contains     Op = "contains"
	StartsWith   Op = "startsWith"
	EndsWith     Op = "endsWith"
)

// Node is a part of a filter: an And, Or, Not, Const or Test.
type Node interface {
	match(d *fleet.Device, now time.Time) bool
}

// And selects what both parts select.
type And struct{ Left, Right Node }

// Or selects what any of its parts selects.
type Or struct{ Left, Right Node }

// Not selects what its part does not.
type Not struct{ Of Node }

// Const selects everything or nothing.
type Const bool

// Test compares a field with a value.
type Test struct {
	Field    Field
	Op       Op            // of a field of the kind Bool: Equal, with true
	Texts    []string      // for Text, Version and Tags; more than one with In
	Number   int64         // for Number
	Duration time.Duration // for Duration
}

func (n And) match(d *fleet.Device, now time.Time) bool {
	return n.Left.match(d, now) && n.Right.match(d, now)
}
func (n Or) match(d *fleet.Device, now time.Time) bool {
	return n.Left.match(d, now) || n.Right.match(d, now)
}
func (n Not) match(d *fleet.Device, now time.Time) bool { return !n.Of.match(d, now) }
func (n Const) match(*fleet.Device, time.Time) bool     { return bool(n) }

func (n Test) match(d *fleet.Device, now time.Time) bool {
	switch n.Field.Kind {
	case Tags:
		return slices.Contains(d.Tags, n.Texts[0])
	case Bool:
		return n.Field.truth(d)
	case Number:
		return compare(n.Op, cmp.Compare(n.Field.number(d), n.Number))
	case Duration: // longer silent is answered earlier
		return compare(n.Op, -LastAnswer(d).Compare(now.Add(-n.Duration)))
	}
	value := n.Field.text(d)
	switch n.Op {
	case Equal, NotEqual:
		return (value == n.Texts[0]) == (n.Op == Equal)
	case In:
		return slices.Contains(n.Texts, value)
	case Contains:
		return strings.Contains(value, n.Texts[0])
	case StartsWith:
		return strings.HasPrefix(value, n.Texts[0])
	case EndsWith:
		return strings.HasSuffix(value, n.Texts[0])
	}
	return compare(n.Op, strings.Compare(VersionKey(value), VersionKey(n.Texts[0])))
}

func compare(op Op, order int) bool {
	switch op {
	case Equal:
		return order == 0
	case NotEqual:
		return order != 0
	case Less:
		return order < 0
	case LessEqual:
		return order <= 0
	case Greater:
		return order > 0
	}
	return order >= 0
}

// Filter selects devices.
type Filter struct {
	root Node
	text string
}

// maxFilter is the maximum length of a filter, in bytes.
const maxFilter = 4000

// Compile compiles a filter. Its error says where the mistake is.
func Compile(text string) (*Filter, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New(`empty; "true" selects all devices`)
	}
	if len(text) > maxFilter {
		return nil, fmt.Errorf("longer than %d bytes", maxFilter)
	}
	tree, err := parser.Parse(text)
	if err != nil {
		var where *file.Error
		if errors.As(err, &where) {
			return nil, fmt.Errorf("column %d: %s", where.Column+1, where.Message)
		}
		return nil, err
	}
	root, err := truth(tree.Node)
	if err != nil {
		return nil, err
	}
	return &Filter{root: root, text: text}, nil
}

// Check returns a *fleet.FieldError with this field if a filter does not compile.
func Check(field, text string) error {
	if _, err := Compile(text); err != nil {
		return &fleet.FieldError{Field: field, Problem: err.Error()}
	}
	return nil
}

// String returns the text of the filter.
func (f *Filter) String() string { return f.text }

// Root returns the expression.
func (f *Filter) Root() Node { return f.root }

// Match reports whether the filter selects a device at a time.
func (f *Filter) Match(d *fleet.Device, now time.Time) bool { return f.root.match(d, now) }

// problem is an error at a node of the text.
func problem(n ast.Node, format string, args ...any) error {
	return fmt.Errorf("column %d: %s", n.Location().From+1, fmt.Sprintf(format, args...))
}

// truth converts an expression that is true or false.
func truth(n ast.Node) (Node, error) {
	switch n := n.(type) {
	case *ast.BoolNode:
		return Const(n.Value), nil
	case *ast.UnaryNode:
		if n.Operator == "not" || n.Operator == "!" {
			of, err := truth(n.Node)
			return Not{of}, err
		}
	case *ast.IdentifierNode:
		f, err := field(n)
		if err == nil && f.Kind != Bool {
			err = problem(n, "compare %s with a value", f.Name)
		}
		return Test{Field: f, Op: Equal}, err
	case *ast.BinaryNode:
		switch n.Operator {
		case "and", "&&", "or", "||":
			left, err := truth(n.Left)
			if err != nil {
				return nil, err
			}
			right, err := truth(n.Right)
			if n.Operator == "and" || n.Operator == "&&" {
				return And{left, right}, err
			}
			return Or{left, right}, err
		}
		return test(n)
	}
	return nil, problem(n, "not a comparison")
}

func field(n *ast.IdentifierNode) (Field, error) {
	if f, ok := FieldOf(n.Value); ok {
		return f, nil
	}
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
	}
	return Field{}, problem(n, "unknown field %.40q (want %s)", n.Value, strings.Join(names, ", "))
}

// test converts a comparison.
func test(n *ast.BinaryNode) (Node, error) {
	op := Op(n.Operator)
	left, right := n.Left, n.Right
	if name, ok := right.(*ast.IdentifierNode); ok && op == In {
		return tagTest(left, name)
	}
	name, ok := left.(*ast.IdentifierNode)
	if !ok {
		return nil, problem(left, "must be the name of a field")
	}
	f, err := field(name)
	if err != nil {
		return nil, err
	}
	t := Test{Field: f, Op: op}
	switch f.Kind {
	case Bool:
		value, ok := right.(*ast.BoolNode)
		if !ok || op != Equal && op != NotEqual {
			return nil, problem(n, "%s is true or false and stands alone", f.Name)
		}
		t.Op = Equal
		if value.Value != (op == Equal) {
			return Not{t}, nil
		}
		return t, nil
	case Tags:
		return nil, problem(n, `write "TAG" in tags`)
	case Number, Duration:
		if !slices.Contains([]Op{Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual}, op) {
			return nil, problem(n, "%s is compared with ==, !=, <, <=, > or >=", f.Name)
		}
		if f.Kind == Number {
			value, ok := right.(*ast.IntegerNode)
			if !ok {
				return nil, problem(right, "%s is a number", f.Name)
			}
			t.Number = int64(value.Value)
			return t, nil
		}
		value, ok := right.(*ast.StringNode)
		if ok {
			t.Duration, err = time.ParseDuration(value.Value)
		}
		if !ok || err != nil || t.Duration < 0 {
			return nil, problem(right, `%s is compared with a duration such as "36h"`, f.Name)
		}
		return t, nil
	}
	return textTest(n, t)
}

// textTest completes a test of a text or a version.
func textTest(n *ast.BinaryNode, t Test) (Node, error) {
	switch t.Op {
	case Less, LessEqual, Greater, GreaterEqual:
		if t.Field.Kind != Version {
			return nil, problem(n, "%s has no order: compare it with ==, !=, in, contains, startsWith or endsWith", t.Field.Name)
		}
	case In:
		list, ok := n.Right.(*ast.ArrayNode)
		if !ok || len(list.Nodes) == 0 {
			return nil, problem(n.Right, `in requires a list such as ["a", "b"]`)
		}
		for _, element := range list.Nodes {
			value, ok := element.(*ast.StringNode)
			if !ok {
				return nil, problem(element, "%s is a text: put it in quotation marks", t.Field.Name)
			}
			t.Texts = append(t.Texts, value.Value)
		}
		return t, nil
	case Equal, NotEqual, Contains, StartsWith, EndsWith:
	default:
		return nil, problem(n, "%s is compared with ==, !=, in, contains, startsWith or endsWith", t.Field.Name)
	}
	value, ok := n.Right.(*ast.StringNode)
	if !ok {
		return nil, problem(n.Right, "%s is a text: put it in quotation marks", t.Field.Name)
	}
	t.Texts = []string{value.Value}
	return t, nil
}

func tagTest(left ast.Node, name *ast.IdentifierNode) (Node, error) {
	f, err := field(name)
	if err != nil {
		return nil, err
	}
	if f.Kind != Tags {
		return nil, problem(name, `in requires tags, or a list such as ["a", "b"]`)
	}
	value, ok := left.(*ast.StringNode)
	if !ok {
		return nil, problem(left, "a tag is a text: put it in quotation marks")
	}
	return Test{Field: f, Op: In, Texts: []string{value.Value}}, nil
}
