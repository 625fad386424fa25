//go:build race

package manager_test

// raceDetector tells that everything is some ten times slower.
const raceDetector = true
