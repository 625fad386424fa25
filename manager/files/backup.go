package files

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/afero"

	"example.com/iad/internal/agefile"
	"example.com/iad/internal/durable"
	"example.com/iad/manager/device"
	"example.com/iad/mib"
)

// BackupFile is one file of a backup, as the device and the server see it.
type BackupFile struct {
	Kind         mib.FileType
	Name         string
	Size         int64
	Format       uint32 // of the configuration data
	DeviceDigest []byte // SHA-256 of what the device sent
	ServerDigest []byte // of the file on the server; nil if unknown
	Encrypted    bool   `json:",omitempty"` // it is an age file; Format is that of its contents
}

// ModifiedMark comes between the name of a backup's directory and the number of a
// modification.
const ModifiedMark = ".modified-"

// maxConfig is the maximum size of a configuration file, in bytes.
const maxConfig = 16 << 20

// ErrNoDigest says that a file server reports no digest of a file.
var ErrNoDigest = errors.New("the file server reports no digests")

// ConfigKinds are the kinds of configuration data, in the module's order.
var ConfigKinds = []mib.FileType{
	mib.FileTypeUserData, mib.FileTypePortData, mib.FileTypeProtocolParams,
	mib.FileTypeDefaultParams, mib.FileTypeOtherData,
}

// completeMark is a file in the directory of a backup that was judged good, in the format
// of sha256sum -c. Names from the network never begin with a dot.
const completeMark = ".complete"

func markComplete(store afero.Fs, dir string, files []BackupFile) error {
	var list []byte
	for _, f := range files {
		digest := f.ServerDigest
		if len(digest) == 0 { // not compared: what the device says it sent
			digest = f.DeviceDigest
		}
		list = fmt.Appendf(list, "%x  %s\n", digest, f.Name)
	}
	return MarkComplete(store, dir, list)
}

// MarkComplete marks the backup in a directory as judged good. digests lists its files in
// the format of sha256sum.
func MarkComplete(store afero.Fs, dir string, digests []byte) error {
	if err := durable.ReplaceFile(store, path.Join(dir, completeMark), digests, 0o600); err != nil {
		return fmt.Errorf("backup %s: %w", dir, err)
	}
	return nil
}

// maxMark is the maximum size of a completeMark in bytes.
const maxMark = 64 << 10

// readMark returns the digests of the files of a backup, by file name. The error wraps
// fs.ErrNotExist if the directory has no mark.
func readMark(files afero.Fs, dir string) (map[string][]byte, error) {
	name := path.Join(dir, completeMark)
	f, err := files.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxMark+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	digests := make(map[string][]byte)
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		text, file, ok := strings.Cut(line, "  ")
		digest, err := hex.DecodeString(text)
		if !ok || err != nil || len(digest) != 0 && len(digest) != 32 || file != path.Base(file) || file == "." || file == ".." || digests[file] != nil {
			return nil, fmt.Errorf("%s is damaged at %.80q", name, line)
		}
		digests[file] = digest
	}
	if len(digests) == 0 || len(data) > maxMark {
		return nil, fmt.Errorf("%s is damaged: it does not list the files of a backup", name)
	}
	return digests, nil
}

// Backups returns the directories with backups of a device in the store of [Servers],
// oldest first.
func Backups(files afero.Fs, deviceID string) ([]string, error) {
	home := path.Join("backup", device.DirectoryName(deviceID))
	list, err := afero.ReadDir(files, home)
	if err != nil {
		return nil, fmt.Errorf("no backups of %s: %w", deviceID, err)
	}
	var dirs []string
	for _, info := range list {
		if info.IsDir() && !strings.HasPrefix(info.Name(), ".") && Original(info.Name()) == info.Name() {
			dirs = append(dirs, path.Join(home, info.Name()))
		}
	}
	slices.Sort(dirs)
	return dirs, nil
}

// Complete reports whether a backup was judged good when it was made (step 120); others
// may lack files.
func Complete(files afero.Fs, dir string) bool {
	exists, err := afero.Exists(files, path.Join(dir, completeMark))
	return err == nil && exists
}

// HoldsData reports whether a backup has more than the first lines of files. Earlier
// versions of this program could make a backup of a device on its defaults, which has
// not.
func HoldsData(files afero.Fs, dir string) bool {
	list, err := afero.ReadDir(files, dir)
	if err != nil {
		return false
	}
	for _, info := range list {
		if !strings.HasSuffix(info.Name(), ".cfg") || strings.HasPrefix(info.Name(), ".") || !info.Mode().IsRegular() {
			continue
		}
		data, err := ReadAll(files, path.Join(dir, info.Name()))
		if errors.Is(err, errTooLarge) || agefile.Is(data) { // which nobody without the key can know better
			return true
		}
		_, body, _ := bytes.Cut(data, []byte("\n"))
		if err == nil && len(bytes.TrimSpace(body)) > 0 {
			return true
		}
	}
	return false
}

// ReadBackup describes the files of a backup: kind and format from their first lines,
// size and digest from their contents. Of a complete backup it takes the files that were
// judged good, and refuses the whole set if one of them is missing or has changed. A
// directory that is not marked as complete, such as an edited copy, must have every kind
// that the backup beside it has: otherwise the device would run on a mixture of old and
// new data.
func ReadBackup(files afero.Fs, dir string) ([]BackupFile, error) {
	return Keys(nil).ReadBackup(files, dir)
}

