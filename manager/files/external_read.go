package files

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"example.com/iad/mib"
	"example.com/iad/transfer"
)

const (
	// maxReadBack is the largest backup that is read back, in bytes.
	maxReadBack = 64 << 20
	// readBackTime is how long one file may take in all, in either direction.
	readBackTime = 2 * time.Minute
	// readBackStall is how long a server may be silent.
	readBackStall = 10 * time.Second
)

// client speaks to the server from here.
func (e *ExternalServer) client() (*transfer.Client, error) {
	return transfer.New(transfer.Server{
		Protocol: transfer.Protocol(e.Server.Protocol), Host: e.Server.Host, Port: int(e.Server.Port),
		User: e.Server.User, Password: e.Server.Password, Path: e.Folder, Timeout: readBackStall,
	}, transfer.Options{MaxSize: maxReadBack, TLS: e.TLS})
}

// readBack reads a file on the server into to and returns its size and SHA-256
// digest. The error wraps fs.ErrNotExist if the server says that there is no such
// file, and ErrNoDigest if the file cannot be read: the server refuses it, as some do
// with all uploads, or cannot be reached from here.
func (e *ExternalServer) readBack(name string, to io.Writer) (int64, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readBackTime)
	defer cancel()
	size, digest, err := e.read(ctx, name, to)
	if err == nil {
		return size, digest, nil
	}
	var failed *transfer.Error
	code := mib.FailCauseOther
	if errors.As(err, &failed) {
		code = mib.FailCause(failed.Code)
	}
	switch code {
	case mib.FailCauseFileTooLarge:
		return 0, nil, fmt.Errorf("%w: %w", errTooLarge, err)
	case mib.FailCauseFileNotFound:
		return 0, nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	reason := "the server refuses it (" + code.String() + ")"
	if failed != nil && failed.Reply == "" && failed.Err != nil {
		reason = failed.Err.Error()
	}
	return 0, nil, &NoDigestError{Reason: reason, err: fmt.Errorf("%w: %w", ErrNoDigest, err)}
}

func (e *ExternalServer) read(ctx context.Context, name string, to io.Writer) (int64, []byte, error) {
	client, err := e.client()
	if err != nil {
		return 0, nil, err
	}
	defer client.Close()
	file, _, err := client.Get(ctx, name, 0)
	if err != nil {
		return 0, nil, err
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(sum, to), file)
	return size, sum.Sum(nil), errors.Join(err, file.Close())
}

// write stores a file on the server and reads it back if the server allows that.
func (e *ExternalServer) write(name string, data []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), readBackTime)
	defer cancel()
	client, err := e.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Put(ctx, name, bytes.NewReader(data), int64(len(data))); err != nil {
		return err
	}
	want := sha256.Sum256(data)
	_, digest, err := e.readBack(name, io.Discard)
	switch {
	case errors.Is(err, ErrNoDigest): // the device compares what it gets
		return nil
	case err == nil && !bytes.Equal(digest, want[:]):
		return fmt.Errorf("%s: %s was stored with other contents than were sent", e.Server, name)
	}
	return err
}

// NoDigestError has besides what happened, in the server's words if it spoke, a reason
// in ours.
type NoDigestError struct {
	Reason string
	err    error
}

func (e *NoDigestError) Error() string { return e.err.Error() }
func (e *NoDigestError) Unwrap() error { return e.err }

// copyWriter collects a file of up to maxConfig bytes; a larger one is not kept.
type copyWriter struct {
	data     []byte
	tooLarge bool
}

func (w *copyWriter) Write(p []byte) (int, error) {
	if len(w.data)+len(p) > maxConfig {
		w.data, w.tooLarge = nil, true
	}
	if !w.tooLarge {
		w.data = append(w.data, p...)
	}
	return len(p), nil
}
