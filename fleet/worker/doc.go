// Package worker carries out the runs of campaigns: it takes tasks from the queue of its
// pool, claims each run, has package manager take the device through the procedure, and
// stores how it ended.
//
// # Once per device
//
// A run has at most one worker. Claiming it is a compare-and-set of the run (claim.go), and
// so is every save of the manager's journal: a worker that was stopped for a while, and whose
// run has been given to another one, fails with its next save and commands nothing more.
// Before each command the manager reads the device's lock (iadUpgReqLock) and then calls
// Owned, which is such a compare-and-set too; the command carries the lock. So a command of
// a worker that has lost its run arrives with an old lock, or it is the very command that
// the next worker finds journaled and adopts.
//
// # Questions
//
// A question is stored in the run, which then has no worker (operator.go). The answer
// queues the run again, the manager asks the same question, and gets the answer.
package worker
