package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// row is one line of the table.
type row struct {
	name string
	peer []string // program whose version is shown, and the option that prints it; none: nothing is compared
	// bytes: the figures that are compared are numbers of bytes, not times.
	bytes bool
	// once: the figures are the same in each round.
	once bool
	// wanted is the largest ratio of our figure to the peer's, 0 for none.
	wanted float64
	// limit is the largest median time, and worst the largest time of any round; 0 for none.
	limit, worst time.Duration
	// most is the largest number of bytes, 0 for none.
	most int64
	// start prepares both sides; what it starts ends with the lab's cleanups.
	start func(*lab) (sides, error)
}

// sides do the work once and return what that took. peer is nil where nothing is compared.
type sides struct {
	ours, peer func() (sample, error)
}

// sample is one round of one side.
type sample struct {
	took   time.Duration
	memory int64 // peak resident memory in bytes, 0 if not measured
	bytes  int64 // the figure of rows about bytes
	// Processor time of the program that is compared, and of all others that take part, per request; 0 if not measured.
	processor, others time.Duration
}

// spread is a median with the quartiles around it.
type spread struct {
	Median float64 `json:"median"`
	Least  float64 `json:"quartile1"`
	Most   float64 `json:"quartile3"`
}

// result is a measured row. Times are in seconds, memory in bytes.
type result struct {
	Name       string  `json:"work"`
	Peer       string  `json:"peer,omitempty"`
	PeerTime   *spread `json:"peer_seconds,omitempty"`
	PeerWorst  float64 `json:"peer_worst_seconds,omitempty"`
	Ours       *spread `json:"our_seconds,omitempty"`
	PeerBytes  *spread `json:"peer_bytes,omitempty"`
	OurBytes   *spread `json:"our_bytes,omitempty"`
	OurWorst   float64 `json:"our_worst_seconds,omitempty"`
	Ratio      *spread `json:"ratio,omitempty"` // of the rounds, ours by the peer's
	Wanted     string  `json:"wanted,omitempty"`
	Met        *bool   `json:"met,omitempty"` // nil: nothing is wanted
	PeerMemory int64   `json:"peer_memory,omitempty"`
	OurMemory  int64   `json:"our_memory,omitempty"`
	// Medians of processor times. Those of others are of rounds with the peer, and with ours.
	PeerProcessor float64 `json:"peer_processor_seconds,omitempty"`
	OurProcessor  float64 `json:"our_processor_seconds,omitempty"`
	PeerOthers    float64 `json:"others_processor_seconds_with_peer,omitempty"`
	OurOthers     float64 `json:"others_processor_seconds_with_ours,omitempty"`
	Error         string  `json:"error,omitempty"`
}

// measure runs a row: once each for warming up, then in rounds, in which both sides take turns in being first.
func (l *lab) measure(r row, rounds int) (result, error) {
	defer l.cleanUp()
	res := result{Name: r.name}
	if r.peer != nil {
		v, err := l.version(r.peer...)
		if err != nil {
			return res, err
		}
		res.Peer = v
	}
	s, err := r.start(l)
	if err != nil {
		return res, err
	}
	var ours, peers []sample
	warmUp := 1
	if r.once {
		rounds, warmUp = 1, 0
	}
	for i := range rounds + warmUp {
		var us, them sample
		if i%2 == 0 {
			us, err = s.ours()
		}
		if err == nil && s.peer != nil {
			them, err = s.peer()
		}
		if err == nil && i%2 == 1 {
			us, err = s.ours()
		}
		if err != nil {
			return res, err
		}
		if i >= warmUp {
			ours, peers = append(ours, us), append(peers, them)
		}
	}
	res.judge(r, ours, peers, s.peer != nil)
	return res, nil
}

// judge fills in the figures and compares them with what is wanted.
func (r *result) judge(row row, ours, peers []sample, compared bool) {
	figures := func(list []sample) (all []float64, memory int64) {
		for _, s := range list {
			if row.bytes {
				all = append(all, float64(s.bytes))
			} else {
				all = append(all, s.took.Seconds())
			}
			memory = max(memory, s.memory)
		}
		return all, memory
	}
	our, memory := figures(ours)
	median := spreadOf(our)
	r.OurMemory = memory
	if row.bytes {
		r.OurBytes = &median
	} else {
		r.Ours, r.OurWorst = &median, slices.Max(our)
	}
	r.OurProcessor, r.OurOthers = processorTimes(ours)
	met := true
	if compared {
		r.PeerProcessor, r.PeerOthers = processorTimes(peers)
		their, memory := figures(peers)
		peer := spreadOf(their)
		r.PeerMemory = memory
		if row.bytes {
			r.PeerBytes = &peer
		} else {
			r.PeerTime, r.PeerWorst = &peer, slices.Max(their)
		}
		var ratios []float64
		for i := range our {
			ratios = append(ratios, our[i]/their[i])
		}
		ratio := spreadOf(ratios)
		r.Ratio = &ratio
		if row.wanted > 0 {
			r.want(fmt.Sprintf("ratio ≤ %.2f", row.wanted))
			met = met && ratio.Median <= row.wanted
		}
	}
	if row.limit > 0 {
		r.want(fmt.Sprintf("≤ %s", short(row.limit.Seconds())))
		met = met && r.Ours.Median <= row.limit.Seconds()
	}
	if row.most > 0 {
		r.want(fmt.Sprintf("≤ %d bytes", row.most))
		met = met && median.Median <= float64(row.most)
	}
	if row.worst > 0 {
		r.want(fmt.Sprintf("worst ≤ %s: %s, peer %s", short(row.worst.Seconds()), short(r.OurWorst), short(r.PeerWorst)))
		met = met && r.OurWorst <= row.worst.Seconds()
	}
	if r.Wanted != "" {
		r.Met = &met
	}
}

// processorTimes returns the medians, of the program that is compared and of the others.
func processorTimes(list []sample) (own, others float64) {
	var a, b []float64
	for _, s := range list {
		a, b = append(a, s.processor.Seconds()), append(b, s.others.Seconds())
	}
	return spreadOf(a).Median, spreadOf(b).Median
}

func (r *result) want(text string) {
	if r.Wanted != "" {
		r.Wanted += ", "
	}
	r.Wanted += text
}

// spreadOf returns the median and the quartiles of at least one figure, which it sorts.
func spreadOf(of []float64) spread {
	of = slices.Sorted(slices.Values(of))
	at := func(q float64) float64 {
		x := q * float64(len(of)-1)
		low, high := int(math.Floor(x)), int(math.Ceil(x))
		return of[low] + (of[high]-of[low])*(x-float64(low))
	}
	return spread{Median: at(0.5), Least: at(0.25), Most: at(0.75)}
}
