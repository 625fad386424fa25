// Boards makes a virtual ARM board and runs it in QEMU with its console on this terminal: U-Boot, a kernel, and iad in
// two banks that are partitions of a disk. The README has the commands.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// snmpPort is the port of the host's loopback interface that leads to the board.
const snmpPort = 11161

func main() {
	log.SetFlags(0)
	log.SetPrefix("board: ")
	dir := flag.String("dir", filepath.Join("bin", "virtual"), "directory for disk, images, keys and credentials; made again if it exists")
	port := flag.Int("port", snmpPort, "UDP port on 127.0.0.1 that leads to the board")
	which := flag.String("kind", "files", "board: files, raw (FIT images on raw partitions), mips (no boot loader) or orangepi")
	keep := flag.Bool("keep", false, "start the disk that is there")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *which, *dir, *port, *keep); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, which, dir string, port int, keep bool) error {
	begun := time.Now()
	k := map[string]*kind{"files": arm, "raw": armRaw, "mips": mips, "orangepi": orangePi}[which]
	if k == nil {
		return fmt.Errorf("-kind %s: unknown kind of board; want files, raw, mips or orangepi", which)
	}
	b, err := newBuild(dir, k)
	if err != nil {
		return err
	}
	if !keep {
		if err := b.all(ctx); err != nil {
			return err
		}
		log.Printf("made %s in %.1f s", b.disk(), time.Since(begun).Seconds())
	}
	fmt.Printf(`
In another terminal, once the board says msg=ready:

  export IADMS_CREDENTIALS=%s IADMS_STORE=%s
  %s status 127.0.0.1:%d
  %s

fw-%s.iad fails its self-test, and the kernel of fw-%s.iad panics. This terminal is the board's console; ^C ends it.

`, b.credentials(), b.path("store"), b.program("iadms"), port, b.upgradeCommand(userNetwork(port), good), badTest, badKernel)
	m, err := start(ctx, b, port, options{terminal: true})
	if err != nil {
		return err
	}
	return m.wait()
}
