package command

import (
	"os"
	"testing"

	"github.com/spf13/cobra"

	"example.com/iad/internal/manpages"
)

// TestManPages writes the manual pages; make man does so into bin/man.
func TestManPages(t *testing.T) {
	manpages.Test(t, func() *cobra.Command { return newRoot(os.Getenv("VERSION")) })
}
