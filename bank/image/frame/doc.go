// Package frame decodes the compressed files of an image: an index, then frames that stand
// for consecutive pieces of a payload.
//
// All frames stand for the same number of bytes of the payload, the frame size; only the last
// one may stand for fewer. The index has an entry for each frame: its length in the file as 4
// bytes, most significant first, and the SHA-256 of these bytes. So each frame can be fetched,
// checked before a decoder sees it, and decoded without the others.
//
// A frame is one or more streams of the xz format (https://tukaani.org/xz/xz-file-format.txt),
// each with one block and LZMA2 as its only filter. With codec [XZ] they hold the bytes of the
// payload. With codec [XZDelta] they hold a difference from another file, the base:
//
//	length of the control data, number of literal bytes   unsigned varints
//	control data: for each step
//	    number of bytes to copy                           unsigned varint
//	    number of literal bytes that follow them          unsigned varint
//	    distance from there in the base to the next copy  signed varint
//	literal bytes of all steps
//	for each copied byte, what is added to it, modulo 256
//
// Varints are those of package encoding/binary. The first copy starts at byte 0 of the base; a
// frame whose first copy starts elsewhere begins with a step that copies nothing.
package frame
