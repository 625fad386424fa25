package snmp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"example.com/iad/mib"
)

// memory is where a device keeps what managers have changed.
type memory struct {
	mu   sync.Mutex
	data []byte
	err  error
	n    int // how often something was stored
}

func (m *memory) store(data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.data = slices.Clone(data)
		m.n++
	}
	return m.err
}

// fail makes storing fail, or work again.
func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// stored is what was stored last, and how often something was.
func (m *memory) stored() ([]byte, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.data, m.n
}

// keyConfig is a device whose users' keys can be changed.
func keyConfig(t *testing.T, m *memory, users ...User) Config {
	data, _ := m.stored()
	return Config{
		Conn: socketAt(t, "127.0.0.1:0"), Users: users, WeakCrypto: true, EngineID: testEngineID, Boots: 7,
		Changes: data, Store: m.store,
	}
}

// passwd are the arguments of snmpusm for a change of a user's passphrase; an empty name
// stands for the requester itself.
func passwd(which, old, new, name string) []string {
	args := []string{which, "passwd", old, new}
	if name != "" {
		args = append(args, name)
	}
	return args
}

// with is a user with other passphrases.
func with(u User, auth, priv string) *User {
	u.AuthPassphrase, u.PrivPassphrase = auth, priv
	return &u
}

// usm runs snmpusm, whose own options stand before the address.
func usm(t *testing.T, u *User, at string, args []string) (string, bool) {
	t.Helper()
	return tool(t, 10, "snmpusm", append(append(options(u), args[0], at), args[1:]...)...)
}

func mustUsm(t *testing.T, u *User, at string, args ...string) {
	t.Helper()
	if out, ok := usm(t, u, at, args); !ok || !strings.Contains(out, "successfully changed") {
		t.Fatalf("snmpusm %v: %s", args, out)
	}
}

// wantUser checks with snmpget what the passphrases of a user are.
func wantUser(t *testing.T, at string, now *User, before ...*User) {
	t.Helper()
	id := dotted(mib.DeviceId, 0)
	wantLine(t, mustTool(t, "snmpget", append(options(now), at, id)...), id+` = STRING: "iad-1"`)
	for _, u := range before {
		if out, ok := tool(t, 10, "snmpget", append(options(u), at, id)...); ok {
			t.Errorf("%s still gets in with the passphrases of before: %s", u.Name, out)
		}
	}
}

// Keys that snmpusm changes, of its own user and of another one, are those of the new
// passphrases at once and after a restart, and the old ones are of no use.
func TestUsmChangesKeys(t *testing.T) {
	for _, u := range matrix()[1:] {
		if u.level() != AuthPriv || u.Priv != AES128 && u.Auth != SHA1 && u.Auth != SHA256 {
			continue // a change takes privacy, and some pairs are enough
		}
		t.Run(u.Name, func(t *testing.T) {
			m := &memory{}
			other := u
			other.Name = "other"
			e, _ := newEngine(t, keyConfig(t, m, u, other))
			run(t, e)
			at := e.Addr().String()
			for _, name := range []string{"", "other"} {
				was := u
				if name != "" {
					was = other
				}
				by := func(of *User) *User {
					if name != "" {
						return with(u, "a new secret", "another new secret") // changed in the first turn
					}
					return of
				}
				mustUsm(t, by(&was), at, passwd("-Ca", authPass, "a new secret", name)...)
				half := with(was, "a new secret", privPass)
				wantUser(t, at, half, &was)
				mustUsm(t, by(half), at, passwd("-Cx", privPass, "another new secret", name)...)
				wantUser(t, at, with(was, "a new secret", "another new secret"), half, &was)
			}
			again, _ := newEngine(t, keyConfig(t, m, u, other))
			run(t, again)
			for _, was := range []User{u, other} {
				wantUser(t, again.Addr().String(), with(was, "a new secret", "another new secret"), &was)
			}
			if got := again.Changed().Users; !slices.Equal(got, []string{u.Name, "other"}) {
				t.Errorf("changed: %v", got)
			}
		})
	}
}

