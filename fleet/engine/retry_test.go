package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestPassing: a node that starts knows its streams a moment later, whichever part of the
// library asks for them.
func TestPassing(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{jetstream.ErrStreamNotFound, true},
		{nats.ErrStreamNotFound, true},
		{nats.ErrConsumerNotFound, true},
		{nats.ErrJetStreamNotEnabled, true},
		{&jetstream.APIError{Code: 503, Description: "no leader"}, true},
		{&nats.APIError{Code: 503, Description: "no leader"}, true},
		{&nats.APIError{Code: 400, Description: "bad request"}, false},
		{&jetstream.APIError{Code: 400, ErrorCode: jetstream.JSErrCodeStreamWrongLastSequence}, false},
		{jetstream.ErrKeyNotFound, false},
		{context.Canceled, false},
	} {
		if got := passing(fmt.Errorf("bucket: %w", c.err)); got != c.want {
			t.Errorf("%v: %v, want %v", c.err, got, c.want)
		}
	}
}
