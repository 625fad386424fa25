package api

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"example.com/iad/fleet"
	"example.com/iad/fleet/operations"
)

// Upload is a request body that is read as it comes, not kept in memory.
type Upload struct{ reader io.ReadCloser }

// Resolve implements huma.Resolver.
func (b *Upload) Resolve(ctx huma.Context) []error {
	b.reader = io.NopCloser(ctx.BodyReader())
	return nil
}

// file is an answer that is a file.
type file struct {
	Type string `header:"Content-Type"`
	Body []byte
}

var binary = &huma.Schema{Type: huma.TypeString, Format: "binary"}

// isFile says that the request is a file.
func isFile(op *huma.Operation) {
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: binary}}}
	op.BodyReadTimeout = uploadTimeout
	op.Metadata[metaFile] = true
	op.MaxBodyBytes = -1 // what reads it knows the limit
}

// download says that the answer is a file.
func download(op *huma.Operation) {
	op.Responses = map[string]*huma.Response{"200": {
		Description: "The file", Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: binary}},
	}}
}

// BackupPath names a backup in a path.
type BackupPath struct {
	Device string `path:"name"`
	ID     string `path:"id"`
}

func (s *server) registerFiles() {
	register(s, operation(operations.Read, http.MethodGet, "/devices/{name}/backups", "list-backups", "List the backups of a device, the newest first", tag("backups")),
		func(ctx context.Context, by operations.Caller, in *Named) ([]fleet.Backup, error) {
			backups, err := s.Service.Backups(ctx, by, in.Name)
			return list(backups), err
		})
	content := operation(operations.ReadBackup, http.MethodGet, "/devices/{name}/backups/{id}/files/{kind}", "get-backup-file", "Return a file of a backup", tag("backups"), download)
	huma.Register(s.api, content, func(ctx context.Context, in *struct {
		BackupPath
		Kind string `path:"kind" example:"userData"`
	}) (*file, error) {
		data, err := s.Service.BackupFile(ctx, caller(ctx), in.Device, in.ID, in.Kind)
		if err != nil {
			return nil, s.problem(content.OperationID, err)
		}
		return &file{Type: "application/octet-stream", Body: data}, nil
	})
	edit := operation(operations.EditBackup, http.MethodPost, "/devices/{name}/backups/{id}/edit", "edit-backup", "Make an edited copy of a backup", tag("backups"))
	edit.MaxBodyBytes = 64 << 20
	register(s, edit, func(ctx context.Context, by operations.Caller, in *struct {
		BackupPath
		Body struct {
			Files map[string][]byte `json:"files" doc:"The content of the files that change, by kind, in base64"`
		}
	}) (*fleet.Backup, error) {
		return s.Service.EditBackup(ctx, by, in.Device, in.ID, in.Body.Files)
	})
	register(s, operation(operations.PinBackup, http.MethodPut, "/devices/{name}/backups/{id}/pinned", "pin-backup", "Keep a backup for ever, or no longer", tag("backups")),
		func(ctx context.Context, by operations.Caller, in *struct {
			BackupPath
			Body bool
		}) (*fleet.Backup, error) {
			return s.Service.PinBackup(ctx, by, in.Device, in.ID, in.Body)
		})
	register(s, operation(operations.Read, http.MethodGet, "/images", "list-images", "List the images"),
		func(ctx context.Context, by operations.Caller, _ *struct{}) ([]fleet.Image, error) {
			images, err := s.Service.Images(ctx, by)
			return list(images), err
		})
	register(s, operation(operations.AddImage, http.MethodPost, "/images", "add-image", "Add a signed image", isFile),
		func(ctx context.Context, by operations.Caller, in *struct {
			Upload
			Name string `query:"name" required:"true" doc:"The name of the file, for people"`
		}) (*fleet.Image, error) {
			return s.Service.AddImage(ctx, by, in.Name, in.reader)
		})
	registerEmpty(s, operation(operations.RemoveImage, http.MethodDelete, "/images/{digest}", "remove-image", "Remove an image"),
		func(ctx context.Context, by operations.Caller, in *struct {
			Digest string `path:"digest"`
		}) error {
			return s.Service.RemoveImage(ctx, by, in.Digest)
		})
}
