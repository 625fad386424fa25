// Package store is typed access to what package engine stores: devices, campaigns, runs and
// other objects as JSON, sealed secrets, and the files of images and backups.
//
// Every change is a compare-and-set of one object. [Table.Change] repeats it when somebody
// else was faster; where losing means something, callers use Get and Update.
package store
