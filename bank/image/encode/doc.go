// Package encode makes the compressed files of images, which package frame decodes. It is for the
// machine on which images are built: it holds payloads and bases in memory, and takes
// seconds for each megabyte.
package encode
