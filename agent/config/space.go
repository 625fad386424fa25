package config

// Space is what the largest generation takes on its file system, in bytes; 0 if
// there is none.
func (s *Store) Space() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.generations {
		sum := clusters(0) // the description
		for _, f := range d.Files {
			sum += clusters(f.Size)
		}
		n = max(n, sum)
	}
	return n
}

// Space is what the files of a set take on a file system, in bytes.
func (s Set) Space() (n int64) {
	for _, data := range s {
		n += clusters(int64(len(data)))
	}
	return n
}

// clusters estimates the space that a file of n bytes takes: whole clusters of 4096
// bytes, at least one.
func clusters(n int64) int64 { return (max(n, 1) + 4095) / 4096 * 4096 }
