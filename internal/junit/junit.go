// Package junit writes reports in the XML format of JUnit, which CI systems read. There is
// no standard: of the optional elements only those are written that the schemas of Ant and
// of Jenkins' xUnit plugin both know.
package junit

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// Suite is a report. Texts may hold anything; what XML cannot hold becomes "?".
type Suite struct {
	Name    string
	Host    string // what was tested
	Began   time.Time
	Seconds float64
	// Properties are pairs of names and values.
	Properties [][2]string
	Cases      []Case
	Output     string // of the program, for people
}

// Case is one thing that was tested. It passed unless Skipped, Failure or Error is given.
type Case struct {
	Name, Class string
	Seconds     float64
	Skipped     *Reason // was not tested
	Failure     *Reason
	Error       *Reason // could not be tested
}

// Reason is why a case did not pass.
type Reason struct {
	Message string
	Type    string
	Text    string
}

// The elements of a report.
type (
	suite struct {
		XMLName    xml.Name   `xml:"testsuite"`
		Name       string     `xml:"name,attr"`
		Tests      int        `xml:"tests,attr"`
		Failures   int        `xml:"failures,attr"`
		Errors     int        `xml:"errors,attr"`
		Skipped    int        `xml:"skipped,attr"`
		Time       string     `xml:"time,attr"`
		Timestamp  string     `xml:"timestamp,attr"`
		Host       string     `xml:"hostname,attr"`
		Properties []property `xml:"properties>property"`
		Cases      []testcase `xml:"testcase"`
		Output     string     `xml:"system-out"`
		Errout     string     `xml:"system-err"`
	}
	property struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	testcase struct {
		Name    string  `xml:"name,attr"`
		Class   string  `xml:"classname,attr"`
		Time    string  `xml:"time,attr"`
		Skipped *reason `xml:"skipped,omitempty"`
		Error   *reason `xml:"error,omitempty"`
		Failure *reason `xml:"failure,omitempty"`
	}
	reason struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr,omitempty"`
		Text    string `xml:",chardata"`
	}
)

// Write writes the report.
func (s *Suite) Write(w io.Writer) error {
	out := suite{
		Name: printable(s.Name), Timestamp: s.Began.UTC().Format("2006-01-02T15:04:05"), Host: printable(s.Host),
		Time: seconds(s.Seconds), Tests: len(s.Cases), Output: printable(s.Output),
	}
	for _, p := range s.Properties {
		out.Properties = append(out.Properties, property{printable(p[0]), printable(p[1])})
	}
	for _, c := range s.Cases {
		out.Cases = append(out.Cases, testcase{
			Name: printable(c.Name), Class: printable(c.Class), Time: seconds(c.Seconds),
			Skipped: element(c.Skipped, &out.Skipped), Error: element(c.Error, &out.Errors), Failure: element(c.Failure, &out.Failures),
		})
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }

// element makes and counts the element of a reason.
func element(r *Reason, count *int) *reason {
	if r == nil {
		return nil
	}
	*count++
	return &reason{printable(r.Message), printable(r.Type), printable(r.Text)}
}

// printable replaces what XML cannot hold.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r == 0xfffe || r == 0xffff {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
