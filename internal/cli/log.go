package cli

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// LogFlags are the flags --log-level and --log-format.
type LogFlags struct{ level, format string }

// Register defines the flags.
func (l *LogFlags) Register(flags *pflag.FlagSet, level string) {
	flags.StringVar(&l.level, "log-level", level, "debug, info, warn or error")
	flags.StringVar(&l.format, "log-format", "text", "text or json")
}

// Logger returns a logger to w as the flags say.
func (l *LogFlags) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return nil, Usage(fmt.Errorf("--log-level %q: use debug, info, warn or error", l.level))
	}
	options := &slog.HandlerOptions{Level: level}
	switch l.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, Usage(fmt.Errorf("--log-format %q: use text or json", l.format))
}
