package fleet

import (
	"errors"
	"fmt"
)

// FieldError says what is wrong with one field of an object.
type FieldError struct {
	// Field is the path of the field in JSON, such as "waves[1].percent".
	Field string
	// Problem says what is wrong and what is right instead.
	Problem string
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// FieldErrors returns the field errors that err consists of, in their order.
func FieldErrors(err error) []*FieldError {
	switch e := err.(type) {
	case nil:
		return nil
	case *FieldError:
		return []*FieldError{e}
	case interface{ Unwrap() []error }:
		var all []*FieldError
		for _, one := range e.Unwrap() {
			all = append(all, FieldErrors(one)...)
		}
		return all
	}
	return FieldErrors(errors.Unwrap(err))
}

// problems collects field errors below a path.
type problems struct {
	prefix string
	list   *[]error
}

func newProblems() problems { return problems{list: new([]error)} }

// in returns the problems of the field with this name, an object or an element.
func (p problems) in(format string, args ...any) problems {
	return problems{prefix: p.prefix + fmt.Sprintf(format, args...) + ".", list: p.list}
}

// add adds a problem of a field.
func (p problems) add(field, format string, args ...any) {
	*p.list = append(*p.list, &FieldError{Field: p.prefix + field, Problem: fmt.Sprintf(format, args...)})
}

// unless adds a problem unless ok.
func (p problems) unless(ok bool, field, format string, args ...any) {
	if !ok {
		p.add(field, format, args...)
	}
}

// check adds err, if it is not nil, as a problem of a field.
func (p problems) check(field string, err error) {
	if err != nil {
		p.add(field, "%v", err)
	}
}

func (p problems) err() error { return errors.Join(*p.list...) }
