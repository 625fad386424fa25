package snmp

import (
	"strings"
	"testing"
	"time"

	"github.com/gosnmp/gosnmp"

	"example.com/iad/mib"
)

// What gosnmp calls the protocols.
var (
	gosnmpAuth = [...]gosnmp.SnmpV3AuthProtocol{gosnmp.NoAuth, gosnmp.MD5, gosnmp.SHA, gosnmp.SHA224, gosnmp.SHA256, gosnmp.SHA384, gosnmp.SHA512}
	gosnmpPriv = [...]gosnmp.SnmpV3PrivProtocol{gosnmp.NoPriv, gosnmp.DES, gosnmp.AES, gosnmp.AES192, gosnmp.AES256, gosnmp.AES192C, gosnmp.AES256C}
)

// newClient returns a connected manager: v2c, or v3 if a user is given.
func newClient(t testing.TB, e *Engine, u *User) *gosnmp.GoSNMP {
	t.Helper()
	host, port := e.Addr().Addr().String(), e.Addr().Port()
	c := &gosnmp.GoSNMP{Target: host, Port: port, Version: gosnmp.Version2c, Community: "private", Timeout: 5 * time.Second, Retries: 1, MaxOids: 60}
	if u != nil {
		c.Version, c.SecurityModel = gosnmp.Version3, gosnmp.UserSecurityModel
		c.MsgFlags = map[Level]gosnmp.SnmpV3MsgFlags{NoAuthNoPriv: gosnmp.NoAuthNoPriv, AuthNoPriv: gosnmp.AuthNoPriv, AuthPriv: gosnmp.AuthPriv}[u.level()]
		c.SecurityParameters = &gosnmp.UsmSecurityParameters{
			UserName:               u.Name,
			AuthenticationProtocol: gosnmpAuth[u.Auth], AuthenticationPassphrase: u.AuthPassphrase,
			PrivacyProtocol: gosnmpPriv[u.Priv], PrivacyPassphrase: u.PrivPassphrase,
		}
	}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	return c
}

// A manager on gosnmp works at every level and with every pair of protocols,
// net-snmp's and the others.
func TestGosnmp(t *testing.T) {
	users := matrix()
	for _, priv := range []PrivProtocol{AES192C, AES256C} {
		u := User{Name: priv.String(), Auth: SHA256, AuthPassphrase: authPass, Priv: priv, PrivPassphrase: privPass, Access: full(AuthPriv)}
		users = append(users, u)
	}
	e, d := newEngine(t, Config{Conn: socketAt(t, "127.0.0.1:0"), Communities: communities(), Users: users, WeakCrypto: true, EngineID: testEngineID, Boots: 7})
	run(t, e)
	for i := range users {
		t.Run(users[i].Name, func(t *testing.T) { useGosnmp(t, e, d, &users[i]) })
	}
	t.Run("v2c", func(t *testing.T) { useGosnmp(t, e, d, nil) })
}

func useGosnmp(t *testing.T, e *Engine, d *device, u *User) {
	c := newClient(t, e, u)
	defer c.Conn.Close()
	owner := strings.TrimPrefix(t.Name(), "TestGosnmp/")
	if _, err := c.Set([]gosnmp.SnmpPDU{{Name: dotted(mib.ReqOwner, 0), Type: gosnmp.OctetString, Value: owner}}); err != nil {
		t.Fatal(err)
	}
	if got := string(d.value(mib.ReqOwner, 0).Bytes); got != owner {
		t.Errorf("SET left %q", got)
	}
	vars, err := c.BulkWalkAll(".1.3")
	if err != nil || len(vars) < 20 {
		t.Errorf("walk gives %d variables, %v", len(vars), err)
	}
}
