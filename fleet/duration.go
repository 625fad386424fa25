package fleet

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that is written as text in JSON, such as "1h30m".
type Duration time.Duration

// String returns the text of d.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.40q is not a duration such as 30m or 1h30m", text)
	}
	*d = Duration(parsed)
	return nil
}
