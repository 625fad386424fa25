package main

import "time"

// size of the files in the comparisons on loopback.
const size = 64 << 20

// table has the rows in the order in which they are measured.
func table() []row {
	far := line{delay: farDelay}
	lossy := line{delay: farDelay, loss: 0.01}
	return []row{
		{name: "64 MiB by FTP into a bank: fetch, check signature and SHA-256, write, sync; ours also reads back", peer: []string{"swupdate", "--version"}, wanted: 1, start: install(size)},
		{name: "64 MiB by FTP, SHA-256, sync", peer: []string{"curl", "--version"}, wanted: 0.5, start: ftpGet(size)},
		{name: "64 MiB by TFTP, blocks of 1428 bytes (windows of 64), SHA-256, sync", peer: []string{"atftp", "--version"}, wanted: 0.6, start: tftpGet(size, 64, line{})},
		{name: "64 MiB uploaded by FTP", peer: []string{"curl", "--version"}, wanted: 1, start: ftpPut(size)},
		{name: "1 MiB by TFTP, round trip of 20 ms (peer: windows of 64)", peer: []string{"atftp", "--version"}, wanted: 0.8, start: tftpGet(1<<20, 0, far)},
		{name: "1 MiB by TFTP, round trip of 20 ms, 1 % of all datagrams lost (peer: windows of 64)", peer: []string{"atftp", "--version"}, wanted: 0.8, worst: time.Second, start: tftpGet(1<<20, 0, lossy)},
		{name: "GET through AgentX, 8 clients, per request", peer: []string{"snmpd", "--version"}, wanted: 1, start: agentXRequests(false)},
		{name: "SET through AgentX, 8 clients, per request", peer: []string{"snmpd", "--version"}, wanted: 1, start: agentXRequests(true)},
		{name: "GET v2c, 8 clients, per request", peer: []string{"snmpd", "--version"}, wanted: 0.5, start: engineRequests(false)},
		{name: "GET v3 authPriv, 8 clients, per request", peer: []string{"snmpd", "--version"}, wanted: 0.67, start: engineRequests(true)},
		{name: "Processor time of iadms per device, 10 devices, image of 1 MB", start: fleet(10)},
		{name: "Processor time of iadms per device, 100 devices, image of 1 MB", limit: 10 * time.Millisecond, start: fleet(100)},
		{name: "Processor time of iadms per device, 400 devices, image of 1 MB", start: fleet(400)},
		{name: "Start of iad with two banks of 64 MiB, until it answers; peer: SHA-256 of one bank", peer: []string{"openssl", "version"}, wanted: 1.2, start: starting(size)},
		{name: "Compressed iad for MIPS and ARM, geometric mean", peer: []string{"xz", "--version"}, wanted: 1.05, bytes: true, once: true, start: compressed},
		{name: "Difference from iad 80 commits ago, geometric mean", peer: []string{"bsdiff"}, wanted: 1, bytes: true, once: true, start: difference("bsdiff")},
		{name: "Difference from iad 80 commits ago, geometric mean, against xdelta3 -9", peer: []string{"xdelta3", "-V"}, wanted: 0.62, bytes: true, once: true, start: difference("xdelta3", "-9", "-e", "-f", "-s")},
		{name: "Memory while a difference is applied, iad for MIPS; peer: bspatch", peer: []string{"bsdiff"}, wanted: 0.4, bytes: true, start: applying},
		{name: "Code for xz, differences and encryption in iad for MIPS with FTPS", bytes: true, once: true, most: 120 << 10, start: decodingCode()},
		{name: "Code for xz, differences and encryption in iad for MIPS without FTPS", bytes: true, once: true, most: 120 << 10, start: decodingCode("-noftps")},
		{name: "Size: 1 MiB by FTP into a bank", peer: []string{"swupdate", "--version"}, start: install(1 << 20)},
		{name: "Size: 16 MiB by FTP into a bank", peer: []string{"swupdate", "--version"}, start: install(16 << 20)},
		{name: "Size: 256 MiB by FTP into a bank", peer: []string{"swupdate", "--version"}, start: install(256 << 20)},
	}
}