// snmpusm changes both keys in one SET, and back again.
func TestUsmChangesBothKeys(t *testing.T) {
	m := &memory{}
	u := *with(privateUser, "one and the same", "one and the same")
	e, _ := newEngine(t, keyConfig(t, m, u))
	run(t, e)
	at := e.Addr().String()
	changed := with(u, "a new secret", "a new secret")
	if out, ok := tool(t, 10, "snmpusm", append(options(&u), at, "passwd", "one and the same", "a new secret")...); !ok {
		t.Fatal(out)
	}
	wantUser(t, at, changed, &u)
	if _, n := m.stored(); n != 1 {
		t.Errorf("stored %d times", n)
	}
	if out, ok := tool(t, 10, "snmpusm", append(options(changed), at, "passwd", "a new secret", "one and the same")...); !ok {
		t.Fatal(out)
	}
	wantUser(t, at, &u, changed)
	again, _ := newEngine(t, keyConfig(t, m, u))
	if got := again.Changed().Users; len(got) != 0 {
		t.Errorf("changed back, and still %v", got)
	}
}

// column is the name of an instance of usmUserTable.
func column(n uint32, user string) string {
	return "." + oidUsmUserEntry.Append(n).Append(indexOf(testEngineID)...).Append(indexOf([]byte(user))...).String()
}

// The table shows the users of the configuration, and no key.
func TestUserTable(t *testing.T) {
	m := &memory{}
	users := append(matrix(), User{Name: "reeder", Auth: SHA256, AuthPassphrase: authPass, Priv: AES256C, PrivPassphrase: privPass})
	cfg := keyConfig(t, m, users...)
	cfg.Communities = communities()
	e, _ := newEngine(t, cfg)
	run(t, e)
	at := e.Addr().String()
	admin := append(options(&users[len(users)-2]), at)
	walk := mustTool(t, "snmpwalk", append(admin, ".1.3.6.1.6.3.15.1.2")...)
	for _, line := range []string{
		column(3, "nobody") + ` = STRING: "nobody"`, column(4, "nobody") + " = OID: .0.0",
		column(5, "nobody") + " = OID: .1.3.6.1.6.3.10.1.1.1", column(8, "nobody") + " = OID: .1.3.6.1.6.3.10.1.2.1",
		column(5, "MD5_DES") + " = OID: .1.3.6.1.6.3.10.1.1.2", column(8, "MD5_DES") + " = OID: .1.3.6.1.6.3.10.1.2.2",
		column(5, "SHA_AES") + " = OID: .1.3.6.1.6.3.10.1.1.3", column(8, "SHA_AES") + " = OID: .1.3.6.1.6.3.10.1.2.4",
		column(5, "SHA-512_AES-256") + " = OID: .1.3.6.1.6.3.10.1.1.7", column(8, "SHA-512_AES-256") + " = OID: .1.3.6.1.4.1.14832.1.4",
		column(8, "reeder") + " = OID: .1.3.6.1.4.1.9.12.6.1.2",
		column(6, "SHA_AES") + ` = ""`, column(7, "SHA_AES") + ` = ""`, column(9, "SHA_AES") + ` = ""`, column(10, "SHA_AES") + ` = ""`,
		column(11, "SHA_AES") + ` = ""`, column(12, "SHA_AES") + " = INTEGER: 4", column(13, "SHA_AES") + " = INTEGER: 1",
	} {
		wantLine(t, walk, line)
	}
	if lines, want := strings.Count(walk, "\n"), 1+11*len(users); lines != want {
		t.Errorf("%d lines, want %d:\n%s", lines, want, walk)
	}
	if bulk := mustTool(t, "snmpbulkwalk", append(admin, ".1.3.6.1.6.3.15.1.2")...); bulk != walk {
		t.Errorf("snmpwalk and snmpbulkwalk differ:\n%s\n%s", walk, bulk)
	}
	for _, stranger := range [][]string{{"-v2c", "-c", "private"}, options(&users[0])} {
		out := mustTool(t, "snmpwalk", append(stranger, at, ".1.3.6.1.6.3")...)
		if !strings.Contains(out, ".1.3.6.1.6.3.15.1.1.6.0") || strings.Contains(out, ".1.3.6.1.6.3.15.1.2.") {
			t.Errorf("%v sees of the users:\n%s", stranger, out)
		}
		refused(t, "No Such Object", "snmpget", append(stranger, at, column(3, "SHA_AES"))...)
		if out, ok := tool(t, 10, "snmpset", append(stranger, at, column(11, "SHA_AES"), "s", "x")...); ok {
			t.Errorf("%v changes a user: %s", stranger, out)
		}
	}
	if data, n := m.stored(); n != 0 {
		t.Errorf("something was stored: %s", data)
	}
}

