package bank

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"hash/maphash"
	"io"
	"os"

	"github.com/spf13/afero"

	"example.com/iad/bank/image"
	"example.com/iad/bank/image/frame"
	"example.com/iad/internal/durable"
	"example.com/iad/mib"
)

// bufferSize is the size in bytes of the pieces in which payloads are copied.
const bufferSize = 32 << 10

// A writer stores an image in a bank that is not bootable.
type writer struct {
	ctx context.Context
	medium
	out      PartitionWriter // of the partition, nil without one
	fetch    *image.Reader
	progress func(InstallProgress)

	sum       hash.Hash              // of the tar form, nil where nobody expects it
	done      int64                  // bytes of the image that are stored
	seed      maphash.Seed           // of all checksums
	stored    map[string]uint64      // by payload, the checksum of what was stored
	behind    map[string]*readBehind // by payload, what was read back while it was stored
	behindBuf []byte
	buf       [bufferSize]byte
	pieces    pieces

	running medium      // of the running software, for bases
	base    *image.Head // the running software, nil if none is known
	sources map[int]*payloadSource
	encoded []byte // a frame
	opener  *image.Opener
	decoder *frame.Decoder
	note    func(text string)
}

// usedSpace returns how much space erasing the bank frees, in whole clusters.
func usedSpace(fs afero.Fs) (sum int64, err error) {
	infos, err := afero.ReadDir(fs, ".")
	if err != nil {
		return 0, err
	}
	for _, info := range infos {
		if info.Mode().IsRegular() {
			sum += clusters(info.Size())
		}
	}
	return sum, nil
}

// release gives the partition back, and closes the bases.
func (w *writer) release() {
	for _, s := range w.sources {
		s.close()
	}
	if w.out != nil {
		_ = w.out.Close() // what was written has been synced
	}
}

// markerSize is the size in bytes of the marker that the image needs, 0 for none.
func (w *writer) markerSize() int64 {
	if w.fetch.Head.Manifest.Partition() == nil {
		return 0
	}
	return w.out.Block() + markerHead
}

// survey returns which files of the bank may belong to the image: those that the
// manifest in the bank describes identically and, if it is the same manifest, those
// that were only begun. Their hashes are checked when their turn comes.
func (w *writer) survey() (keep map[string]bool) {
	keep = make(map[string]bool)
	old, err := image.ReadInstalled(w.fs)
	if err != nil || old.Parse() != nil {
		return keep
	}
	same := old.Digest == w.fetch.Head.Digest
	for _, p := range w.fetch.Head.Manifest.Payloads {
		if p.Target == image.TargetPartition {
			keep[markerName] = readMarker(w.fs).fits(p, w.out.Block())
			continue
		}
		held := old.Manifest.Payload(p.Name)
		info, err := w.fs.Stat(p.Name)
		if held == nil || held.SHA256 != p.SHA256 || held.Target != p.Target || err != nil || !info.Mode().IsRegular() {
			continue // to be fetched
		}
		keep[p.Name] = info.Size() == p.Size || same && info.Size() < p.Size
	}
	return keep
}

// probe reports whether the bank can be written, before what it holds is given up: a bank
// that is write-protected may still be the one to go back to. A full one will be erased.
func (w *writer) probe() error {
	const name = "probe" + durable.TempSuffix
	f, err := w.fs.Create(name) //durable: removed at once, and means nothing
	if err == nil {
		err = errors.Join(f.Close(), w.fs.Remove(name))
	}
	if err != nil && storeError(err, "").Code != mib.FailCauseStorageFull {
		return &Error{Code: mib.FailCauseEraseError, Text: "the bank cannot be written", Err: err}
	}
	return nil
}

// erase removes everything that is not kept, then stores manifest and signature. The
// partition comes first: a boot loader must not start it without the files.
func (w *writer) erase(keep map[string]bool) error {
	if !keep[markerName] {
		size := int64(0)
		if p := w.fetch.Head.Manifest.Partition(); p != nil {
			size = p.Size
		}
		if err := clearPartition(w.out, size); err != nil {
			return err
		}
	}
	if err := eraseBank(w.fs, keep); err != nil {
		return err
	}
	h := w.fetch.Head
	for _, f := range []struct {
		name string
		data []byte
	}{{image.SignatureName, h.Signature}, {image.ManifestName, h.Raw}} {
		if err := durable.ReplaceFile(w.fs, f.name, f.data, 0o644); err != nil {
			return storeError(err, "the bank could not be written")
		}
	}
	return nil
}

// write stores the payloads that the bank does not hold. sum is the SHA-256 of the tar form, nil in split form.
func (w *writer) write() (sum []byte, err error) {
	h := w.fetch.Head
	if !w.countsFraming() {
		w.done = int64(len(h.Raw) + len(h.Signature))
	}
	for i := range h.Manifest.Payloads {
		w.countFraming(i)
		if err := w.payload(i); err != nil {
			return nil, err
		}
	}
	// This also syncs names left unsynced by an earlier Install that was killed.
	if err := durable.SyncDir(w.fs, "."); err != nil {
		return nil, storeError(err, "the bank could not be written")
	}
	w.countFraming(len(h.Manifest.Payloads))
	w.report()
	if w.sum != nil {
		sum = w.sum.Sum(nil)
	}
	return sum, w.fetch.End()
}

