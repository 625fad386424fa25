// Package board is what the agent needs of Linux: it runs the programs that a
// maker supplies (self-test, converter, hooks) within limits, measures the
// space of partitions, reads files back past the page cache, keeps a second agent off
// the same root, feeds the watchdog and restarts the agent.
//
// It is for boards with Linux. On other systems it compiles, so that everything that
// uses it can be worked on and virtual devices in memory run there; what needs Linux
// returns errors.ErrUnsupported.
package board
