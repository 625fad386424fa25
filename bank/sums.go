package bank

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"hash/maphash"
	"io"

	"example.com/iad/bank/image"
	"example.com/iad/mib"
)

// contentSum sums up a payload while it is stored, so that no byte is hashed again for the
// manifest: what is read back is compared by a checksum that takes a fraction of the time.
type contentSum struct {
	hash.Hash // SHA-256, which the manifest has
	checksum  maphash.Hash
}

func newContentSum(seed maphash.Seed) *contentSum {
	s := &contentSum{Hash: sha256.New()}
	s.checksum.SetSeed(seed)
	return s
}

func (s *contentSum) Write(p []byte) (int, error) {
	_, _ = s.checksum.Write(p) // never fails
	return s.Hash.Write(p)
}

// matches compares the hash of what was stored of a payload with the manifest.
func (s *contentSum) matches(p image.Payload) error {
	if hex.EncodeToString(s.Sum(nil)) != p.SHA256 {
		return refuse(mib.FailCauseDigestMismatch, "payload %s does not match the manifest", p.Name)
	}
	return nil
}

// pieceCount is how many pieces there are between the goroutine that receives and the one
// that hashes.
const pieceCount = 3

// pieces are the buffers in which what comes from the network is handed to hashing.
type pieces chan []byte

func newPieces() pieces {
	all := make(pieces, pieceCount)
	for range pieceCount {
		all <- make([]byte, bufferSize)
	}
	return all
}

// sideSum hashes in a goroutine of its own, beside the network and the medium.
type sideSum struct {
	free  pieces
	work  chan sumWork
	ended chan struct{}
}

type sumWork struct {
	piece   []byte // goes back to the free ones
	content []byte // part of piece, to be hashed
}

// sumBeside starts hashing into to. Nothing else may use to until wait has returned.
func sumBeside(free pieces, to ...io.Writer) *sideSum {
	s := &sideSum{free: free, work: make(chan sumWork, pieceCount), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		for w := range s.work {
			for _, t := range to {
				_, _ = t.Write(w.content) // a hash never fails
			}
			s.free <- w.piece
		}
	}()
	return s
}

// piece returns a buffer for what comes next.
func (s *sideSum) piece() []byte { return <-s.free }

// add hashes content, a part of piece, which must not be used any more.
func (s *sideSum) add(piece, content []byte) { s.work <- sumWork{piece, content} }

// wait returns when everything added is hashed.
func (s *sideSum) wait() {
	close(s.work)
	<-s.ended
}
