package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/spf13/afero"

	"example.com/iad/internal/durable"
)

func CopyFiles(files afero.Fs, list []BackupFile, from, to string) error {
	for _, f := range list {
		data, err := ReadAll(files, path.Join(from, f.Name))
		if err == nil {
			err = durable.ReplaceFile(files, path.Join(to, f.Name), data, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ReadAll(files afero.Fs, name string) ([]byte, error) {
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(data) > maxConfig {
		err = fmt.Errorf("%w: %s has more than %d bytes", errTooLarge, name, maxConfig)
	}
	return data, errors.Join(err, f.Close())
}

// SetFormat writes another format into the first line of each configuration
// file in a folder.
func SetFormat(files afero.Fs, folder string, format uint32) error {
	backup, err := ReadBackup(files, folder)
	if err != nil {
		return err
	}
	for _, f := range backup {
		name := path.Join(folder, f.Name)
		data, err := ReadAll(files, name)
		if err != nil {
			return err
		}
		_, rest, _ := bytes.Cut(data, []byte("\n"))
		data = append(fmt.Appendf(nil, "iad-config %s %d\n", f.Kind, format), rest...)
		if err := durable.ReplaceFile(files, name, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
