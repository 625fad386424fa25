package durable

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/afero"
)

// KeptAside is how many files or folders set aside from one name, for one reason,
// are kept; the oldest of more are removed.
const KeptAside = 4

// SetAside renames a damaged file or folder to NAME.corrupt-N and returns the new
// name.
func SetAside(fs afero.Fs, name string) (newName string, err error) {
	return SetAsideAs(fs, name, "corrupt")
}

// SetAsideAs renames the file or folder name to NAME.REASON-N, N being one more
// than the highest there, and returns the new name. reason is a word of letters.
func SetAsideAs(fs afero.Fs, name, reason string) (newName string, err error) {
	prefix := filepath.Base(name) + "." + reason + "-"
	dir := filepath.Dir(name)
	numbers, err := asideNumbers(fs, dir, prefix)
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
	for len(numbers) >= KeptAside {
		_ = RemoveAll(fs, filepath.Join(dir, prefix+strconv.Itoa(numbers[0])))
		numbers = numbers[1:]
	}
	return newName, nil
}

// asideNumbers lists, in rising order, the numbers N of the names PREFIX N.
func asideNumbers(fs afero.Fs, dir, prefix string) ([]int, error) {
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
