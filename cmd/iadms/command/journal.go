package command

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/afero"

	"example.com/iad/manager"
)

// openJournal opens the journal of a device and locks it: two upgrades of one device from
// one store must not run at the same time.
func openJournal(store, device string) (journal *manager.FileJournal, unlock func(), err error) {
	dir := filepath.Join(store, "journal")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, err
	}
	journal = manager.NewJournal(afero.NewBasePathFs(afero.NewOsFs(), dir), device)
	lock, err := os.OpenFile(filepath.Join(dir, journal.Name()+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := lockFile(lock); err != nil {
		lock.Close()
		return nil, nil, fmt.Errorf("%s is being upgraded by another iadms: %s: %w", device, lock.Name(), err)
	}
	return journal, func() { lock.Close() }, nil
}