// ReadBackup is the function of that name for a backup that may hold encrypted files without
// a description beside them, as copies do: what they are is read from their contents.
func (k Keys) ReadBackup(files afero.Fs, dir string) ([]BackupFile, error) {
	list, err := afero.ReadDir(files, dir)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	digests, err := readMark(files, dir)
	complete := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("backup: %w", err)
	}
	var backup []BackupFile
	for _, info := range list {
		name := info.Name()
		_, listed := digests[name]
		if complete && !listed || !complete && (!strings.HasSuffix(name, ".cfg") || strings.HasPrefix(name, ".")) || !info.Mode().IsRegular() {
			continue
		}
		file, err := k.describeFile(files, path.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if want := digests[name]; len(want) > 0 && !bytes.Equal(want, file.ServerDigest) {
			return nil, fmt.Errorf("backup: %s has changed since the backup was made: its SHA-256 is %x, not %x; "+
				"choose another backup or, if you edited it, remove %s and name the directory",
				path.Join(dir, name), file.ServerDigest, want, path.Join(dir, completeMark))
		}
		if slices.ContainsFunc(backup, func(f BackupFile) bool { return f.Kind == file.Kind }) {
			return nil, fmt.Errorf("backup: %s holds more than one file of kind %s", dir, file.Kind)
		}
		delete(digests, name)
		backup = append(backup, file)
	}
	if missing := slices.Sorted(maps.Keys(digests)); len(missing) > 0 {
		return nil, fmt.Errorf("backup: %s is missing or not a file; the backup is not complete without it", path.Join(dir, missing[0]))
	}
	if len(backup) == 0 {
		return nil, fmt.Errorf("backup: %s holds no configuration files", dir)
	}
	if !complete {
		if err := k.hasEveryKind(files, dir, backup); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(backup, func(a, b BackupFile) int { return int(a.Kind) - int(b.Kind) })
	return backup, nil
}

// hasEveryKind returns an error if a directory that is not marked as complete lacks kinds
// which its original has. The original is the backup that was modified, or else the
// newest complete one beside it.
func (k Keys) hasEveryKind(files afero.Fs, dir string, backup []BackupFile) error {
	original := Original(dir)
	if original == dir {
		original = ""
		list, err := afero.ReadDir(files, path.Dir(dir))
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		for _, info := range slices.Backward(list) { // by name, which begins with the time
			if beside := path.Join(path.Dir(dir), info.Name()); info.IsDir() && Complete(files, beside) {
				original = beside
				break
			}
		}
	}
	if original == "" {
		return nil
	}
	digests, err := readMark(files, original)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(digests)) {
		file, err := k.describeFile(files, path.Join(original, name))
		if err != nil {
			continue // that backup is damaged itself
		}
		if !slices.ContainsFunc(backup, func(f BackupFile) bool { return f.Kind == file.Kind }) {
			return fmt.Errorf("backup: %s has no file of kind %s, which %s has; copy it from there", dir, file.Kind, original)
		}
	}
	return nil
}

// Unchanged returns an error for files that have changed since they were described.
func Unchanged(store afero.Fs, dir string, files []BackupFile) error {
	for _, f := range files {
		name := path.Join(dir, f.Name)
		_, digest, err := digestFile(store, name)
		if err != nil {
			return fmt.Errorf("backup: %w", err)
		}
		if len(f.DeviceDigest) > 0 && !bytes.Equal(digest, f.DeviceDigest) {
			return fmt.Errorf("backup: %s has changed since the backup was made: its SHA-256 is %x, not %x", name, digest, f.DeviceDigest)
		}
	}
	return nil
}

func (k Keys) describeFile(files afero.Fs, name string) (BackupFile, error) {
	f, err := files.Open(name)
	if err != nil {
		return BackupFile{}, err
	}
	head, err := io.ReadAll(io.LimitReader(f, 128))
	if err := errors.Join(err, f.Close()); err != nil {
		return BackupFile{}, fmt.Errorf("%s: %w", name, err)
	}
	encrypted := agefile.Is(head)
	var kind mib.FileType
	var format uint32
	if encrypted {
		kind, format, err = k.sealedHeader(files, path.Dir(name), path.Base(name))
	} else {
		kind, format, err = configHeader(head)
	}
	if err != nil {
		return BackupFile{}, fmt.Errorf("%s: %w", name, err)
	}
	size, digest, err := digestFile(files, name)
	return BackupFile{Kind: kind, Name: path.Base(name), Size: size, Format: format, DeviceDigest: digest, ServerDigest: digest, Encrypted: encrypted}, err
}

// configHeader parses the first line of a configuration file, "iad-config KIND FORMAT".
func configHeader(head []byte) (mib.FileType, uint32, error) {
	for _, mark := range []string{"\xef\xbb\xbf", "\xff\xfe", "\xfe\xff"} {
		if bytes.HasPrefix(head, []byte(mark)) { // the device's software would get it too
			return 0, 0, fmt.Errorf("the file begins with a byte order mark (% x); save it as UTF-8 without one", mark)
		}
	}
	line, _, _ := bytes.Cut(head, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 3 && words[0] == "iad-config" {
		format, err := strconv.ParseUint(words[2], 10, 32)
		for _, kind := range ConfigKinds {
			if err == nil && words[1] == kind.String() {
				return kind, uint32(format), nil
			}
		}
	}
	return 0, 0, fmt.Errorf("the first line is %.60q, not \"iad-config KIND FORMAT\"", line)
}

// CopyFiles copies the files of a backup to another directory.
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
	return copyEnvelope(files, from, to)
}

// ReadAll reads a configuration file.
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

// SetFormat changes the format in the first line of each configuration file in a
// directory.
func SetFormat(files afero.Fs, dir string, format uint32) error {
	backup, err := ReadBackup(files, dir)
	if err != nil {
		return err
	}
	for _, f := range backup {
		name := path.Join(dir, f.Name)
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
