package ui

import (
	"net/http"
	"strconv"
	"strings"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

const discoverTitle = "Look for devices"

func (p *page) discoverForm() error {
	p.show(http.StatusOK, "discover", discoverTitle, (*operations.Discovered)(nil))
	return nil
}

// discover shows what answers in a range, or adds it.
func (p *page) discover() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	names := func(field string) []string {
		return strings.FieldsFunc(p.value(field), func(r rune) bool { return r == ',' || r == ' ' })
	}
	d := operations.Discovery{
		Range: p.value("range"), Secrets: names("secrets"), Site: p.value("site"), Pool: p.value("pool"), Tags: names("tags"), Add: p.value("add") == "yes",
	}
	if text := p.value("port"); text != "" {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return p.refuse(&fleet.FieldError{Field: "port", Problem: "must be a number from 1 to 65535"}, "discover", discoverTitle, (*operations.Discovered)(nil))
		}
		d.Port = uint16(port)
	}
	found, err := p.Service.Discover(p.r.Context(), p.by, d)
	if err != nil {
		return p.refuse(err, "discover", discoverTitle, (*operations.Discovered)(nil))
	}
	p.write(http.StatusOK, "discover", view{Title: discoverTitle, Data: found, Values: p.r.PostForm})
	return nil
}
