//go:build !race

package bank

// raceDetector tells that everything is some ten times slower.
const raceDetector = false
