// Package board is what the agent needs of Linux: it runs the programs that a
// maker supplies (self-test, converter, hooks) within limits, tells the space of
// partitions, reads files back past the page cache, keeps a second agent off
// the same root, feeds the watchdog and restarts the agent.
//
// The files for Linux are the whole package; on other systems it is empty.
package board
