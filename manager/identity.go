package manager

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

// Identity is what data of a device belong to: its device ID and its SNMP engine ID.
// Addresses change, so they are recorded to be shown, and never compared.
type Identity struct {
	Device string `json:"device"`
	// EngineID is in hexadecimal digits; empty with SNMPv2c, which has no
	// authenticated engine ID: then the device ID alone counts.
	EngineID string `json:"engine_id,omitempty"`
	// Address is where the device was reached, HOST:PORT.
	Address string `json:"address,omitempty"`
	// Target is the name by which the configuration knows the device; empty: none.
	Target string    `json:"target,omitempty"`
	Time   time.Time `json:"time"` // when it was recorded
}

// identityFile is in the folder of each backup, and in the folder above, of all backups
// of a device. No name from the network is hidden.
const identityFile = ".identity"

// Same reports whether two identities are of the same device as far as both are known.
func (i Identity) Same(o Identity) bool {
	return i.Device == o.Device && (i.EngineID == "" || o.EngineID == "" || i.EngineID == o.EngineID)
}

func quoted(text string) string { return fmt.Sprintf("%q", printable([]byte(text))) }

// String names device, engine, configured name and address.
func (i Identity) String() string {
	text := "device " + quoted(i.Device)
	if i.EngineID != "" {
		text += ", engine ID " + printable([]byte(i.EngineID))
	}
	if i.Target != "" {
		text += ", configured as " + quoted(i.Target)
	}
	if i.Address != "" {
		text += ", at " + printable([]byte(i.Address))
	}
	return text
}

// identityError says that a device is not the one that data belong to.
type identityError struct {
	what      string
	want, got Identity
	remedy    string
}

func (e *identityError) Error() string {
	return fmt.Sprintf("%s: %s belongs to another device (%s); %s", e.got, e.what, e.want, e.remedy)
}

func (e *identityError) Unwrap() error { return ErrIdentity }

// Identity returns what is known of the device that the client talks to. Without an
// answer from it so far, all but the address is empty.
func (c *Client) Identity() Identity {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Identity{Device: c.device, EngineID: hex.EncodeToString([]byte(c.engine)), Address: c.address}
}

// RecordedIdentity returns the identity that the store of [Servers] knows a device ID by;
// false if it does not know it, or has never reached it by SNMPv3 or by a configured name.
func RecordedIdentity(files afero.Fs, device string) (Identity, bool, error) {
	return readIdentity(files, path.Join("backup", folderName(device)))
}

func readIdentity(files afero.Fs, folder string) (id Identity, known bool, err error) {
	return readIdentityFile(files, path.Join(folder, identityFile))
}

func readIdentityFile(files afero.Fs, name string) (id Identity, known bool, err error) {
	f, err := files.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, fmt.Errorf("identity: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(f, 4096))
	if err = errors.Join(err, f.Close()); err == nil {
		err = json.Unmarshal(data, &id)
	}
	if err != nil {
		return id, false, fmt.Errorf("identity: %s is damaged; remove it if the device is known to be the right one: %w", name, err)
	}
	return id, true, nil
}

func writeIdentity(files afero.Fs, folder string, id Identity) error {
	return writeIdentityFile(files, path.Join(folder, identityFile), id)
}

func writeIdentityFile(files afero.Fs, name string, id Identity) error {
	data, err := json.Marshal(id)
	if err == nil {
		err = durable.MkdirAll(files, path.Dir(name), 0o700)
	}
	if err == nil {
		err = durable.ReplaceFile(files, name, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("identity of the device: %w", err)
	}
	return nil
}

// identity is that of the device which the procedure is about.
func (u *upgrade) identity() Identity {
	id := u.plan.Client.Identity()
	id.Device, id.Target, id.Time = u.device.ID, u.plan.Target.Name, u.plan.Clock.Now().UTC()
	return id
}

// permitted refuses a device that is not the one which something belongs to, unless the
// plan or a person permits it.
func (u *upgrade) permitted(ctx context.Context, what string, want Identity, remedy string) error {
	if want.Same(u.identity()) {
		return nil
	}
	return u.allow(ctx, what, want, remedy)
}

// allow has the plan or a person permit a device that is not the one which something
// belongs to.
func (u *upgrade) allow(ctx context.Context, what string, want Identity, remedy string) error {
	got := u.identity()
	err := &identityError{what: what, want: want, got: got, remedy: remedy}
	if u.plan.OtherDevice || u.plan.Accept != nil && u.plan.Accept(ctx, err.Error()) {
		u.warn(0, fmt.Sprintf("%s belongs to %s, and is used with %s", what, want, got))
		return nil
	}
	return err
}

// bind compares the device with the one that the backups of its device ID are of, and
// with the one that the configured name stands for. What is met first counts from then on.
func (u *upgrade) bind(ctx context.Context) error {
	home := path.Join("backup", folderName(u.device.ID))
	store := u.session.Local(home, nil)
	if store == nil {
		return nil
	}
	known, found, err := readIdentity(store, home)
	if err != nil {
		return err
	}
	got := u.identity()
	if found {
		if got.EngineID == "" && known.EngineID != "" {
			u.note(0, "SNMPv2c: the device is known by its device ID alone")
		}
		err := u.permitted(ctx, home, known, "use --other-device if this is the same unit with a new engine ID, or its replacement")
		if err != nil {
			return err
		}
	}
	if got.Target, err = u.bindTarget(ctx, store, known); err != nil || u.plan.CheckOnly {
		return err
	}
	if got.EngineID == "" {
		got.EngineID = known.EngineID
	}
	if got.EngineID != known.EngineID || got.Target != known.Target {
		if err := writeIdentity(store, home, got); err != nil {
			return err
		}
	}
	return u.recordTarget(store)
}

// warnOfIdentity warns of a device that is not the one which the backups of its device ID
// are of. It is for what uses no data of the store.
func (u *upgrade) warnOfIdentity() {
	store := u.session.Local(path.Join("backup", folderName(u.device.ID)), nil)
	if store == nil {
		return
	}
	if text := IdentityWarning(store, u.identity()); text != "" {
		u.warn(0, text)
	}
}

// IdentityWarning says how a device differs from the one that the store of [Servers] knows
// by its device ID, or by the name of its target; empty if it does not, or is not known.
func IdentityWarning(files afero.Fs, id Identity) string {
	known, found, err := RecordedIdentity(files, id.Device)
	same := known.Same(id)
	if id.Target != "" && err == nil && (!found || same) {
		known, found, err = readIdentityFile(files, targetFile(id.Target))
		same = known.Device == id.Device
	}
	switch {
	case err != nil:
		return err.Error()
	case !found || same:
		return ""
	}
	return fmt.Sprintf("%s has another identity than recorded: %s", id, known)
}

// ownBackup refuses to give a device data of another one.
func (u *upgrade) ownBackup(ctx context.Context, folder string) error {
	want := Identity{Device: u.device.ID}
	if store := u.session.Local(folder, nil); store != nil {
		original, _, _ := strings.Cut(folder, modifiedMark)
		for _, name := range []string{folder, original} {
			id, found, err := readIdentity(store, name)
			if err != nil {
				return err
			}
			if found {
				want = id
				break
			}
		}
	}
	// The folder counts as well: earlier versions recorded nothing in it.
	if home := path.Base(path.Dir(folder)); want.Device == u.device.ID && strings.HasPrefix(folder, "backup/") && home != folderName(u.device.ID) {
		want = Identity{Device: home}
	}
	return u.permitted(ctx, folder, want, "name the folder with --from and permit it with --other-device")
}
