package campaign

import (
	"cmp"
	"hash/fnv"
	"math"
	"slices"

	"example.com/iad/fleet"
)

// Assign returns the number of the wave of each device. Within the waves' filters the
// devices are taken in an order that depends on the ID of the campaign and their names
// alone, so a canary has devices of many sites, the same ones if it is planned again.
// matches reports whether a device, by its index, matches the filter of a wave; nil:
// filters match nothing.
func Assign(id string, spec *fleet.CampaignSpec, names []string, matches func(device, wave int) bool) []int {
	waves := make([]int, len(names))
	if len(spec.Waves) <= 1 {
		return waves
	}
	last := len(spec.Waves) - 1
	order := make([]int, len(names))
	keys := make([]uint64, len(names))
	for i, name := range names {
		order[i] = i
		h := fnv.New64a()
		h.Write([]byte(id + "/" + name))
		keys[i] = mix(h.Sum64())
		waves[i] = last
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(keys[a], keys[b]), cmp.Compare(names[a], names[b]))
	})
	taken := make([]bool, len(names))
	for wave := range last {
		w := &spec.Waves[wave]
		left := w.Count
		switch {
		case w.Percent > 0:
			left = int(math.Ceil(w.Percent * float64(len(names)) / 100))
		case w.Filter != "":
			left = len(names)
		}
		for _, i := range order {
			if left == 0 {
				break
			}
			if !taken[i] && (w.Filter == "" || matches != nil && matches(i, wave)) {
				waves[i], taken[i] = wave, true
				left--
			}
		}
	}
	return waves
}

// mix spreads the differences of similar names, which FNV leaves in the low bits, over all
// bits (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
