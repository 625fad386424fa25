package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"example.com/iad/internal/peers"
)

// fleet upgrades simulated devices without faults by one iadms. The figures are processor time per device, and peak memory.
func fleet(devices int) func(l *lab) (sides, error) {
	return func(l *lab) (sides, error) {
		simulator, err := l.ours("iadsim")
		if err != nil {
			return sides{}, err
		}
		iadms, err := l.ours("iadms")
		if err != nil {
			return sides{}, err
		}
		return sides{ours: func() (sample, error) { return l.upgradeFleet(simulator, iadms, devices) }}, nil
	}
}

var addressPattern = regexp.MustCompile(`"address":"([^"]+)"`)

const converter = "#!/bin/sh\nfor f in \"$3\"/*; do sed \"1s/ $1\\$/ $2/\" \"$f\" > \"$4/${f##*/}\" || exit 1; done\n"

func (l *lab) upgradeFleet(simulator, iadms string, devices int) (s sample, err error) {
	dir, err := l.directory()
	if err != nil {
		return s, err
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	port, err := peers.FreePort("udp")
	if err != nil {
		return s, err
	}
	traps := fmt.Sprintf("127.0.0.1:%d", port)
	sim, err := l.serve(exec.Command(simulator, "run", "--devices", strconv.Itoa(devices), "--maker", file("maker"), "--snmp", "127.0.0.1:0", "--trap-sink", traps, "--json"))
	if err != nil {
		return s, err
	}
	defer sim.stop()
	var addresses [][]string
	if err := l.await(sim, func() bool {
		addresses = addressPattern.FindAllStringSubmatch(sim.output.String(), -1)
		return len(addresses) >= devices
	}); err != nil {
		return s, err
	}
	var targets strings.Builder
	for _, a := range addresses {
		fmt.Fprintln(&targets, a[1])
	}
	if err := errors.Join(os.WriteFile(file("app"), bytes.Repeat([]byte("software "), 110_000), 0o600), os.WriteFile(file("convert"), []byte(converter), 0o700),
		os.WriteFile(file("targets"), []byte(targets.String()), 0o600),
		os.WriteFile(file("credentials.toml"), []byte("read_community = \"public\"\nwrite_community = \"private\"\n"), 0o600)); err != nil {
		return s, err
	}
	if _, err := l.run(exec.CommandContext(l.ctx, iadms, "image", "build", "--version", "2.0.0", "--hardware", "IAD-SIM", "--config-format", "2",
		"--converter", "1:2:"+file("convert"), "--key", file("maker.key"), "-o", file("fw.iad"), file("app"))); err != nil {
		return s, err
	}
	upgrade := exec.CommandContext(l.ctx, iadms, "upgrade", "--targets", file("targets"), "--parallel", "20", "--image", file("fw.iad"),
		"--listen", "127.0.0.1", "--notifications", traps, "--credentials", file("credentials.toml"), "--store", file("store"))
	if s, err = l.run(upgrade); err != nil {
		return s, err
	}
	usage, ok := upgrade.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return s, errors.New("the system does not report processor time")
	}
	s.took = time.Duration(usage.Utime.Nano()+usage.Stime.Nano()) / time.Duration(devices)
	return s, nil
}
