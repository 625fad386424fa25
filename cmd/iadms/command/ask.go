package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/manager"
	"example.com/iad/manager/files"
)

// terminalOperator asks a person at the terminal.
type terminalOperator struct {
	in    io.Reader
	out   report.Reporter
	lines chan string // read from in, closed at its end
}

var _ manager.Operator = (*terminalOperator)(nil)

// choiceTexts are the answers and their explanations.
var choiceTexts = map[manager.Choice]struct{ key, text string }{
	manager.Retry:        {"r", "try again"},
	manager.OtherFile:    {"f", "try with another image file"},
	manager.RestoreOld:   {"o", "roll back to the old software"},
	manager.Modify:       {"e", "edit the configuration data"},
	manager.KeepNewer:    {"k", "keep the newer configuration data, and end"},
	manager.GiveLast:     {"b", "recover the last backup"},
	manager.KeepDefaults: {"k", "leave it on its defaults, and end"},
	manager.Overwrite:    {"b", "recover the backup anyway"},
	manager.UseAsIs:      {"u", "use the configuration data as they are"},
	manager.GiveUp:       {"q", "give up"},
}

// Ask implements manager.Operator.
func (o *terminalOperator) Ask(ctx context.Context, q manager.Question) (manager.Answer, error) {
	o.out.Line(fmt.Sprintf("%d what now? the device's advice: %s", q.Step, q.Advice))
	for {
		for _, c := range q.Choices {
			o.out.Line(fmt.Sprintf("      %s  %s", choiceTexts[c].key, choiceTexts[c].text))
		}
		typed, err := o.read(ctx)
		if errors.Is(err, io.EOF) {
			return manager.Answer{Choice: manager.GiveUp}, nil
		}
		if err != nil {
			o.out.Line("") // what was typed, ^C too, stands on the last line
			return manager.Answer{}, err
		}
		for _, c := range q.Choices {
			if typed != choiceTexts[c].key {
				continue
			}
			if c != manager.OtherFile {
				return manager.Answer{Choice: c}, nil
			}
			img, err := o.askImage(ctx)
			if err == nil {
				return manager.Answer{Choice: c, Image: img}, nil
			}
			o.out.Line("      " + err.Error())
		}
	}
}

func (o *terminalOperator) askImage(ctx context.Context) (*files.Image, error) {
	o.out.Line("      name of the image file:")
	name, err := o.read(ctx)
	if err != nil {
		return nil, err
	}
	return openImageFile(name)
}

// read returns a line that was typed. The end of input means to give up.
func (o *terminalOperator) read(ctx context.Context) (string, error) {
	if o.lines == nil {
		o.lines = make(chan string)
		go func() {
			defer close(o.lines)
			for s := bufio.NewScanner(o.in); s.Scan(); {
				o.lines <- strings.TrimSpace(s.Text())
			}
		}()
	}
	select {
	case line, ok := <-o.lines:
		if !ok {
			return "", io.EOF
		}
		return line, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
