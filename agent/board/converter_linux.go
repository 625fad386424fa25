package board

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"example.com/iad/agent/config"
)

// Converter runs a maker's conversion program, PROGRAM FROM TO INDIR OUTDIR. The
// fields of Command are its settings, except for Args, which Convert fills in.
type Converter struct{ Command }

var _ config.Runner = Converter{}

// Convert implements config.Runner. If the program runs as another user, inDir,
// outDir and the folder that holds them are made over to that user.
func (c Converter) Convert(ctx context.Context, from, to uint32, inDir, outDir string) error {
	if c.User != nil {
		for _, dir := range []string{inDir, outDir} {
			if err := c.makeOver(filepath.Dir(dir)); err != nil {
				return err
			}
			err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return c.makeOver(path)
			})
			if err != nil {
				return err
			}
		}
	}
	command := c.Command
	command.Args = []string{strconv.FormatUint(uint64(from), 10), strconv.FormatUint(uint64(to), 10), inDir, outDir}
	_, err := Run(ctx, command)
	return err
}

func (c Converter) makeOver(path string) error {
	return os.Lchown(path, int(c.User.UID), int(c.User.GID))
}
