// Package manager is the management system's side of an upgrade (the IADMS):
// it commands a device by SNMP SET requests to IAD-UPGRADE-MIB, follows it by
// notifications and by polling, and judges success, failure and time-out.
//
// [Upgrade] carries one device through the whole procedure:
//
//	100 command the backup of the configuration data
//	110 follow it
//	120 judge it; on failure ask the operator, then 100 again or end
//	130 command the update of the software
//	140 follow it
//	150 judge it
//	160 on failure go back to the old software, then 130 again or end
//	170 command the recovery of the configuration data, converted if needed
//	180 follow it
//	190 judge it; on failure ask the operator, then 170 again or end
//
// It talks to the device by package device, hears its notifications from package trap,
// and keeps backups and images with package files. upgrade.go has the order of the
// stages; step_backup.go, step_update.go and step_recover.go have the steps and what is
// repeated; perform.go carries out one operation and follow.go watches it; policy.go
// decides without a person.
//
// The package prints nothing and asks nobody: an [Observer] is told what
// happens and an [Operator] decides.
package manager
