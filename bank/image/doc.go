// Package image reads, builds and signs software images.
//
// An image is a manifest, its minisign signature and the payloads, which are the files of
// the software. It has two forms: in tar form everything is in one file, whose bytes all
// follow from manifest, signature and payloads; in split form each is a file of its own in
// one directory. The signature covers the manifest, and the manifest has the SHA-256 of
// every payload.
//
// [Build] and [BuildSplit] make images, [Inspect] and [Verify] examine them, and a [Reader]
// reads them piece by piece from a file server, as package bank does to install them.
package image
