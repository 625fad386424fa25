// Package metrics shows the state of the fleet service to Prometheus. Numbers of devices,
// campaigns, questions and workers are those of the whole service, whichever node is
// asked, so a query must not add up those of several nodes. What ends is counted by each
// node from its start on.
package metrics
