package encode

import (
	"context"
	"fmt"
	"io"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/frame"
)

// A Base is a payload that devices may have already.
type Base struct {
	Version string // of its software
	Content []byte
}

// A Result says what Payload made.
type Result struct {
	File  string
	Codec frame.Codec
	Base  string // the version of the base, "" without one
	Size  int64  // of the encoding, in bytes
	// Dropped says why the encoding is not used, "" if it is.
	Dropped string
}

const (
	// worthwhile is by how many percent of the payload all of it must shrink: decoding takes
	// a device time.
	worthwhile = 95
	// worthwhileDelta is for a difference, in percent of all of the payload: with a
	// larger one a device risks that it has to fetch the payload twice for no gain.
	worthwhileDelta = 80
)

// Options say which encodings Payload makes.
type Options struct {
	// One is for the tar form: only the first encoding stays.
	One bool
	// Always makes one of any payload that is not empty, to be encrypted: what has no
	// encoding is in the image as it is.
	Always bool
}

// Payload adds encodings to a payload: its differences from bases, then all of it.
// Encodings that save too little are dropped, and differences that a device could not decode.
// No encoding has one of the names taken.
func Payload(ctx context.Context, f image.PayloadFile, bases []Base, o Options, taken map[string]bool) (image.PayloadFile, []Result, error) {
	r, err := f.Open()
	if err != nil {
		return f, nil, err
	}
	content, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return f, nil, err
	}
	if n := frame.IndexSize(int64(len(content)), frame.MaxSize); n == 0 || n > frame.MaxIndex {
		if n > 0 && o.Always {
			return f, nil, fmt.Errorf("%s has %d bytes: it is too large to be encrypted", f.Name, len(content))
		}
		return f, nil, nil
	}
	full, err := XZ(ctx, freeName(f.Name, ".xz", taken), content, frame.MaxSize)
	if err != nil {
		return f, nil, err
	}
	if err := check(full, content, nil); err != nil {
		return f, nil, err
	}
	all := Result{File: full.File, Codec: frame.XZ, Size: full.Size}
	whole := int64(len(content)) // what a device fetches without a difference
	if all.Size*100 > whole*worthwhile && !o.Always {
		all.Dropped = "it hardly compresses"
	} else {
		whole = all.Size
	}
	var results []Result
	f.Encodings = nil
	for _, base := range bases {
		if len(base.Content) == 0 || o.One && len(f.Encodings) > 0 {
			continue
		}
		e, err := XZDelta(ctx, freeName(f.Name, ".d-"+base.Version, taken), content, base.Content, frame.MaxSize)
		if err != nil {
			return f, nil, err
		}
		result := Result{File: e.File, Codec: frame.XZDelta, Base: base.Version, Size: e.Size}
		if e.Size*100 > whole*worthwhileDelta {
			result.Dropped = fmt.Sprintf("it is larger than %d %% of the whole", worthwhileDelta)
		} else if err := check(e, content, base.Content); err != nil {
			result.Dropped = "it cannot be decoded: " + err.Error()
		} else {
			f.Encodings = append(f.Encodings, e)
		}
		results = append(results, result)
	}
	switch {
	case o.One && len(f.Encodings) > 0:
		return f, results, nil
	case all.Dropped == "" || len(f.Encodings) > 0:
		// A device that has none of the bases needs all of it.
		f.Encodings, all.Dropped = append(f.Encodings, full), ""
	}
	return f, append(results, all), nil
}

// freeName returns a name for an encoding and takes it.
func freeName(payload, suffix string, taken map[string]bool) string {
	name := payload + suffix
	for n := 1; taken[name] || image.CheckName(name) != nil; n++ {
		tail := fmt.Sprintf("-%d%s", n, suffix)
		tail = tail[:min(len(tail), image.MaxName/2)]
		name = payload[:min(len(payload), image.MaxName-len(tail))] + tail
	}
	taken[name] = true
	return name
}