// What RFC 3414 does not permit, and what iad.toml does not, changes nothing.
func TestUserTableRefuses(t *testing.T) {
	m := &memory{}
	manager, clerk, reader := privateUser, privateUser, privateUser
	clerk.Name, clerk.Access = "clerk", []Access{{Level: AuthNoPriv, Read: Everything(), Write: View{
		{OID: mib.OID{1}}, {OID: oidUsmUserEntry.Append(userAuthKeyChange), Excluded: true}, {OID: oidUsmUserEntry.Append(userPrivKeyChange), Excluded: true},
	}}}
	reader.Name, reader.Access = "reader", []Access{{Level: AuthNoPriv, Read: Everything()}}
	plain := User{Name: "plain", Access: full(NoAuthNoPriv)}
	e, d := newEngine(t, keyConfig(t, m, manager, clerk, reader, plain))
	run(t, e)
	at := e.Addr().String()
	public := options(&clerk)
	public = append(slices.Clone(public), "-l", "authNoPriv")
	n := 2 * len(e.users["clerk"].own.settings.AuthKey())
	change, short := strings.Repeat("5a", n), strings.Repeat("5a", n-1)
	lock := func() string {
		return mustTool(t, "snmpget", append(append(options(&manager), "-Oqv", at), oidUsmUserSpinLock.String())...)
	}
	for _, c := range []struct {
		name string
		who  []string
		args []string
		want string
	}{
		{"another's key without a view", options(&clerk), []string{column(6, "manager"), "x", change}, "noAccess"},
		{"another's mark", options(&clerk), []string{column(11, "manager"), "s", "x"}, "noAccess"},
		{"another's own key", options(&manager), []string{column(7, "clerk"), "x", change}, "noAccess"},
		{"a reader's own key", options(&reader), []string{column(7, "reader"), "x", change}, "authorizationError"},
		{"without privacy", public, []string{column(7, "clerk"), "x", change}, "authorizationError"},
		{"too short", options(&clerk), []string{column(7, "clerk"), "x", short}, "wrongLength"},
		{"too long", options(&clerk), []string{column(7, "clerk"), "x", change + "5a"}, "wrongLength"},
		{"empty", options(&clerk), []string{column(7, "clerk"), "s", ""}, "wrongLength"},
		{"wrong type", options(&clerk), []string{column(7, "clerk"), "i", "1"}, "wrongType"},
		{"half of it wrong", options(&clerk), []string{column(7, "clerk"), "x", change, column(10, "clerk"), "x", change}, "wrongLength"},
		{"two changes", options(&manager), []string{column(7, "manager"), "x", change, column(6, "manager"), "x", strings.Repeat("a5", n)}, "inconsistentValue"},
		{"twice", options(&manager), []string{column(7, "manager"), "x", change, column(7, "manager"), "x", strings.Repeat("a5", n)}, "inconsistentValue"},
		{"an old lock", options(&clerk), []string{oidUsmUserSpinLock.String(), "i", "0", column(7, "clerk"), "x", change}, "inconsistentValue"},
		{"a lock of another type", options(&clerk), []string{oidUsmUserSpinLock.String(), "s", "0"}, "wrongType"},
		{"no such user", options(&manager), []string{column(6, "nobody"), "x", change}, "noCreation"},
		{"a new user", options(&manager), []string{column(13, "nobody"), "i", "4"}, "noCreation"},
		{"one user less", options(&manager), []string{column(13, "clerk"), "i", "6"}, "notWritable"},
		{"another protocol", options(&manager), []string{column(5, "clerk"), "o", ".1.3.6.1.6.3.10.1.1.1"}, "notWritable"},
		{"another origin", options(&manager), []string{column(4, "clerk"), "o", column(3, "manager")}, "notWritable"},
		{"a name", options(&manager), []string{column(3, "clerk"), "s", "x"}, "notWritable"},
		{"no column", options(&manager), []string{column(14, "clerk"), "s", "x"}, "notWritable"},
		{"long text", options(&manager), []string{column(11, "clerk"), "s", strings.Repeat("x", 33)}, "wrongLength"},
		{"a key and a wrong request", options(&clerk), []string{column(7, "clerk"), "x", change, dotted(mib.ReqOwner, 0), "i", "1"}, "wrongType"},
		{"a key and what the device refuses", options(&clerk), []string{column(7, "clerk"), "x", change, dotted(mib.DeviceId, 0), "s", "x"}, "notWritable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refused(t, c.want, "snmpset", append(append(slices.Clone(c.who), at), c.args...)...)
		})
	}
	t.Run("cannot be stored", func(t *testing.T) {
		m.fail(errors.New("no space left on device"))
		refused(t, "commitFailed", "snmpset", append(options(&clerk), at, column(7, "clerk"), "x", change)...)
		m.fail(nil)
	})
	t.Run("the device's part fails", func(t *testing.T) {
		d.mu.Lock()
		d.commitFails = true
		d.mu.Unlock()
		refused(t, "commitFailed", "snmpset", append(options(&clerk), at, column(7, "clerk"), "x", change, dotted(mib.ReqOwner, 0), "s", "x")...)
		again, _ := newEngine(t, keyConfig(t, m, manager, clerk, reader, plain))
		if got := again.Changed().Users; len(got) > 0 {
			t.Errorf("stored all the same: %v", got)
		}
	})
	if _, n := m.stored(); n != 2 { // and undone
		t.Errorf("stored %d times", n)
	}
	for _, u := range []*User{&manager, &clerk, &reader} {
		wantUser(t, at, u)
	}

	// What the RFC does permit: a lock that is current, a mark, and keys that do not exist.
	was := lock()
	mustTool(t, "snmpset", append(options(&manager), at, oidUsmUserSpinLock.String(), "i", was,
		column(6, "plain"), "x", change, column(9, "plain"), "x", "", column(11, "plain"), "s", "turn 1")...)
	if now := lock(); now == was {
		t.Error("the lock has not changed")
	}
	refused(t, "inconsistentValue", "snmpset", append(options(&manager), at, oidUsmUserSpinLock.String(), "i", was)...)
	again, _ := newEngine(t, keyConfig(t, m, manager, clerk, reader, plain))
	if got := again.users["plain"].own.public; string(got) != "turn 1" || len(again.Changed().Users) > 0 {
		t.Errorf("after a restart %q, %v", got, again.Changed())
	}
	if got := lock(); got == fmt.Sprint(again.own(t, oidUsmUserSpinLock.String()).Int) {
		t.Error("a lock from before a restart is valid after it")
	}
}

