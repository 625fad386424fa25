package main

import (
	"strings"
	"testing"
	"time"
)

// samples of whole milliseconds.
func samples(milliseconds ...int) (list []sample) {
	for _, ms := range milliseconds {
		list = append(list, sample{took: time.Duration(ms) * time.Millisecond, memory: int64(ms) << 20})
	}
	return list
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		row         row
		ours, peers []sample
		met, judged bool
		ratio       float64
	}{
		"faster":              {row{wanted: 0.5}, samples(10, 20, 30), samples(20, 40, 60), true, true, 0.5},
		"not fast enough":     {row{wanted: 0.4}, samples(10, 20, 30), samples(20, 40, 60), false, true, 0.5},
		"each with its round": {row{wanted: 0.5}, samples(1000, 20, 30), samples(2000, 40, 60), true, true, 0.5},
		"worst":               {row{wanted: 1, worst: 25 * time.Millisecond}, samples(10, 20, 30), samples(20, 40, 60), false, true, 0.5},
		"limit":               {row{limit: 20 * time.Millisecond}, samples(10, 20, 30), nil, true, true, 0},
		"over the limit":      {row{limit: 19 * time.Millisecond}, samples(10, 20, 30), nil, false, true, 0},
		"nothing wanted":      {row{}, samples(10), samples(10), false, false, 1},
		"smaller":             {row{bytes: true, wanted: 0.5}, []sample{{bytes: 100, took: time.Hour}}, []sample{{bytes: 200}}, true, true, 0.5},
		"small":               {row{bytes: true, most: 100}, []sample{{bytes: 100}}, nil, true, true, 0},
		"not small":           {row{bytes: true, most: 99}, []sample{{bytes: 100}}, nil, false, true, 0},
		"not small enough":    {row{bytes: true, wanted: 0.4}, []sample{{bytes: 100}}, []sample{{bytes: 200, took: time.Hour}}, false, true, 0.5},
	} {
		var r result
		r.judge(c.row, c.ours, c.peers, c.peers != nil)
		if (r.Met != nil) != c.judged || r.Met != nil && *r.Met != c.met {
			t.Errorf("%s: %+v", name, r)
		}
		if (r.Ratio != nil) != (c.peers != nil) || r.Ratio != nil && r.Ratio.Median != c.ratio {
			t.Errorf("%s: ratio %+v, want %v", name, r.Ratio, c.ratio)
		}
	}
}

func TestSpread(t *testing.T) {
	if got, want := spreadOf([]float64{5, 1, 3, 2, 4}), (spread{Median: 3, Least: 2, Most: 4}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := spreadOf([]float64{1, 2}), (spread{Median: 1.5, Least: 1.25, Most: 1.75}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// What was missed or not measured must not look like a success.
func TestPrint(t *testing.T) {
	missed := result{Name: "missed"}
	missed.judge(row{wanted: 0.4}, samples(10), samples(20), true)
	var b strings.Builder
	print(&b, []result{missed, {Name: "broken", Error: "no server"}})
	for _, want := range []string{"NOT MET", "ratio ≤ 0.40", "0.50 (0.50-0.50)", "20.0 ms", "10.0 MiB", "not measured", "broken: no server"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, b.String())
		}
	}
}
