package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

// BucketName is the name of a bucket of keys and values.
type BucketName string

// The buckets.
const (
	Devices   BucketName = "device"   // inventory
	Secrets   BucketName = "secret"   // sealed credentials
	Campaigns BucketName = "campaign" // specification and state
	Runs      BucketName = "run"      // one device in one campaign
	Images    BucketName = "image"    // what is known of each software image
	Backups   BucketName = "backup"   // what is known of each backup
	Access    BucketName = "access"   // users, tokens, sessions
	Settings  BucketName = "setting"  // sites, groups, schedules, programs
	Leases    BucketName = "lease"    // see Lease; entries expire after LeaseTime
)

// LogName is the name of an append-only stream.
type LogName string

// The streams.
const (
	Events LogName = "EVENT" // what happened to devices; kept for 30 days
	Audit  LogName = "AUDIT" // who did what; nothing can be deleted
)

// StoreName is the name of a store of blobs.
type StoreName string

// The stores.
const (
	ImageFiles  StoreName = "images"
	BackupFiles StoreName = "backups"
)

// LeaseTime is how long a lease lasts that is not renewed.
const LeaseTime = 6 * time.Second

// AckWait is how long a task may go without being extended before it is delivered to
// another worker.
const AckWait = 30 * time.Second

// Subjects and names in JetStream.
const (
	taskStream    = "TASK"
	taskSubject   = "task"   // task.POOL.PRIORITY
	notifySubject = "notify" // notify.KEY
	// eventAge is how long events are kept.
	eventAge = 30 * 24 * time.Hour
	// duplicates is how long a repeated write is recognized by its message ID.
	duplicates = 2 * time.Minute
)

var bucketNames = []BucketName{Devices, Secrets, Campaigns, Runs, Images, Backups, Access, Settings, Leases}

func bucketStream(b BucketName) string              { return "KV_" + string(b) }
func bucketSubject(b BucketName, key string) string { return "$KV." + string(b) + "." + key }

// bucketConfig is what a key-value bucket is in JetStream, except that reads go to the
// leader of the stream.
func bucketConfig(b BucketName, replicas int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: bucketStream(b), Subjects: []string{bucketSubject(b, ">")}, MaxMsgsPerSubject: 1, MaxMsgSize: maxValue,
		Discard: jetstream.DiscardNew, DenyDelete: true, AllowRollup: true, Duplicates: duplicates, Replicas: replicas,
		AllowAtomicPublish: b == Devices || b == Runs, // what there are many of, see CreateAll
	}
	if b == Leases {
		c.MaxAge, c.Duplicates = LeaseTime, LeaseTime
	}
	return c
}

// maxValue is the maximum size of a value, an event or a task, in bytes.
const maxValue = 1 << 20

func logConfig(l LogName, replicas int) jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name: string(l), Subjects: []string{string(l) + ".>"}, MaxMsgSize: maxValue, DenyDelete: true, Duplicates: duplicates, Replicas: replicas,
	}
	switch l {
	case Audit:
		c.DenyPurge = true
	case Events:
		c.MaxAge = eventAge
	}
	return c
}

// storeConfig is what an object store is in JetStream, except that reads go to the leader of
// the stream.
func storeConfig(s StoreName, replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: "OBJ_" + string(s), Subjects: []string{"$O." + string(s) + ".C.>", "$O." + string(s) + ".M.>"},
		Discard: jetstream.DiscardNew, AllowRollup: true, Replicas: replicas,
	}
}

func taskConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: taskStream, Subjects: []string{taskSubject + ".*.*"}, Retention: jetstream.WorkQueuePolicy, MaxMsgSize: maxValue,
		Duplicates: duplicates, Replicas: replicas,
	}
}

// streamNames returns the names of all streams in JetStream.
func streamNames() []string {
	names := []string{taskStream, string(Events), string(Audit)}
	for _, b := range bucketNames {
		names = append(names, bucketStream(b))
	}
	for _, s := range []StoreName{ImageFiles, BackupFiles} {
		names = append(names, storeConfig(s, 1).Name)
	}
	return names
}

// provision creates what is missing in JetStream. In a cluster of our own, the leader does
// so and the other nodes wait for it: of several that create a stream at the same time,
// some get no answer.
func (e *Engine) provision(ctx context.Context, replicas int) error {
	configs := []jetstream.StreamConfig{taskConfig(replicas), logConfig(Events, replicas), logConfig(Audit, replicas)}
	for _, b := range bucketNames {
		configs = append(configs, bucketConfig(b, replicas))
	}
	for _, s := range []StoreName{ImageFiles, BackupFiles} {
		configs = append(configs, storeConfig(s, replicas))
	}
	group, ctx := errgroup.WithContext(ctx)
	ensure := func(stream string, create func(context.Context) error) {
		group.Go(func() error {
			err := e.persist(ctx, func(ctx context.Context) error {
				if e.node == nil || replicas == 1 || e.node.server().JetStreamIsLeader() {
					return create(ctx)
				}
				_, err := e.js.Stream(ctx, stream)
				return err
			})
			if err != nil {
				return fmt.Errorf("engine: stream %s: %w", stream, err)
			}
			return nil
		})
	}
	for _, c := range configs {
		ensure(c.Name, func(ctx context.Context) error {
			_, err := e.js.CreateOrUpdateStream(ctx, c)
			return err
		})
	}
	return group.Wait()
}
