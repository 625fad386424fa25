// Package lzma compresses data by LZMA2, as packages of Go's ecosystem do not: with a parser that
// looks for the cheapest sequence of literals and matches by the prices that the adaptive
// model has just then, as liblzma and the LZMA SDK do. The format is described by the SDK's
// lzma-specification.txt and, for LZMA2, by the decoder of Linux (lib/xz/xz_dec_lzma2.c).
package lzma
