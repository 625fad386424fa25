// Package conformance judges devices that implement IAD-UPGRADE-MIB, from outside: it
// writes and reads objects, receives notifications, and serves files from servers of its
// own, which can be slow or hostile.
//
// [Requirements] are what a device has to do, each with the object or rule of the module
// that it follows from. [Tests] judge requirements: a test commands operations, and while
// it does so every answer and every notification is checked against the rules that always
// hold, such as that iadUpgOpPercent never decreases within an attempt. Execute runs the
// tests of a suite on one device and returns a [Run], which WriteHTML, WriteJUnit and
// WriteJSON write as a report and Diff compares with another one.
//
// # Where to read
//
// requirements.go has the requirements, tests_*.go the tests in the order in which they
// run. run.go runs them; judge.go is what a test is written with; request.go starts and
// follows operations; watch.go has the rules that always hold; servers.go and
// servers_ftp.go are the file servers; software.go makes images.
package conformance
