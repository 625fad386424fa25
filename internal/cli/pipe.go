package cli

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// SurviveClosedPipe keeps the program running after the reader of its standard output or
// standard error has ended: Go terminates programs that write to a closed pipe. Programs
// started by this one are not affected.
func SurviveClosedPipe() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}

// IsUnread reports whether err comes from a write to standard output after its reader has
// ended, for which no message is needed.
func IsUnread(err error) bool {
	var write *fs.PathError
	return errors.As(err, &write) && write.Path == os.Stdout.Name() && errors.Is(err, syscall.EPIPE)
}

// Lasting returns a writer for the output of work that must continue if nobody reads it:
// after the first error it calls closed with that error and discards everything.
func Lasting(w io.Writer, closed func(error)) io.Writer {
	return &lasting{w: w, closed: closed}
}

type lasting struct {
	mu     sync.Mutex
	w      io.Writer // nil: discard
	closed func(error)
}

func (l *lasting) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.w == nil {
		return len(p), nil
	}
	if _, err := l.w.Write(p); err != nil {
		l.w = nil
		l.closed(err)
	}
	return len(p), nil
}
