package command

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/encode"
	"example.com/iad/manager/files"
)

// encode adds encodings to the files, and writes what they save to w. It takes seconds for
// each megabyte, so progress gets the name of the file that it works on.
func (o *buildOptions) encode(ctx context.Context, w, progress io.Writer, files []image.PayloadFile) ([]image.PayloadFile, error) {
	keys, err := o.identity.keys()
	if err != nil {
		return nil, err
	}
	var olds []loadedImage
	for _, name := range o.deltaFrom {
		old, err := readContents(name, nil, keys)
		if err != nil {
			return nil, err
		}
		olds = append(olds, old)
	}
	taken := make(map[string]bool)
	for _, f := range files {
		taken[f.Name] = true
	}
	encoded := make([]image.PayloadFile, len(files))
	for i, f := range files {
		var bases []encode.Base
		for _, old := range olds {
			if content, err := old.base(f); err != nil {
				return nil, err
			} else if content != nil {
				bases = append(bases, encode.Base{Version: old.info.Manifest.Version, Content: content})
			}
		}
		fmt.Fprintf(progress, "compressing %s (%d of %d)\n", f.Name, i+1, len(files))
		var results []encode.Result
		var err error
		if encoded[i], results, err = encode.Payload(ctx, f, bases, encode.Options{One: o.split == "", Always: len(o.encryptTo) > 0}, taken); err != nil {
			return nil, err
		}
		for _, r := range results {
			what := "compressed"
			if r.Base != "" {
				what = "difference from " + r.Base
			}
			if r.Dropped != "" {
				what += ", not used: " + r.Dropped
			}
			fmt.Fprintf(w, "%s: %d bytes, %s\n", f.Name, r.Size, what)
		}
	}
	return encoded, nil
}

// A loadedImage is an image in memory.
type loadedImage struct {
	name     string
	info     *image.Info
	contents map[string][]byte
	keys     files.Keys // that it was read with
}

// readContents reads an image of either form. keys decrypt it if it is encrypted.
func readContents(name string, bases image.Bases, keys files.Keys) (old loadedImage, err error) {
	f, err := os.Open(name)
	if err != nil {
		return old, err
	}
	defer f.Close()
	split, err := startsManifest(f)
	if err == nil {
		old.name, old.keys = name, keys
		if split {
			old.info, old.contents, err = image.ContentsSplit(afero.NewOsFs(), name, bases, keys...)
		} else {
			old.info, old.contents, err = image.Contents(f, bases, keys...)
		}
	}
	if err != nil {
		return old, fmt.Errorf("%s: %w", name, err)
	}
	return old, nil
}

// base returns what a file replaces in an older image: the payload of its name or, for the
// partition, the one there. nil if there is none.
func (old loadedImage) base(f image.PayloadFile) ([]byte, error) {
	p := old.info.Manifest.Payload(f.Name)
	if f.Target == image.TargetPartition {
		p = old.info.Manifest.Partition()
	}
	if p == nil {
		return nil, nil
	}
	content, ok := old.contents[p.Name]
	if _, err := old.info.Manifest.Opener(old.keys); !ok && err != nil {
		return nil, fmt.Errorf("%s is encrypted to other keys; name the file with the key of its model or batch (--identity), or an image of the same software that is not encrypted", old.name)
	}
	if !ok {
		return nil, fmt.Errorf("%s has %s only as the difference from another file; name an image that has all of it, such as its manifest in split form", old.name, p.Name)
	}
	return content, nil
}
