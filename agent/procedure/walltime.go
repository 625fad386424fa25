package procedure

import "time"

// wall returns t for a record, or the zero time while the device does not know
// the time: boards without a clock chip start in 1970.
func wall(t time.Time) time.Time {
	if t.Year() < 2020 {
		return time.Time{}
	}
	return t.UTC().Round(0)
}
