package service

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"example.com/iad/bank/image"
	"example.com/iad/fleet"
	"example.com/iad/fleet/engine"
	"example.com/iad/fleet/operations"
	"example.com/iad/fleet/store"
	"example.com/iad/mib"
)

// maxEdited is the maximum size of an edited file, as for files that devices send.
const maxEdited = 16 << 20

// Backups implements operations.Service.
func (s *Service) Backups(ctx context.Context, by operations.Caller, device string) ([]fleet.Backup, error) {
	if err := s.permit(ctx, by, operations.Read, "device/"+device); err != nil {
		return nil, err
	}
	list, err := s.store.Backups.List(ctx, device)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *fleet.Backup) int { return cmp.Or(b.Time.Compare(a.Time), strings.Compare(b.ID, a.ID)) })
	all := make([]fleet.Backup, len(list))
	for i, b := range list {
		all[i] = *b
	}
	return all, nil
}

func (s *Service) backup(ctx context.Context, device, id string) (*fleet.Backup, error) {
	b, _, err := s.store.Backups.Get(ctx, device, id)
	return b, failed(err, "backup", device+"/"+id)
}

// BackupFile implements operations.Service. Who reads configuration data is in the audit.
func (s *Service) BackupFile(ctx context.Context, by operations.Caller, device, id, kind string) ([]byte, error) {
	object := "backup/" + device + "/" + id + "/" + kind
	if err := s.permit(ctx, by, operations.ReadBackup, object); err != nil {
		return nil, err
	}
	b, err := s.backup(ctx, device, id)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(b.Files, func(f fleet.BackupFile) bool { return f.Kind == kind }) {
		return nil, notFound("file", object)
	}
	data, err := s.store.BackupFile(ctx, b, kind)
	if err != nil {
		return nil, err
	}
	_, err = s.cfg.Audit.Append(ctx, fleet.AuditEntry{Actor: by.Actor(), From: by.From, Action: string(operations.ReadBackup), Object: object})
	return data, err
}

// EditBackup implements operations.Service.
func (s *Service) EditBackup(ctx context.Context, by operations.Caller, device, id string, files map[string][]byte) (*fleet.Backup, error) {
	var edited *fleet.Backup
	err := s.change(ctx, by, operations.EditBackup, "backup/"+device+"/"+id, func() (effect, error) {
		b, err := s.backup(ctx, device, id)
		if err != nil {
			return effect{}, err
		}
		for kind, data := range files {
			if _, ok := mib.ParseFileType(kind); !ok || !slices.ContainsFunc(b.Files, func(f fleet.BackupFile) bool { return f.Kind == kind }) {
				return effect{}, field("files."+kind, "is not a file of this backup")
			}
			if len(data) > maxEdited {
				return effect{}, field("files."+kind, "must have at most %d bytes", maxEdited)
			}
		}
		copied := *b
		now := s.now()
		copied.ID, copied.EditOf, copied.By, copied.Time = now.Format("20060102T150405.000Z")+"-"+shortDigest(by.Name+by.Request+now.String()), b.ID, by.Name, now
		copied.Pinned = false // retention keeps it as long as b and while the campaign is not over
		copied.Files = nil
		content, changed := map[string][]byte{}, false
		for _, f := range b.Files {
			data, err := s.store.BackupFile(ctx, b, f.Kind)
			if err != nil {
				return effect{}, err
			}
			if edited, given := files[f.Kind]; given {
				if err := fleet.CheckEdit(f.Kind, data, edited); err != nil {
					return effect{}, err
				}
				data = edited
			}
			sum := sha256.Sum256(data)
			digest := hex.EncodeToString(sum[:])
			changed = changed || digest != f.Digest
			copied.Files = append(copied.Files, fleet.BackupFile{Kind: f.Kind, Size: int64(len(data)), Digest: digest})
			content[f.Kind] = data
		}
		if !changed {
			return effect{}, field("files", "nothing was changed")
		}
		edited = &copied
		return effect{before: b, after: edited}, s.store.AddBackup(ctx, edited, content)
	})
	if err != nil {
		return nil, err
	}
	if edited == nil { // a repeated request
		return nil, conflict("this request was carried out already; the edited copy is in the list of backups")
	}
	return edited, nil
}

// PinBackup implements operations.Service.
func (s *Service) PinBackup(ctx context.Context, by operations.Caller, device, id string, pinned bool) (*fleet.Backup, error) {
	var after *fleet.Backup
	err := s.change(ctx, by, operations.PinBackup, "backup/"+device+"/"+id, func() (effect, error) {
		var before fleet.Backup
		var err error
		after, err = s.store.Backups.Change(ctx, func(b *fleet.Backup) error {
			before = *b
			b.Pinned = pinned
			return nil
		}, device, id)
		return effect{before: &before, after: after}, failed(err, "backup", device+"/"+id)
	})
	if err == nil && after == nil {
		return s.backup(ctx, device, id)
	}
	return after, err
}

