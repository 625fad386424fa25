// Package partition has raw partitions that hold the payload of a bank from which a boot
// loader reads, see bank.Partition: block devices ([Block]), flash memory without a file
// system ([Flash], an MTD device) and UBI volumes ([Volume]).
//
// What is read to check a bank comes from the medium. Block devices are opened with
// O_DIRECT (open(2)): the two other ways to get past the kernel's cache do not promise
// it, or do too much. posix_fadvise(2) with POSIX_FADV_DONTNEED is a hint that leaves out
// pages in use; the ioctl BLKFLSBUF needs CAP_SYS_ADMIN, and drops the cache of all of the
// device. Writing with O_DIRECT as well leaves memory to the device's service, and
// reports an error with the write that it belongs to. Character devices of MTD and UBI
// have no cache.
package partition
