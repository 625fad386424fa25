package agent_test

import (
	"testing"

	"example.com/iad/mib"
)

// Who may write where a server is, but does not know its password, cannot have
// the device send it to another server, nor in clear to the same one.
func TestPasswordOfAnotherServer(t *testing.T) {
	onBench(t, nil, func(b *bench) {
		set := func(want mib.TruthValue, vbs ...mib.Varbind) {
			b.must(vbs...)
			b.want(mib.ServerPasswordSet, int64(want), 1)
		}
		typ, address := num(mib.ServerAddressType, int64(mib.InetAddressTypeIpv4), 1), text(mib.ServerAddress, "\x7f\x00\x00\x01", 1)
		secret := text(mib.ServerPassword, "secret", 1)
		set(mib.TruthValueTrue, typ, address, secret, num(mib.ServerPort, 21, 1))
		set(mib.TruthValueTrue, typ, address, text(mib.ServerUser, "other", 1), text(mib.ServerPath, "other", 1), num(mib.ServerPort, 21, 1))
		set(mib.TruthValueTrue, text(mib.ServerAddress, "\x7f\x00\x00\x01", 2), num(mib.ServerAddressType, 1, 2))
		set(mib.TruthValueFalse, text(mib.ServerAddress, "\x7f\x00\x00\x02", 1))
		set(mib.TruthValueTrue, secret)
		set(mib.TruthValueFalse, num(mib.ServerPort, 2121, 1))
		set(mib.TruthValueTrue, secret, num(mib.ServerPort, 21, 1))
		set(mib.TruthValueFalse, num(mib.ServerProtocol, 2, 1))
		set(mib.TruthValueTrue, num(mib.ServerProtocol, 1, 1), secret)
		set(mib.TruthValueFalse, text(mib.ServerAddress, "", 1), num(mib.ServerAddressType, 0, 1))
	})
}
