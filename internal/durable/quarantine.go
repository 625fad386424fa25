package durable

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/afero"
)

// MaxQuarantined is how many quarantined files or directories are kept for each name
// and reason; the oldest are removed.
const MaxQuarantined = 4

// Quarantine renames a damaged file or directory to NAME.corrupt-N, so that it can be
// examined, and returns the new name.
func Quarantine(fs afero.Fs, name string) (newName string, err error) {
	return QuarantineAs(fs, name, "corrupt")
}

// QuarantineAs renames the file or directory name to NAME.REASON-N, with N one more
// than the highest so far, and returns the new name. reason consists of letters.
func QuarantineAs(fs afero.Fs, name, reason string) (newName string, err error) {
	prefix := filepath.Base(name) + "." + reason + "-"
	dir := filepath.Dir(name)
	numbers, err := quarantineNumbers(fs, dir, prefix)
	if err != nil {
		return "", fmt.Errorf("set aside %s: %w", name, err)
	}
	next := 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	newName = filepath.Join(dir, prefix+strconv.Itoa(next))
	if err := Rename(fs, name, newName); err != nil {
		return "", fmt.Errorf("set aside: %w", err)
	}
	// The newest is safe; failing to remove older ones costs space only.
	for len(numbers) >= MaxQuarantined {
		_ = RemoveAll(fs, filepath.Join(dir, prefix+strconv.Itoa(numbers[0])))
		numbers = numbers[1:]
	}
	return newName, nil
}

// quarantineNumbers lists, in ascending order, the numbers N of the names PREFIX N.
func quarantineNumbers(fs afero.Fs, dir, prefix string) ([]int, error) {
	names, err := list(fs, dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, n := range names {
		tail, ok := strings.CutPrefix(n, prefix)
		if !ok {
			continue
		}
		// A name of other digits, such as 007 or a huge number, is not ours.
		if i, err := strconv.Atoi(tail); err == nil && i > 0 && i < 1<<30 && strconv.Itoa(i) == tail {
			numbers = append(numbers, i)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}
