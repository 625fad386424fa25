package sim

import (
	"bytes"
	"fmt"
	"io/fs"

	"github.com/spf13/afero"

	"example.com/iad/internal/agefile"
	"example.com/iad/internal/crashfs"
)

var crashOperator = func() agefile.Identity {
	id, err := agefile.NewIdentity()
	if err != nil {
		panic(err)
	}
	return id
}()

// checkSecrets reports settings that were left outside the store of configuration data.
// A start has removed what a conversion was working on.
func checkSecrets(m *crashfs.Machine) error {
	for _, part := range []string{"bank1", "bank2", "state"} {
		err := afero.Walk(m.Fs(part), ".", func(name string, info fs.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return err
			}
			data, err := afero.ReadFile(m.Fs(part), name)
			if err == nil && bytes.Contains(data, []byte("owner = ")) {
				err = fmt.Errorf("%s/%s has configuration data in plain text", part, name)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
