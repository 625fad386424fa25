package files

import (
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// limitedLog logs what anybody on the network can cause: only a few lines a second, and only
// the beginning of a text that they sent.
type limitedLog struct {
	log     *slog.Logger
	limiter *rate.Limiter
	hidden  atomic.Int64 // since the last line
}

func newLimitedLog(log *slog.Logger) *limitedLog {
	return &limitedLog{log: log, limiter: rate.NewLimiter(10, 50)}
}

// warn logs a line, or counts it for the next one that is logged.
func (n *limitedLog) warn(text string, attributes ...any) {
	if !n.limiter.Allow() {
		n.hidden.Add(1)
		return
	}
	if hidden := n.hidden.Swap(0); hidden > 0 {
		attributes = append(attributes, "more_not_logged", hidden)
	}
	n.log.Warn(text, attributes...)
}

// beginning returns the beginning of a text from the network, for the log.
func beginning(text string) string {
	if len(text) > 64 {
		return text[:64] + "..."
	}
	return text
}
