// Package uboot shares the choice of the bank with U-Boot. It reads and writes U-Boot's
// environment format, and keeps a [bank.LoaderState] in it in one of four ways:
//
//   - [Script]: two raw copies of our own that the boot script in deploy/uboot reads and
//     writes. Any U-Boot with "env import -c" and block reads and writes can do that
//     without being built again.
//   - [Native]: the same variables in U-Boot's own environment.
//   - [RAUC]: the variables of RAUC's boot scripts, BOOT_ORDER and BOOT_A_LEFT.
//   - [Bootcount]: U-Boot's boot counter (bootcount, bootlimit, upgrade_available) with a
//     variable that names the bank, as SWUpdate and Mender use it.
//
// # The format
//
// A copy of an environment starts with the CRC-32 of all that follows, in the byte order
// of the board's processor. If U-Boot keeps two copies, a flags byte comes next. The
// variables follow as NAME=VALUE, each ended by a zero byte, and one more zero byte ends
// them. The checksum covers the whole size that U-Boot was configured with, so a wrong
// size looks like a damaged environment.
package uboot
