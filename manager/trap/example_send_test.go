package trap_test

import (
	"log"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

// sendExample sends an inform as a device would.
func sendExample(port uint16) {
	g := &gosnmp.GoSNMP{
		Target: "127.0.0.1", Port: port, Version: gosnmp.Version3, SecurityModel: gosnmp.UserSecurityModel, MsgFlags: gosnmp.AuthPriv,
		SecurityParameters: &gosnmp.UsmSecurityParameters{
			UserName: "iadms", AuthenticationProtocol: gosnmp.SHA256, AuthenticationPassphrase: "authentication",
			PrivacyProtocol: gosnmp.AES, PrivacyPassphrase: "privacy-privacy",
		},
		Timeout: 2 * time.Second, Retries: 2,
	}
	if err := g.Connect(); err != nil {
		log.Fatal(err)
	}
	defer g.Conn.Close()
	if _, err := g.SendTrap(makeTrap(mib.NotifyOpFailed, "IAD-0001", 1, true)); err != nil {
		log.Fatal(err)
	}
}
