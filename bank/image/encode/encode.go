package encode

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/frame"
)

// XZ returns an encoding of a payload by codec frame.XZ in frames of size bytes, a valid frame
// size, under a file name.
func XZ(ctx context.Context, file string, payload []byte, size int) (image.EncodedFile, error) {
	e := image.Encoding{File: file, Codec: frame.XZ, Frame: size}
	return assemble(ctx, e, payload, func(start, end int) []byte { return compress(payload[start:end], size) })
}

// XZDelta returns an encoding of a payload by codec frame.XZDelta: its difference from base.
func XZDelta(ctx context.Context, file string, payload, base []byte, size int) (image.EncodedFile, error) {
	e := image.Encoding{File: file, Codec: frame.XZDelta, Frame: size, Base: &image.Base{SHA256: digest(base), Size: int64(len(base))}}
	if len(base) == 0 {
		return image.EncodedFile{}, fmt.Errorf("%s: the base is empty", file)
	}
	pieces, err := match(base, payload)
	if err != nil {
		return image.EncodedFile{}, err
	}
	return assemble(ctx, e, payload, func(start, end int) []byte {
		return deltaFrame(base, payload, within(pieces, start, end), start, end, size)
	})
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// assemble makes the file of an encoding from the frames that encode returns.
func assemble(ctx context.Context, e image.Encoding, payload []byte, encode func(start, end int) []byte) (image.EncodedFile, error) {
	if err := frame.CheckSize(e.Frame); err != nil {
		return image.EncodedFile{}, err
	}
	if n := frame.IndexSize(int64(len(payload)), e.Frame); n == 0 || n > frame.MaxIndex {
		return image.EncodedFile{}, fmt.Errorf("%s: a payload of %d bytes cannot be in frames of %d bytes", e.File, len(payload), e.Frame)
	}
	frames := make([][]byte, (len(payload)+e.Frame-1)/e.Frame)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for i := range frames {
		group.Go(func() error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			start := i * e.Frame
			frames[i] = encode(start, min(start+e.Frame, len(payload)))
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return image.EncodedFile{}, fmt.Errorf("%s: %w", e.File, err)
	}
	var index []byte
	for i, f := range frames {
		if int64(len(f)) > frame.MaxEncoded(e.Frame) {
			return image.EncodedFile{}, fmt.Errorf("%s: frame %d has %d bytes, %d are allowed", e.File, i, len(f), frame.MaxEncoded(e.Frame))
		}
		index = frame.AppendEntry(index, f)
	}
	e.IndexSHA256 = digest(index)
	content := append(index, bytes.Join(frames, nil)...)
	e.Size = int64(len(content))
	return image.EncodedFile{Encoding: e, Content: content}, nil
}

// check decodes an encoding of payload as a device does. base is nil with codec frame.XZ.
func check(e image.EncodedFile, payload, base []byte) error {
	x, err := frame.ParseIndex(e.Content[:frame.IndexSize(int64(len(payload)), e.Frame)], e.Size, int64(len(payload)), e.Frame)
	if err != nil {
		return err
	}
	d := frame.NewDecoder(e.Frame)
	for k := range x.Count() {
		content, err := image.Decode(d, &e.Encoding, x, k, e.Content[x.Offset(k):][:x.Length(k)], bytes.NewReader(base))
		if err != nil {
			return err
		}
		if !bytes.Equal(content, payload[x.Start(k):][:x.Content(k)]) {
			return fmt.Errorf("frame %d of %s is decoded to something else", k, e.File)
		}
	}
	return nil
}

// within returns the parts of pieces that are in the payload from start to end.
func within(pieces []copied, start, end int) (parts []copied) {
	for _, p := range pieces {
		cut := max(start-p.at, 0)
		p.at, p.from, p.length = p.at+cut, p.from+cut, min(p.length-cut, end-p.at-cut)
		if p.length > 0 {
			parts = append(parts, p)
		}
	}
	return parts
}

// deltaFrame encodes the bytes from start to end of the payload, with these pieces of the
// base, for a frame of size bytes. It leaves the shortest pieces out of a frame that would
// exceed what a decoder accepts.
func deltaFrame(base, payload []byte, pieces []copied, start, end, size int) []byte {
	for {
		control, literals, differences := program(base, payload, pieces, start, end)
		if len(control) <= frame.MaxControl(size) {
			if encoded := compressProgram(control, literals, differences, size); len(pieces) == 0 || int64(len(encoded)) <= frame.MaxEncoded(size) {
				return encoded
			}
		}
		pieces = longestHalf(pieces)
	}
}

// longestHalf returns the longer ones of pieces, in their order; of one piece it returns none.
func longestHalf(pieces []copied) []copied {
	half := slices.Clone(pieces)
	slices.SortStableFunc(half, func(a, b copied) int { return b.length - a.length })
	half = half[:len(half)/2]
	slices.SortFunc(half, func(a, b copied) int { return a.at - b.at })
	return half
}

// program returns the parts of the difference that makes the bytes from start to end of the
// payload, with these pieces of the base.
func program(base, payload []byte, pieces []copied, start, end int) (control, literals, differences []byte) {
	at, from := start, 0
	// step ends a step, whose copy was from a piece and whose literals reach to next, where
	// the base is wanted at nextFrom.
	step := func(length, next, nextFrom int) {
		control = binary.AppendUvarint(control, uint64(length))
		control = binary.AppendUvarint(control, uint64(next-at-length))
		control = binary.AppendVarint(control, int64(nextFrom-from-length))
		literals = append(literals, payload[at+length:next]...)
		at, from = next, nextFrom
	}
	length := 0
	for _, p := range pieces {
		if p.at > start || p.from > 0 {
			step(length, p.at, p.from)
		}
		for i := range p.length {
			differences = append(differences, payload[p.at+i]-base[p.from+i])
		}
		length = p.length
	}
	step(length, end, from+length)
	return control, literals, differences
}

// compressProgram makes the parts of a difference a frame of size bytes.
func compressProgram(control, literals, differences []byte, size int) []byte {
	head := binary.AppendUvarint(nil, uint64(len(control)))
	head = binary.AppendUvarint(head, uint64(len(literals)))
	// Each part has its own statistics, but each stream has its own headers.
	var apart []byte
	for _, part := range [][]byte{append(head, control...), literals, differences} {
		if len(part) > 0 {
			apart = append(apart, compress(part, size)...)
		}
	}
	if len(apart) > 4<<10 {
		return apart // the headers do not matter
	}
	if together := compress(bytes.Join([][]byte{head, control, literals, differences}, nil), size); len(together) < len(apart) {
		return together
	}
	return apart
}
