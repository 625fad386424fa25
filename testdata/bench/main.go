// Bench measures this project side by side with the programs that people would use instead of it: SWUpdate, curl, atftp and
// net-snmp. It prints one table: the work, the peer with its version, the time of each, the ratio, and whether the ratio that is
// wanted was reached.
//
//	make bench                              all rows
//	go run ./testdata/bench --only 'TFTP'   rows whose name matches a regular expression
//	go run ./testdata/bench --list          names of the rows
//
// Both sides of a row do the same work on the same machine, in rounds that alternate. It needs root, because the servers do,
// the programs that "make peers" unpacks, and openssl and a C compiler. docs/performance.md describes the method.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	if len(os.Args) > 1 && os.Args[1] == workerName {
		if err := work(context.Background(), os.Args[2:]); err != nil {
			log.Fatal(err)
		}
		return
	}
	asJSON := flag.Bool("json", false, "print a JSON object per row")
	list := flag.Bool("list", false, "print the names of the rows and measure nothing")
	only := flag.String("only", "", "measure the rows whose name matches this regular expression")
	rounds := flag.Int("rounds", 9, "rounds of each side; their medians are compared")
	keep := flag.Bool("keep", false, "keep the temporary directory")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil {
		log.Fatalf("--only: %v", err)
	}
	if *rounds < 1 || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	rows := slices.DeleteFunc(table(), func(r row) bool { return !pattern.MatchString(r.name) })
	if len(rows) == 0 {
		log.Fatalf("no row matches %q; --list prints their names", *only)
	}
	if *list {
		for _, r := range rows {
			fmt.Println(r.name)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, rows, *rounds, *asJSON, *keep); err != nil {
		stop()
		log.Fatal(err)
	}
}

// run measures the rows one after the other. A row that cannot be measured does not stop the others.
func run(ctx context.Context, rows []row, rounds int, asJSON, keep bool) (err error) {
	lab, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if keep {
			log.Printf("kept %s", lab.dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(lab.dir))
	}()
	begun := load()
	var results []result
	failed := 0
	for i, r := range rows {
		fmt.Fprintf(os.Stderr, "%d of %d: %s\n", i+1, len(rows), r.name)
		res, err := lab.measure(r, rounds)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			res = result{Name: r.name, Error: err.Error()}
		}
		results = append(results, res)
		if asJSON {
			if err := json.NewEncoder(os.Stdout).Encode(res); err != nil {
				return err
			}
		}
	}
	if !asJSON {
		fmt.Printf("%d rounds of each side; load average before %s, after %s; %s\n\n", rounds, begun, load(), time.Now().UTC().Format("2006-01-02 15:04 UTC"))
		print(os.Stdout, results)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d rows were not measured", failed, len(rows))
	}
	return nil
}

// load is the load average of the last minute.
func load() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(data), " ")
	return first
}

// print writes the table.
func print(to io.Writer, results []result) {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WORK\tPEER\tPEER'S TIME OR SIZE\tOURS\tRATIO\tWANTED\tMET\tMEMORY OF PEER, OURS\tPROCESSOR TIME OF PEER, OURS (OF OTHERS)")
	for _, r := range results {
		if r.Error != "" {
			fmt.Fprintf(w, "%s\t\t\t\t\t\tnot measured\t\t\n", r.Name)
			continue
		}
		met := "met"
		switch {
		case r.Met == nil:
			met = "-"
		case !*r.Met:
			met = "NOT MET"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, cmp.Or(r.Peer, "-"), figures(r.PeerTime, r.PeerBytes), figures(r.Ours, r.OurBytes), ratio(r.Ratio), cmp.Or(r.Wanted, "-"), met, memory(r), processor(r))
	}
	w.Flush()
	for _, r := range results {
		if r.Error != "" {
			fmt.Fprintf(to, "\n%s: %s\n", r.Name, r.Error)
		}
	}
}

func figures(seconds, bytes *spread) string {
	switch {
	case bytes != nil:
		return fmt.Sprintf("%.0f bytes", bytes.Median)
	case seconds != nil:
		return times(seconds)
	}
	return "-"
}

func times(s *spread) string {
	return fmt.Sprintf("%s (%s-%s)", short(s.Median), short(s.Least), short(s.Most))
}

// short prints seconds with three digits.
func short(seconds float64) string {
	switch {
	case seconds >= 1:
		return fmt.Sprintf("%.2f s", seconds)
	case seconds >= 0.1:
		return fmt.Sprintf("%.0f ms", seconds*1e3)
	case seconds >= 0.001:
		return fmt.Sprintf("%.1f ms", seconds*1e3)
	}
	return fmt.Sprintf("%.1f us", seconds*1e6)
}

func ratio(s *spread) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.Median, s.Least, s.Most)
}

func processor(r result) string {
	if r.OurProcessor == 0 {
		return "-"
	}
	return fmt.Sprintf("%s (%s), %s (%s)", short(r.PeerProcessor), short(r.PeerOthers), short(r.OurProcessor), short(r.OurOthers))
}

func memory(r result) string {
	mib := func(bytes int64) string {
		if bytes == 0 {
			return "-"
		}
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
	return mib(r.PeerMemory) + ", " + mib(r.OurMemory)
}