// Passphrases that are changed in iad.toml count, also if they are changed back. So does
// another engine ID, for which no key is known.
func TestSettingsReplaceKeys(t *testing.T) {
	m := &memory{}
	u, other := privateUser, privateUser
	other.Name = "other"
	e, _ := newEngine(t, keyConfig(t, m, u, other))
	run(t, e)
	for _, name := range []string{"other", ""} {
		mustUsm(t, &u, e.Addr().String(), passwd("-Ca", authPass, "a new secret", name)...)
	}
	stored, _ := m.stored()
	start := func(who ...User) *Engine {
		t.Helper()
		e, _ := newEngine(t, keyConfig(t, m, who...))
		return e
	}
	changed := func(e *Engine, want ...string) {
		t.Helper()
		if got := e.Changed().Users; !slices.Equal(got, want) {
			t.Errorf("changed: %v, want %v", got, want)
		}
	}
	changed(start(u, other), "manager", "other")
	for name, edited := range map[string]*User{
		"the passphrase": with(u, "edited in iad.toml", privPass), "the other passphrase": with(u, authPass, "edited in iad.toml"),
		"the protocol": {Name: u.Name, Auth: SHA512, AuthPassphrase: authPass, Priv: u.Priv, PrivPassphrase: privPass},
	} {
		m.data = stored
		now := start(*edited, other)
		changed(now, "other")
		if !slices.Equal(now.users[u.Name].own.keys.Load().AuthKey(), now.users[u.Name].own.settings.AuthKey()) {
			t.Errorf("%s: the key is not that of the settings", name)
		}
		changed(start(u, other), "other") // and back
	}
	m.data = stored
	changed(start(u), "manager")
	changed(start(u, other), "manager") // was removed

	m.data = stored
	cfg := keyConfig(t, m, u, other)
	cfg.EngineID = append(slices.Clone(testEngineID[:12]), 99)
	elsewhere, _ := newEngine(t, cfg)
	changed(elsewhere)
	if f := elsewhere.Findings(); len(f) != 2 || !strings.Contains(strings.Join(f, "\n"), "user other are those of the settings") {
		t.Errorf("findings: %q", f)
	}
	changed(start(u, other), "manager", "other") // the old identity is there again

	m.data = []byte("{")
	damaged := start(u, other)
	changed(damaged)
	if len(damaged.Findings()) != 1 {
		t.Errorf("findings of damage: %q", damaged.Findings())
	}
}

