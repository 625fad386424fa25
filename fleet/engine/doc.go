// Package engine stores the state of the fleet service and connects its processes: key-value
// buckets with revisions, leases, a queue of tasks, streams of events, blobs and
// notifications. It runs NATS JetStream inside this process, on one node or on three, or
// connects to nodes elsewhere. No other package imports NATS; subjects, buckets and their
// settings are in settings.go.
//
// What a write has acknowledged is on disk, on a majority of the nodes. Decisions depend
// only on Create and Update, which compare revisions: what Get and Watch return may be
// older. Writes are repeated until ctx ends, and a repeated write takes effect once, so
// that a caller waits for a node that is down instead of failing.
//
// The queue delivers a task at least once, and not while another worker extends it. It is a
// hint: what was done is in the buckets.
package engine