// countsFraming reports whether the progress counts the bytes of the tar form. It does not
// with encodings, of which the bank stores what they stand for.
func (w *writer) countsFraming() bool {
	return w.fetch.Tar && w.fetch.Head.Manifest.Format == image.PlainFormat
}

// countFraming adds to the hash and to the progress what the tar form has before payload i.
func (w *writer) countFraming(i int) {
	if w.sum == nil && !w.countsFraming() {
		return
	}
	framing := w.fetch.Head.TarFraming(i)
	if w.sum != nil {
		w.sum.Write(framing)
	}
	if w.countsFraming() {
		w.done += int64(len(framing))
	}
}

func (w *writer) report() {
	w.progress(InstallProgress{Phase: mib.OperationPhaseTransferring, Done: w.done, Total: w.fetch.TotalSize()})
}

// payload stores payload i, continuing what the bank holds of it.
func (w *writer) payload(i int) error {
	p := w.fetch.Head.Manifest.Payloads[i]
	before, done := w.mark(), w.done
	for {
		resumed, err := w.tryPayload(i)
		if err == nil {
			return nil
		}
		again, spoilt := w.judge(i, resumed, err)
		if spoilt || again && (w.sum != nil || w.onlyWhole(p)) {
			// Nothing of it is worth keeping, or can be continued.
			if err := w.discard(p); err != nil {
				return &Error{Code: mib.FailCauseEraseError, Text: "a damaged payload could not be removed", Err: err}
			}
		}
		if !again {
			return err
		}
		w.reset(before)
		w.done = done
	}
}

// onlyWhole reports whether a payload is for a medium that is replaced as a whole.
func (w *writer) onlyWhole(p image.Payload) bool {
	return p.Target == image.TargetPartition && w.out.Block() == 0
}

// judge decides after an error whether payload i is fetched again, and whether what is stored
// of it is spoilt.
func (w *writer) judge(i int, resumed bool, err error) (again, spoilt bool) {
	switch cause := refusal(err); {
	case errors.Is(err, image.ErrDamaged):
		again = w.fetch.GiveUpResuming() // this was found before anything was stored
	case cause == mib.FailCauseDigestMismatch:
		again, spoilt = resumed, true // a loss of power may have spoilt the part that was continued
		if resumed {
			w.chooseAgain(i)
			return again, spoilt
		}
	case cause == mib.FailCauseBadFormat, cause == mib.FailCauseSizeMismatch:
		again = w.fetch.GiveUpResuming()
		spoilt = again
	}
	if (spoilt || !again) && w.giveUpDelta(i, err) {
		again = true
	}
	return again, spoilt
}

// mark and reset save and restore the state of the hash over the whole file.
func (w *writer) mark() []byte {
	if w.sum == nil {
		return nil
	}
	state, err := w.sum.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		panic(err) // crypto/sha256 documents that it can
	}
	return state
}

func (w *writer) reset(state []byte) {
	if w.sum == nil {
		return
	}
	if err := w.sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic(err)
	}
}

// tryPayload stores payload i. resumed reports whether a part was kept.
func (w *writer) tryPayload(i int) (resumed bool, err error) {
	p := w.fetch.Head.Manifest.Payloads[i]
	if p.Target == image.TargetPartition {
		return w.tryPartition(i)
	}
	delete(w.behind, p.Name) // of a failed attempt
	g, err := durable.OpenAppender(w.fs, p.Name, p.Mode.FileMode())
	if err != nil {
		return false, storeError(err, "the bank could not be written")
	}
	defer func() {
		// Also after a failure: what has come so far may be continued.
		if cerr := g.Close(); err == nil && cerr != nil {
			err = storeError(cerr, "the bank could not be written")
		}
		if b := w.behind[p.Name]; b != nil {
			b.end()
		}
	}()
	sum := newContentSum(w.seed)
	if held := g.Size(); held > 0 {
		resumed = true
		f, err := w.fs.Open(p.Name)
		if err != nil {
			return true, storeError(err, "the bank cannot be read")
		}
		defer f.Close()
		if err := w.rehash(f, nil, sum); err != nil {
			return true, err
		}
	}
	if g.Size() < p.Size || p.Size == 0 {
		if err := w.receive(i, w.readingBehind(p, g), sum); err != nil {
			return resumed, err
		}
	}
	w.stored[p.Name] = sum.checksum.Sum64()
	return resumed, sum.matches(p)
}

