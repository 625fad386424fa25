// Apply makes a payload from an encoding of it and its base, as a device does: one frame after the other. It stands for the part
// of iad that does this, so that its memory can be compared with that of bspatch.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/frame"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 5 {
		log.Fatal("usage: apply PAYLOAD.json ENCODING BASE TARGET")
	}
	if err := apply(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		log.Fatal(err)
	}
}

// apply reads a payload of a manifest, with one encoding, from the first file.
func apply(description, encoding, base, target string) (err error) {
	text, err := os.ReadFile(description)
	if err != nil {
		return err
	}
	var p image.Payload
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	e := &p.Encodings[0]
	in, err := os.Open(encoding)
	if err != nil {
		return err
	}
	defer in.Close()
	old, err := os.Open(base)
	if err != nil {
		return err
	}
	defer old.Close()
	out, err := os.Create(target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()

	index := make([]byte, frame.IndexSize(p.Size, e.Frame))
	if _, err := in.ReadAt(index, 0); err != nil {
		return err
	}
	x, err := frame.ParseIndex(index, e.Size, p.Size, e.Frame)
	if err != nil {
		return err
	}
	sum := sha256.New()
	decoder, buf := frame.NewDecoder(e.Frame), make([]byte, frame.MaxEncoded(e.Frame))
	for k := range x.Count() {
		encoded := buf[:x.Length(k)]
		if _, err := in.ReadAt(encoded, x.Offset(k)); err != nil {
			return err
		}
		if !x.Matches(k, encoded) {
			return fmt.Errorf("frame %d is damaged", k)
		}
		content, err := image.Decode(decoder, e, x, k, encoded, old)
		if err != nil {
			return err
		}
		sum.Write(content)
		if _, err := out.Write(content); err != nil {
			return err
		}
	}
	if hex.EncodeToString(sum.Sum(nil)) != p.SHA256 {
		return errors.New("the payload differs")
	}
	return out.Sync()
}