// Images implements operations.Service.
func (s *Service) Images(ctx context.Context, by operations.Caller) ([]fleet.Image, error) {
	if err := s.permit(ctx, by, operations.Read, "images"); err != nil {
		return nil, err
	}
	list, err := s.store.Images.List(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b *fleet.Image) int {
		return cmp.Or(b.Added.Compare(a.Added), strings.Compare(a.Digest, b.Digest))
	})
	all := make([]fleet.Image, len(list))
	for i, v := range list {
		all[i] = *v
	}
	return all, nil
}

// maxImage is the maximum size of an image.
const maxImage = 4 << 30

// AddImage implements operations.Service.
func (s *Service) AddImage(ctx context.Context, by operations.Caller, name string, data io.Reader) (*fleet.Image, error) {
	name = filepath.Base(filepath.ToSlash(name))
	if err := s.permit(ctx, by, operations.AddImage, "image/"+name); err != nil {
		return nil, err
	}
	if s.cfg.Trust == nil {
		return nil, conflict("no key is trusted, so no image can be added; start iadmsd with --trust FILE")
	}
	file, err := os.CreateTemp(s.cfg.Dir, "image-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, sum), io.LimitReader(data, maxImage+1))
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", name, err)
	}
	if size > maxImage {
		return nil, field("image", "larger than %d bytes", int64(maxImage))
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	info, err := image.Verify(file, s.cfg.Trust)
	if err != nil {
		return nil, field("image", "%v", err)
	}
	img := &fleet.Image{
		Digest: hex.EncodeToString(sum.Sum(nil)), Version: info.Manifest.Version, Hardware: info.Manifest.Hardware, Size: size, Format: info.Manifest.ConfigFormat,
		File: name, Added: s.now(), AddedBy: by.Name,
	}
	open := func() (io.ReadCloser, error) { return os.Open(file.Name()) }
	if old, _, err := s.store.Images.Get(ctx, img.Digest); err == nil {
		return old, s.store.AddImage(ctx, old, open) // the same file, which may be lost
	} else if !errors.Is(err, engine.ErrNotFound) {
		return nil, err
	}
	err = s.change(ctx, by, operations.AddImage, "image/"+img.Digest, func() (effect, error) {
		return effect{after: img}, s.store.AddImage(ctx, img, open)
	})
	return img, err
}

// RemoveImage implements operations.Service. An image stays that a schedule, a campaign or
// a device which has not finished needs.
func (s *Service) RemoveImage(ctx context.Context, by operations.Caller, digest string) error {
	return s.change(ctx, by, operations.RemoveImage, "image/"+digest, func() (effect, error) {
		img, _, err := s.store.Images.Get(ctx, digest)
		if err != nil {
			return effect{}, failed(err, "image", digest)
		}
		user, err := s.imageUser(ctx, digest)
		if err != nil {
			return effect{}, err
		}
		if user != "" {
			return effect{}, conflict("the image is used by %s", user)
		}
		return effect{before: img}, s.store.RemoveImage(ctx, digest)
	})
}

// imageUser names something that needs an image; "": nothing does.
func (s *Service) imageUser(ctx context.Context, digest string) (string, error) {
	uses := func(spec *fleet.CampaignSpec) bool {
		return spec.Image == digest || slices.Contains(spec.Options.OnFailure, "other="+digest)
	}
	schedules, damaged, err := s.store.Schedules.ListAll(ctx)
	if err != nil {
		return "", err
	}
	if len(damaged) > 0 {
		return "perhaps the schedule " + damaged[0][0] + ", which is damaged", nil
	}
	for _, v := range schedules {
		if uses(&v.Spec) {
			return "the schedule " + v.Name, nil
		}
	}
	campaigns, damaged, err := s.store.Campaigns.ListAll(ctx)
	if err != nil {
		return "", err
	}
	if len(damaged) > 0 {
		return "perhaps campaign " + damaged[0][0] + ", which is damaged", nil
	}
	using := map[string]bool{}
	for _, c := range campaigns {
		if using[c.ID] = uses(&c.Spec); using[c.ID] && !c.State.Final() {
			return fmt.Sprintf("campaign %s, which is %s", c.ID, c.State), nil
		}
	}
	user := ""
	err = s.store.Runs.Watch(ctx, func(c store.Change[fleet.Run]) error {
		if c.Synced {
			return errEnd
		}
		if c.Damaged {
			user = "perhaps the run " + c.Key + ", which is damaged"
			return errEnd
		}
		r := c.Value
		if r == nil || r.State.Final() {
			return nil
		}
		chosen := r.Answer != nil && r.Answer.Image == digest || r.Record != nil && hex.EncodeToString(r.Record.ImageDigest) == digest
		if chosen || using[r.Campaign] {
			user = fmt.Sprintf("device %s in campaign %s, which is %s", r.Device, r.Campaign, r.State)
			return errEnd
		}
		return nil
	})
	if !errors.Is(err, errEnd) {
		return "", err
	}
	return user, nil
}

// errEnd ends a watch.
var errEnd = errors.New("end")

// shortDigest is a short name for any text.
func shortDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:5])
}
