package main

import (
	"testing"

	"example.com/iad/internal/manpages"
)

// TestManPages writes the manual pages; make man does so into bin/man.
func TestManPages(t *testing.T) { manpages.Test(t, newRoot) }