// FuzzChanges reads what is stored, damaged in some way.
func FuzzChanges(f *testing.F) {
	m := &memory{}
	cfg := Config{Users: []User{privateUser}, EngineID: testEngineID, Boots: 7, Store: m.store, Sinks: []Sink{{Address: "192.0.2.1:162", Community: "x"}}}
	e, _ := newEngine(f, cfg)
	moved := endpointOf("[2001:db8::1%1]:1162")
	e.sinks[0].at.Store(&moved)
	a := e.users["manager"].own
	keys, err := a.settings.WithKeys(make([]byte, len(a.settings.AuthKey())), make([]byte, len(a.settings.PrivKey())))
	if err != nil {
		f.Fatal(err)
	}
	a.keys.Store(keys)
	if err := e.store(e.changes(nil)); err != nil {
		f.Fatal(err)
	}
	f.Add(m.data)
	f.Add([]byte(`{"engine":"","keys":[{"engine":"AAAAAAA=","user":"manager"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if CheckChanges(data) != nil {
			return
		}
		again := Engine{tree: e.tree, log: e.log, cfg: e.cfg}
		again.users, again.cfg.Changes = map[string]*user{}, data
		u := *e.users["manager"] // whose keys need not be derived again
		u.own = &account{user: &u, engineID: a.engineID, index: a.index, settings: a.settings}
		u.own.keys.Store(a.settings)
		again.users["manager"] = &u
		again.sinks = []*sink{newSink(&again, cfg.Sinks[0])}
		again.applyChanges()
		if at := again.sinks[0].at.Load(); !at.equal(again.sinks[0].configured) {
			if _, err := at.check(); err != nil {
				t.Fatal(err)
			}
		}
		k := u.own.keys.Load()
		if len(k.AuthKey()) != len(a.settings.AuthKey()) || len(k.PrivKey()) != len(a.settings.PrivKey()) {
			t.Fatalf("keys of other lengths: %s, %s", hex.EncodeToString(k.AuthKey()), hex.EncodeToString(k.PrivKey()))
		}
	})
}

// Traps are sent with the keys that a manager set for the device, informs with those it set for the
// receiver, whose engine the keys of informs belong to.
func TestNotificationsWithChangedKeys(t *testing.T) {
	const receiver = "8000000001020304"
	m := &memory{}
	trapd := func(auth, priv string) (string, <-chan string) {
		keys := fmt.Sprintf("manager SHA-256 %q AES %q", auth, priv)
		return snmptrapd(t, fmt.Sprintf("exactEngineID 0x%s\ncreateUser -e 0x%x %s\ncreateUser %s\nauthUser log manager priv\n", receiver, testEngineID, keys, keys))
	}
	start := func(addr string) *Engine {
		cfg := keyConfig(t, m, privateUser)
		cfg.Sinks = []Sink{{Address: addr, User: "manager"}, {Address: addr, User: "manager", Inform: true}}
		e, _ := newEngine(t, cfg)
		run(t, e)
		return e
	}
	const trap, inform = 0, 1
	arrives := func(e *Engine, lines <-chan string, which int) {
		t.Helper()
		if err := e.Receivers()[which].Notify(t.Context(), notice); err != nil {
			t.Fatal(err)
		}
		awaitLine(t, lines, append([]string{[]string{"TRAP2", "INFORM"}[which], "user manager"}, noticeParts...)...)
	}
	addr, lines := trapd(authPass, privPass)
	e := start(addr)
	at := e.Addr().String()
	arrives(e, lines, trap)
	row := "." + oidUsmUserEntry.Append(3, 8, 0x80, 0, 0, 0, 1, 2, 3, 4).Append(indexOf([]byte("manager"))...).String()
	refused(t, "No Such Instance", "snmpget", append(options(&privateUser), at, row)...)
	arrives(e, lines, inform)
	wantLine(t, mustTool(t, "snmpget", append(options(&privateUser), at, row)...), row+` = STRING: "manager"`)
	walk := mustTool(t, "snmpwalk", append(options(&privateUser), at, ".1.3.6.1.6.3.15.1.2.2")...)
	if n := strings.Count(walk, "8.128.0.0.0.1.2.3.4.7."); n != 11 {
		t.Errorf("%d columns of the receiver's row:\n%s", n, walk)
	}

	u := &privateUser
	mustUsm(t, u, at, passwd("-Ca", authPass, "a new secret", "")...)
	u = with(privateUser, "a new secret", privPass)
	arrives(e, lines, inform) // the receiver has not changed anything yet
	// snmpusm localizes keys to the engine of the row, which stands for the receiver's here.
	for _, key := range []struct{ which, old, new string }{{"-Ca", authPass, "a new secret"}, {"-Cx", privPass, "another new secret"}} {
		out, ok := tool(t, 10, "snmpusm", append(options(u), "-CE", receiver, key.which, at, "passwd", key.old, key.new)...)
		if !ok || !strings.Contains(out, "successfully changed") {
			t.Fatal(out)
		}
	}
	mustUsm(t, u, at, passwd("-Cx", privPass, "another new secret", "")...)
	wantUser(t, at, with(privateUser, "a new secret", "another new secret"))
	if got := e.Changed().Users; !slices.Equal(got, []string{"manager"}) {
		t.Errorf("changed: %v", got)
	}

	addr, lines = trapd("a new secret", "another new secret")
	e = start(addr)
	arrives(e, lines, trap)
	arrives(e, lines, inform)
	if n := len(e.accounts()); n != 2 {
		t.Errorf("%d rows", n)
	}

	// Under another engine ID those for the receiver remain.
	elsewhere := keyConfig(t, m, privateUser)
	elsewhere.EngineID = append(slices.Clone(testEngineID[:12]), 99)
	elsewhere.Sinks = []Sink{{Address: addr, User: "manager"}, {Address: addr, User: "manager", Inform: true}}
	e, _ = newEngine(t, elsewhere)
	run(t, e)
	arrives(e, lines, inform)
	if f := e.Findings(); len(f) != 1 || !strings.Contains(f[0], "another engine ID: the keys of user manager") {
		t.Errorf("findings: %q", f)
	}

	// Without informs the receiver's row is of no use.
	cfg := keyConfig(t, m, privateUser)
	again, _ := newEngine(t, cfg)
	if n := len(again.accounts()); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// Several targets at one receiver share the row of their user there. When the table is full, rows
// with the keys of the settings make room.
func TestRowsOfReceivers(t *testing.T) {
	cfg := keyConfig(t, &memory{}, privateUser)
	cfg.Sinks = []Sink{{Address: "192.0.2.1:162", User: "manager", Inform: true}}
	e, _ := newEngine(t, cfg)
	engine := func(n int) []byte { return append(slices.Clone(testEngineID[:10]), byte(n>>8), byte(n)) }
	u := e.users["manager"]
	first, second := e.remote(u, engine(0)), e.remote(u, engine(0))
	if e.register(first) != first || e.register(second) != first {
		t.Error("two accounts have one row")
	}
	keys, err := first.settings.WithKeys(make([]byte, len(first.settings.AuthKey())), nil)
	if err != nil {
		t.Fatal(err)
	}
	first.keys.Store(keys)
	for n := range maxRemotes { // one more than there is room for
		e.register(e.remote(u, engine(n+1)))
	}
	rows := e.accounts()
	has := func(n int) bool {
		return slices.ContainsFunc(rows, func(a *account) bool { return slices.Equal(a.engineID, engine(n)) })
	}
	if len(rows) != 1+maxRemotes || !has(0) || has(1) || !has(2) || !has(maxRemotes) {
		t.Errorf("%d rows; has 0: %v, 1: %v, 2: %v, %d: %v", len(rows), has(0), has(1), has(2), maxRemotes, has(maxRemotes))
	}
}
