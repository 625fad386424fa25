//go:build !race

package manager_test

const raceDetector = false
