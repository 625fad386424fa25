//go:build !race

package iadtest

// RaceDetector is true under the race detector, where everything is some ten times slower.
const RaceDetector = false
