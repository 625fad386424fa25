package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// ConsoleForms describes what OpenConsole reads, a line each.
const ConsoleForms = `/dev/ttyUSB0@115200      serial device at a speed (115200 if left out)
tcp:HOST:PORT            raw TCP, such as of ser2net
file:PATH                what is appended to a file`

// OpenConsole opens a console for reading, by a specification as in ConsoleForms. Reading
// ends with ctx.
func OpenConsole(ctx context.Context, spec string) (io.ReadCloser, error) {
	kind, rest, _ := strings.Cut(spec, ":")
	switch {
	case strings.HasPrefix(spec, "/"):
		return openSerial(spec)
	case kind == "tcp":
		d := net.Dialer{Timeout: 10 * time.Second}
		c, err := d.DialContext(ctx, "tcp", rest)
		if err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		context.AfterFunc(ctx, func() { c.Close() })
		return c, nil
	case kind == "file":
		f, err := os.Open(rest)
		if err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			f.Close()
			return nil, fmt.Errorf("console: %w", err)
		}
		return &growing{ctx: ctx, File: f}, nil
	}
	return nil, fmt.Errorf("console %q: want one of\n%s", spec, ConsoleForms)
}

// growing is a file that others append to: reading waits at its end.
type growing struct {
	ctx context.Context
	*os.File
}

// look is how often growing looks for more.
const look = 50 * time.Millisecond

func (g *growing) Read(p []byte) (int, error) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		n, err := g.File.Read(p)
		if n > 0 || err != io.EOF {
			return n, err
		}
		select {
		case <-tick.C:
		case <-g.ctx.Done():
			return 0, g.ctx.Err()
		}
	}
}
