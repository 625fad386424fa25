// Package batch carries out one procedure for several devices, some of them at the same
// time.
package batch
