package files

import (
	"log/slog"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// noise logs what strangers can cause at will: not more than a few lines a second, and
// not more than the head of a text that they made up.
type noise struct {
	log     *slog.Logger
	limiter *rate.Limiter
	hidden  atomic.Int64 // since the last line
}

func newNoise(log *slog.Logger) *noise { return &noise{log: log, limiter: rate.NewLimiter(10, 50)} }

// warn writes a line, or counts it for the next one that is written.
func (n *noise) warn(text string, attributes ...any) {
	if !n.limiter.Allow() {
		n.hidden.Add(1)
		return
	}
	if hidden := n.hidden.Swap(0); hidden > 0 {
		attributes = append(attributes, "more_not_logged", hidden)
	}
	n.log.Warn(text, attributes...)
}

// head is what a log shows of a text from a stranger.
func head(text string) string {
	if len(text) > 64 {
		return text[:64] + "..."
	}
	return text
}