// rehash reads what the bank holds of a payload from r into the hashes; first stands for
// what r has at its beginning.
func (w *writer) rehash(r io.Reader, first []byte, sum hash.Hash) error {
	// The server might lose its patience meanwhile.
	w.fetch.Close()
	if _, err := io.CopyN(io.Discard, r, int64(len(first))); err != nil {
		return storeError(err, "the bank cannot be read")
	}
	w.store(first, sum)
	for {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		n, err := r.Read(w.buf[:])
		w.store(w.buf[:n], sum)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return storeError(err, "the bank cannot be read")
		}
	}
}

// store takes stored bytes, which are in the tar form too, into the hashes and the progress.
func (w *writer) store(p []byte, sum hash.Hash) {
	if w.sum != nil {
		w.sum.Write(p)
	}
	w.count(p, sum)
}

// count takes stored bytes into the hash of their payload and the progress.
func (w *writer) count(p []byte, sum hash.Hash) {
	sum.Write(p)
	w.done += int64(len(p))
	w.report()
}

// sized is what a payload is written to: Size returns how many bytes of it are there.
type sized interface {
	io.Writer
	Size() int64
}

// receive fetches the rest of payload i.
func (w *writer) receive(i int, g sized, sum hash.Hash) error {
	p := w.fetch.Head.Manifest.Payloads[i]
	if len(p.Encodings) > 0 {
		return w.receiveEncoded(i, g, sum)
	}
	at, err := w.fetch.SeekPayload(i, g.Size())
	if err != nil {
		return err
	}
	if w.pieces == nil {
		w.pieces = newPieces()
	}
	to := []io.Writer{sum}
	if w.sum != nil {
		to = append(to, w.sum)
	}
	beside := sumBeside(w.pieces, to...)
	err = w.copyPayload(p, at, g, beside)
	beside.wait()
	if err != nil {
		return err
	}
	return w.fetch.EndPayload(i)
}

// copyPayload stores what comes of a payload from the byte at on.
func (w *writer) copyPayload(p image.Payload, at int64, g sized, beside *sideSum) error {
	for at < p.Size {
		piece := beside.piece()
		n, err := w.fetch.Read(piece[:min(int64(len(piece)), p.Size-at)])
		fresh := piece[:n]
		if skip := g.Size() - at; skip > 0 {
			// The source could not resume and sends again what is stored.
			fresh = fresh[min(skip, int64(n)):]
		}
		at += int64(n)
		var werr error
		if len(fresh) > 0 {
			_, werr = g.Write(fresh)
		}
		w.done += int64(len(fresh))
		beside.add(piece, fresh)
		if werr != nil {
			return storeError(werr, "the bank could not be written")
		}
		w.report()
		if err == io.EOF && at < p.Size {
			return refuse(mib.FailCauseSizeMismatch, "payload %s ends %d bytes early", p.Name, p.Size-at)
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("fetch payload %s: %w", p.Name, err)
		}
	}
	return nil
}

// readBack compares everything in the bank with what was stored, from the medium where
// the platform can. Of a payload that was read back while it was stored, it reads the rest.
// What differs is removed, so that it is fetched again.
func (w *writer) readBack() error {
	h := w.fetch.Head
	var done int64
	step := func(n int64) {
		done += n
		w.progress(InstallProgress{Phase: mib.OperationPhaseVerifying, Done: done, Total: h.StoredSize()})
	}
	step(0)
	for _, f := range []struct {
		name string
		data []byte
	}{{image.ManifestName, h.Raw}, {image.SignatureName, h.Signature}} {
		got, err := w.readMedium(f.name)
		if err != nil || string(got) != string(f.data) {
			return w.differs(f.name, durable.Remove(w.fs, f.name), err)
		}
		step(int64(len(f.data)))
	}
	for _, p := range h.Manifest.Payloads {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		if err := w.compare(p); err != nil {
			return w.differs(p.Name, w.discard(p), err)
		}
		step(p.Size)
	}
	return nil
}

// compare compares what the bank holds of a payload with what was stored.
func (w *writer) compare(p image.Payload) error {
	r, err := w.open(p)
	if err != nil {
		return err
	}
	defer r.Close()
	sum, at := w.hasReadBack(p.Name)
	if at > 0 {
		if _, err := r.(io.Seeker).Seek(at, io.SeekStart); err != nil {
			return err
		}
	}
	n, err := io.CopyBuffer(sum, io.LimitReader(r, p.Size-at), w.buf[:])
	n += at
	switch {
	case err != nil:
		return err
	case n < p.Size:
		return refuse(mib.FailCauseSizeMismatch, "payload %s has %d bytes, not %d", p.Name, n, p.Size)
	case sum.Sum64() != w.stored[p.Name]:
		return refuse(mib.FailCauseDigestMismatch, "payload %s is not what was stored", p.Name)
	}
	return nil
}

func (w *writer) readMedium(name string) ([]byte, error) {
	f, err := w.fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if w.drop != nil {
		if err := w.drop(f); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, image.MaxManifest+1))
}

// differs is the error of what differs; removed is that of removing it.
func (w *writer) differs(name string, removed, err error) error {
	if removed != nil && !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return &Error{Code: mib.FailCauseReadBackMismatch, Text: name + " differs when read back", Err: err}
}
