// Package procedure carries out the operations of IAD-UPGRADE-MIB on a device:
// backupConfig, downloadSoftware, activate, reset, restoreOldSoftware,
// recoverConfig, convertConfig, and the abort and confirm commands.
//
// One goroutine, [Engine.Run], owns the state. A request is tested, committed
// and started by [Engine.Test] and the [Reservation] it returns; the work of an
// operation runs in a goroutine beside it and reports back. Everything that
// must outlive a restart stands in one journal, a two-copy record: the running
// operation, the history, the events with their numbers, and the state of
// software on trial. The journal is written when a state changes, never for
// progress.
//
// An operation is accepted once the journal holds it, so an accepted operation
// ends in exactly one of succeeded, failed and aborted, whatever happens to the
// power. An event is journaled with its number before it is handed to a
// front end, and handed over again after a restart if that is not known to
// have happened.
//
// The package knows neither SNMP nor files: banks, configuration data,
// transfers, the clock and the device are small interfaces declared here.
package procedure
