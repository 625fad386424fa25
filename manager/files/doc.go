// Package files is where images and backups are: on the embedded TFTP, FTP and FTPS
// servers ([Servers]), or on another server ([ExternalServer]), which is read and written
// with package transfer.
//
// Devices see of the store only what a [Session] has granted: the images published for
// them and the backup that they write or are given (store.go). What they upload becomes
// a file when it is complete (store_upload.go); a file that is there already is kept
// under another name. A backup that was judged good is marked as complete, with the
// digests of its files (backups.go).
package files
