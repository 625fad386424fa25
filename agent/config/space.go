package config

// Space is what the largest generation takes on its file system, in octets; 0 if
// there is none.
func (s *Store) Space() (octets int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.generations {
		sum := clusters(0) // the description
		for _, f := range d.Files {
			sum += clusters(f.Size)
		}
		octets = max(octets, sum)
	}
	return octets
}

// Space is what the files of a set take on a file system, in octets.
func (s Set) Space() (octets int64) {
	for _, data := range s {
		octets += clusters(int64(len(data)))
	}
	return octets
}

// clusters is what a file of some octets takes, as far as can be known: whole
// clusters of 4096 octets, one at least.
func clusters(octets int64) int64 { return (max(octets, 1) + 4095) / 4096 * 4096 }
