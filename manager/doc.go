// Package manager is the management system's side of an upgrade (the IADMS): it commands
// a device by SNMP SET requests to IAD-UPGRADE-MIB, follows it by notifications and by
// polling, and judges success, failure and time-out.
//
// [Upgrade] takes one device through the whole procedure:
//
//	100 command the backup of the configuration data
//	110 follow it
//	120 judge it; on failure ask the operator, then 100 again or end
//	130 command the update of the software
//	140 follow it
//	150 judge it
//	160 on failure roll back to the old software, then 130 again or end
//	170 command the recovery of the configuration data, converted if needed
//	180 follow it
//	190 judge it; on failure ask the operator, then 170 again or end
//
// From Upgrade down: upgrade.go compares the device with what is recorded of it
// (identity.go, software.go) and runs three stages: step_backup.go has steps 100 to 120,
// step_update.go 130 to 160, step_recover.go 170 to 190. Each stage is a loop: it takes
// its steps once (backUpOnce, install, recoverOnce), and after a failure has the [Operator]
// decide whether they are repeated (operator.go; policy.go without a person). A step
// performs an operation (perform.go), which is started once, recorded (journal.go) and
// followed to its verdict (follow.go, events.go).
//
// Configuration data have three special cases: the device runs on defaults (defaults.go),
// holds newer data than the backup (newer.go), or needs data modified here (modify.go).
//
// The package prints nothing and asks nobody: an [Observer] gets what happens and an
// [Operator] decides. It uses package device for SNMP requests, trap for notifications,
// and files for backups and images.
package manager
