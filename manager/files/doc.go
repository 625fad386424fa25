// Package files is where images and backups are: on the embedded TFTP, FTP and FTPS
// servers ([Servers]), or on another server ([ExternalServer]), which is read and written
// with package transfer. Both are a [FileServer] (fileserver.go), which opens a [Session]
// for each device.
//
// The embedded servers: servers.go starts them, session.go grants a device its part of the
// store, slots.go limits how many devices are sent there at the same time. The protocols are
// in tftp_server.go, tftp_transfer.go, ftp_server.go, ftp_listener.go and ftp_certificate.go;
// rate_limit.go slows transfers down, log_limit.go limits what strangers can write to the log.
//
// The store behind them: a device sees only what its session has granted, the images
// published for it and the backup that it writes or is given (store.go, store_listing.go). An
// upload becomes a file when it is complete, and a file that has its name already is kept
// under another name (store_upload.go); store_quota.go limits what a directory takes.
//
// backup.go reads and writes backups: one that was judged good is marked as complete, with
// the digests of its files. identity.go records which device backups are of, image.go opens
// an image.
package files
