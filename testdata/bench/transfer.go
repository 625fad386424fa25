package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
	"example.com/iad/mib"
	"example.com/iad/transfer"
)

// Name of the command that makes this program do our side of a transfer: in a process of its own, as the peers.
const workerName = "transfer"

// work runs "get PROTOCOL PORT PATH NAME TARGET WINDOW" or "put PROTOCOL PORT PATH NAME SOURCE WINDOW" with a server on
// 127.0.0.1. WINDOW is the most blocks in a window of TFTP, 0 for the default.
func work(ctx context.Context, args []string) error {
	if len(args) != 7 {
		return errors.New("this command is for the benchmark itself")
	}
	server := transfer.Server{Host: "127.0.0.1", Protocol: mib.ProtocolFtp, Path: args[3]}
	if args[1] == "tftp" {
		server.Protocol = mib.ProtocolTftp
	}
	var err error
	if server.Port, err = strconv.Atoi(args[2]); err != nil {
		return err
	}
	window, err := strconv.Atoi(args[6])
	if err != nil {
		return err
	}
	c, err := transfer.New(server, transfer.Options{Window: window})
	if err != nil {
		return err
	}
	defer c.Close()
	if args[0] == "get" {
		return get(ctx, c, args[4], args[5])
	}
	f, err := os.Open(args[5])
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_, err = c.Put(ctx, args[4], f, info.Size())
	return err
}

// get fetches a file, hashes it and writes it to the medium, as a bank does.
func get(ctx context.Context, c *transfer.Client, name, target string) error {
	r, _, err := c.Get(ctx, name, 0)
	if err != nil {
		return err
	}
	defer r.Close()
	a, err := durable.OpenAppender(afero.NewOsFs(), target, 0o644)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.CopyBuffer(io.MultiWriter(a, h), r, make([]byte, 128<<10))
	if err = errors.Join(err, a.Close()); err == nil {
		fmt.Printf("%x  %s\n", h.Sum(nil), target)
	}
	return err
}

// content makes a file of random bytes.
func content(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{1}), size); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// worker is a command for our side.
func (l *lab) worker(args ...string) *exec.Cmd {
	return exec.CommandContext(l.ctx, l.self, append([]string{workerName}, args...)...)
}

// ftpGet fetches by FTP, hashes and syncs.
func ftpGet(size int64) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		x, err := l.exchange("curl", size)
		if err == nil {
			err = x.serve(l.vsftpd, x.from)
		}
		if err != nil {
			return sides{}, err
		}
		ours, theirs := filepath.Join(x.to, "ours"), filepath.Join(x.to, "peer")
		return sides{
			ours: func() (sample, error) {
				return l.into(ours, l.worker("get", "ftp", strconv.Itoa(x.port), "files", "file", ours, "0"))
			},
			peer: func() (sample, error) {
				return l.into(theirs, exec.CommandContext(l.ctx, x.peer, "-sS", "-o", theirs, fmt.Sprintf("ftp://127.0.0.1:%d/files/file", x.port)),
					exec.CommandContext(l.ctx, "sha256sum", theirs), exec.CommandContext(l.ctx, "sync", theirs))
			},
		}, nil
	}
}

// exchange is what rows about transfers have in common.
type exchange struct {
	peer     string // program
	from, to string // directories; from has a file named "file"
	port     int    // of the server
}

// exchange finds the peer's program and makes a file of this size.
func (l *lab) exchange(peer string, size int64) (x exchange, err error) {
	if x.peer, err = l.program(peer); err == nil {
		x.from, err = l.directory()
	}
	if err == nil {
		x.to, err = l.directory()
	}
	if err == nil {
		err = content(filepath.Join(x.from, "file"), size)
	}
	return x, err
}

// serve starts a server of a directory.
func (x *exchange) serve(start func(files string) (port int, err error), files string) (err error) {
	x.port, err = start(files)
	return err
}

// into runs programs that write a file, which is not there before and removed afterwards.
func (l *lab) into(file string, list ...*exec.Cmd) (sample, error) {
	s, err := l.run(list...)
	if err != nil {
		return s, err
	}
	return s, os.Remove(file)
}

// tftpGet fetches by TFTP in blocks of 1428 bytes, hashes and syncs. The peer uses windows of 64 blocks, our side windows of
// as many, or chooses them itself if window is 0. The line is that between the two.
func tftpGet(size int64, window int, way line) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		x, err := l.exchange("atftp", size)
		if err == nil {
			err = x.serve(l.atftpd, x.from)
		}
		if err != nil {
			return sides{}, err
		}
		ours, theirs := filepath.Join(x.to, "ours"), filepath.Join(x.to, "peer")
		// over runs a side through a relay of its own; both sides get the same seed for losses.
		over := func(seed *uint64, side func(port int) (sample, error)) (sample, error) {
			if way == (line{}) {
				return side(x.port)
			}
			*seed++
			r, err := startRelay(x.port, way, *seed)
			if err != nil {
				return sample{}, err
			}
			defer r.close()
			return side(r.port())
		}
		var ourSeed, theirSeed uint64
		return sides{
			ours: func() (sample, error) {
				return over(&ourSeed, func(port int) (sample, error) {
					return l.into(ours, l.worker("get", "tftp", strconv.Itoa(port), "", "file", ours, strconv.Itoa(window)))
				})
			},
			peer: func() (sample, error) {
				return over(&theirSeed, func(port int) (sample, error) {
					return l.into(theirs, exec.CommandContext(l.ctx, x.peer, "--option", "blksize 1428", "--option", "windowsize 64",
						"--get", "--remote-file", "file", "--local-file", theirs, "127.0.0.1", strconv.Itoa(port)),
						exec.CommandContext(l.ctx, "sha256sum", theirs), exec.CommandContext(l.ctx, "sync", theirs))
				})
			},
		}, nil
	}
}

// ftpPut uploads by FTP.
func ftpPut(size int64) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		x, err := l.exchange("curl", size)
		if err == nil {
			err = x.serve(l.vsftpd, x.to)
		}
		if err != nil {
			return sides{}, err
		}
		source := filepath.Join(x.from, "file")
		return sides{
			ours: func() (sample, error) {
				return l.into(filepath.Join(x.to, "ours"), l.worker("put", "ftp", strconv.Itoa(x.port), "files", "ours", source, "0"))
			},
			peer: func() (sample, error) {
				return l.into(filepath.Join(x.to, "peer"), exec.CommandContext(l.ctx, x.peer, "-sS", "-T", source, fmt.Sprintf("ftp://127.0.0.1:%d/files/peer", x.port)))
			},
		}, nil
	}
}

const farDelay = 10 * time.Millisecond // one way
