// Package transfer fetches files from and stores files on the servers that
// operators run: TFTP (RFC 1350 with RFC 2347-2349 and the windows of
// RFC 7440) and FTP (RFC 959 with RFC 2428, 3659 and 4217).
//
// A [Client] speaks to one server, one transfer at a time. Its errors are
// [*Error]: each carries the failure cause of IAD-UPGRADE-MIB, what helps against it
// and the server's own words.
//
// What both protocols have in common: a cancelled context takes effect at once;
// a transfer in which nothing arrives for [Server.Timeout] has stalled and ends;
// how long it may take in all is the context's deadline. File names are checked
// before anything is sent, and nothing that a server sends is kept beyond a
// small bound. Waiting on a network is done in real time: there is no clock to
// inject.
//
// FTP is spoken by jlaffaye/ftp over connections of ours that bound what the
// library leaves open (time and length of a reply). TFTP is spoken by a client
// of our own: pin/tftp has no windows, takes no context, and does not answer a
// repeated block, so that each lost acknowledgement costs it a full time-out.
// Lockstep is nothing but a window of one block, so one client serves both.
//
// The path of a firmware byte that comes by TFTP: [tftp.Link] (transfer/tftp/socket.go,
// link.go, packet.go) takes the datagram from the server and no other, receiver.go puts its
// block in order and acknowledges it, tftp.go and ring.go hand the window to whoever reads,
// client.go and flow.go count the bytes and hold them to the rate limit. agent/fetcher.go and
// banks.go make that reader a source of images; bank/image/reader.go and tar.go read it,
// bank/install.go and writer.go judge, store and hash it. By FTP, ftp.go and ftpdata.go stand
// in for those of TFTP.
package transfer
