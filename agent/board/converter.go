package board

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"example.com/iad/agent/config"
)

// Converter runs a maker's conversion program, PROGRAM FROM TO INDIR OUTDIR. The
// fields of Command are its settings, except for Args, which Convert fills in.
type Converter struct{ Command }

var _ config.Runner = Converter{}

// Convert implements config.Runner. If the program runs as another user, inDir,
// outDir and the directories that hold them belong to that user while it runs, and
// to this process's afterwards: what the program left running can then no longer
// replace the results. The directories that hold them must be open to nobody else.
func (c Converter) Convert(ctx context.Context, from, to uint32, inDir, outDir string) error {
	command := c.Command
	command.Args = []string{strconv.FormatUint(uint64(from), 10), strconv.FormatUint(uint64(to), 10), inDir, outDir}
	if c.User == nil {
		_, err := Run(ctx, command)
		return err
	}
	parents := []string{filepath.Dir(inDir)}
	if other := filepath.Dir(outDir); other != parents[0] {
		parents = append(parents, other)
	}
	for _, dir := range parents {
		if err := giveTree(dir, int(c.User.UID), int(c.User.GID)); err != nil {
			return fmt.Errorf("give %s to user %d: %w", dir, c.User.UID, err)
		}
	}
	_, err := Run(ctx, command)
	// The outer ones first, which takes away the way to the inner ones.
	for _, dir := range append(parents, inDir, outDir) {
		if e := takeDir(dir); e != nil {
			err = errors.Join(err, fmt.Errorf("take %s back: %w", dir, e))
		}
	}
	return err
}
