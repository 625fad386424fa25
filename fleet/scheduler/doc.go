// Package scheduler drives campaigns: on one node at a time, which holds a lease, it applies
// what package campaign decides. It creates the runs of a campaign, queues them, cancels
// them, and queues runs again whose worker has gone. Everything that it does is a
// compare-and-set, so that a second scheduler, or one that continues after it was stopped
// for a while, does no harm.
package scheduler
