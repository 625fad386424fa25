package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/internal/iadtest"
)

// TestChaos upgrades many devices with three nodes and two more workers, each of which is
// killed and started again in turn, of which one is stopped for longer than its lease
// lasts, and of which one has a full disk for a while. Every device ends with software and configuration data that are complete, and its
// own history proves that it carried out nothing twice. IADMSD_CHAOS is the number of
// devices, IADMSD_CHAOS_SEED that of the schedule, IADMSD_CHAOS_ROUNDS how often everything
// is killed, a worker stopped and a disk full, IADMSD_CHAOS_STOP the seconds for which it is, and with
// IADMSD_CHAOS_KILL=0 nothing is killed; make chaos sets them.
func TestChaos(t *testing.T) {
	usual := 300
	if iadtest.RaceDetector { // make test runs it once more without
		usual = 40
	}
	devices, seed := number(t, "IADMSD_CHAOS", usual), number(t, "IADMSD_CHAOS_SEED", 1)
	rounds := number(t, "IADMSD_CHAOS_ROUNDS", 1)
	stopTime := time.Duration(number(t, "IADMSD_CHAOS_STOP", int(2*engine.LeaseTime/time.Second))) * time.Second
	ctx, cancel := context.WithTimeout(t.Context(), max(5*time.Minute, time.Duration(devices)*time.Second))
	defer cancel()
	kill := number(t, "IADMSD_CHAOS_KILL", 1) != 0
	l := newLab(t, ctx, devices)
	var join, urls []string
	for range 3 {
		join, urls = append(join, freeAddress(t)), append(urls, "nats://"+freeAddress(t))
	}
	slots := strconv.Itoa(number(t, "IADMSD_CHAOS_SLOTS", 15))
	common := []string{"--notifications", "none", "--slots", slots, "--poll", "500ms"}
	var processes []*process
	small := newDisk(t, filepath.Join(l.dir, "node3"), fmt.Sprintf("%dm", 256+devices/4))
	for i := range 3 {
		var sees func(*exec.Cmd) *exec.Cmd
		if i == 2 && small != nil {
			sees = small.command
		}
		processes = append(processes, l.startSeeing(sees, fmt.Sprintf("node%d", i+1), append([]string{
			"--roles", "scheduler,worker", "--cluster", join[i], "--join", strings.Join(join, ","), "--listen", strings.TrimPrefix(urls[i], "nats://"),
		}, common...)...))
	}
	l.connect(urls...)
	for i := range 2 {
		processes = append(processes, l.start(fmt.Sprintf("worker%d", i+1), append([]string{
			"--roles", "worker", "--nats", strings.Join(urls, ","),
		}, common...)...))
	}
	l.fill()
	began := time.Now()
	l.campaign("chaos", fleet.CampaignSpec{
		Operation: fleet.OperationUpgrade, Image: l.image("2.0.0", 2),
		Options: fleet.RunOptions{OnFailure: []string{"advice", "service"}, Retries: 3, DeviceRetries: 2},
		Retry:   fleet.RetryRule{Attempts: 20, Pause: fleet.Duration(time.Second), MaxPause: fleet.Duration(5 * time.Second)},
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.ends("chaos")
	}()
	schedule := rand.New(rand.NewPCG(uint64(seed), 0))
	t.Logf("%d devices, seed %d", devices, seed)
	step := func(least, more int) bool {
		return wait(ended, time.Duration(least+schedule.IntN(more))*time.Millisecond)
	}
	report := func(format string, args ...any) {
		t.Logf("%5.1f s: "+format, append([]any{time.Since(began).Seconds()}, args...)...)
	}
	stops := 1
	if !kill {
		stops += len(processes)
	}
	for range rounds {
		for _, p := range processes {
			if !kill || !step(2000, 3000) {
				break
			}
			report("%s is killed", p.name)
			p.kill()
			step(0, 2000)
			p.run()
		}
		for range stops {
			if p := processes[3+schedule.IntN(2)]; step(2000, 3000) {
				report("%s is stopped for %s", p.name, stopTime)
				p.signal(syscall.SIGSTOP)
				wait(ended, stopTime)
				p.signal(syscall.SIGCONT)
			}
		}
		if small != nil && kill && step(2000, 3000) {
			report("the disk of node3 is full")
			free := small.fill()
			step(10_000, 10_000)
			free()
			report("it is not any more")
		}
	}
	<-ended
	t.Logf("%d devices in %.1f s", devices, time.Since(began).Seconds())
	l.check("chaos", false)
}

// wait waits for a time, and reports whether ended is still open.
func wait(ended <-chan struct{}, d time.Duration) bool {
	select {
	case <-ended:
		return false
	case <-time.After(d):
		return true
	}
}

func (p *process) signal(s syscall.Signal) {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.lab.t.Error(err)
	}
}
