package ui

import (
	"net/http"
	"strconv"
	"time"

	"example.com/iad/fleet"
	"example.com/iad/fleet/auth"
	"example.com/iad/fleet/operations"
)

func (p *page) images() error { return p.onImages(nil) }

func (p *page) onImages(refused error) error {
	list, err := p.Service.Images(p.r.Context(), p.by)
	if err != nil {
		return err
	}
	if refused != nil {
		return p.refuse(refused, "images", "Images", list)
	}
	p.show(http.StatusOK, "images", "Images", list)
	return nil
}

// addImage passes the file on as it comes.
func (p *page) addImage() error {
	parts, err := p.r.MultipartReader()
	if err != nil {
		return p.onImages(&fleet.FieldError{Field: "file", Problem: "is missing; choose a file"})
	}
	_ = http.NewResponseController(p.w).SetReadDeadline(time.Now().Add(time.Hour)) // not supported: none
	for {
		part, err := parts.NextPart()
		if err != nil {
			return p.onImages(&fleet.FieldError{Field: "file", Problem: "is missing; choose a file"})
		}
		if part.FormName() != "file" || part.FileName() == "" {
			continue
		}
		if _, err := p.Service.AddImage(p.r.Context(), p.by, part.FileName(), part); err != nil {
			return p.onImages(err)
		}
		return p.done("/images", "image")
	}
}

func (p *page) removeImage() error {
	if err := p.Service.RemoveImage(p.r.Context(), p.by, p.r.PathValue("digest")); err != nil {
		return p.onImages(err)
	}
	return p.done("/images", "removed")
}

func (p *page) workers() error {
	list, err := p.Service.Workers(p.r.Context(), p.by)
	if err != nil {
		return err
	}
	p.show(http.StatusOK, "workers", "Workers", list)
	return nil
}

func (p *page) drainWorker() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	drain := p.value("drain") == "yes"
	if err := p.Service.DrainWorker(p.r.Context(), p.by, p.r.PathValue("id"), drain); err != nil {
		return err
	}
	return p.done("/workers", map[bool]string{true: "drained", false: "undrained"}[drain])
}

func (p *page) damage() error { return p.onDamage(nil) }

func (p *page) onDamage(refused error) error {
	list, err := p.Service.Damage(p.r.Context(), p.by)
	if err != nil {
		return err
	}
	if refused != nil {
		return p.refuse(refused, "damage", "Damaged objects", list)
	}
	p.show(http.StatusOK, "damage", "Damaged objects", list)
	return nil
}

func (p *page) removeDamage() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	revision, err := strconv.ParseUint(p.value("revision"), 10, 64)
	if err != nil {
		return p.onDamage(&fleet.FieldError{Field: "revision", Problem: "must be a number"})
	}
	if err := p.Service.RemoveDamage(p.r.Context(), p.by, p.value("place"), p.value("key"), revision); err != nil {
		return p.onDamage(err)
	}
	return p.done("/damage", "removed")
}

type auditData struct {
	Query   operations.AuditQuery
	Entries []fleet.AuditEntry
	Older   string // address of older entries; empty: there are none
}

func (p *page) audit() error {
	q := p.r.URL.Query()
	before, _ := strconv.ParseUint(q.Get("before"), 10, 64) // what is not a number: the newest
	d := auditData{Query: operations.AuditQuery{Before: before, Actor: q.Get("actor"), Action: q.Get("action"), Object: q.Get("object"), Limit: pageSize}}
	var err error
	if d.Entries, err = p.Service.Audit(p.r.Context(), p.by, d.Query); err != nil {
		return err
	}
	if n := len(d.Entries); n == pageSize && d.Entries[n-1].Seq > 1 {
		q.Set("before", strconv.FormatUint(d.Entries[n-1].Seq, 10))
		d.Older = "/audit?" + q.Encode()
	}
	p.show(http.StatusOK, "audit", "Audit", d)
	return nil
}

type accessData struct {
	Users  []auth.User
	Tokens []auth.Token
	Roles  []operations.Role // that the user may give to a token
	// Made is the text of a token that was made just now.
	Made string
	// Password: the user has one here.
	Password bool
}

func (p *page) accessData() (d accessData, err error) {
	for _, r := range operations.Roles() {
		d.Roles = append(d.Roles, r)
		if r == p.by.Role {
			break
		}
	}
	if p.by.Role.May(operations.ManageAccess) {
		if d.Users, err = p.Access.Users(p.r.Context(), p.by); err != nil {
			return d, err
		}
	}
	if d.Password, err = p.Access.HasPassword(p.r.Context(), p.by.Name); err != nil {
		return d, err
	}
	d.Tokens, err = p.Access.Tokens(p.r.Context(), p.by)
	return d, err
}

func (p *page) access() error { return p.onAccess(nil) }

func (p *page) onAccess(refused error) error {
	d, err := p.accessData()
	if err != nil {
		return err
	}
	if refused != nil {
		return p.refuse(refused, "access", "Access", d)
	}
	p.show(http.StatusOK, "access", "Access", d)
	return nil
}

func (p *page) changePassword() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	present, password := p.r.PostForm.Get("own.present"), p.r.PostForm.Get("own.password")
	if password != p.r.PostForm.Get("own.repeated_password") {
		return p.onAccess(&fleet.FieldError{Field: "own.repeated_password", Problem: "is not the same as the new password"})
	}
	if err := p.Access.ChangePassword(p.r.Context(), p.by, present, password); err != nil {
		return p.onAccess(in("own", err))
	}
	return p.done("/login", "")
}

func (p *page) createToken() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	days, err := strconv.Atoi(p.value("token.days"))
	if err != nil || days < 1 || days > 366 {
		return p.onAccess(&fleet.FieldError{Field: "token.days", Problem: "must be a number of days from 1 to 366"})
	}
	text, _, err := p.Access.CreateToken(p.r.Context(), p.by, p.value("token.name"), operations.Role(p.value("token.role")), time.Duration(days)*24*time.Hour)
	if err != nil {
		return p.onAccess(in("token", err))
	}
	d, err := p.accessData()
	if err != nil {
		return err
	}
	d.Made = text // it is not stored, so it cannot be shown by another page
	p.show(http.StatusOK, "access", "Access", d)
	return nil
}

func (p *page) revokeToken() error {
	if err := p.Access.RevokeToken(p.r.Context(), p.by, p.r.PathValue("id")); err != nil {
		return p.onAccess(err)
	}
	return p.done("/access", "revoked")
}

func (p *page) putUser() error {
	if err := p.form(maxForm); err != nil {
		return err
	}
	err := p.Access.PutUser(p.r.Context(), p.by, p.value("user.name"), operations.Role(p.value("user.role")), p.r.PostForm.Get("user.password"))
	if err != nil {
		return p.onAccess(in("user", err))
	}
	return p.done("/access", "saved")
}

func (p *page) removeUser() error {
	if err := p.Access.RemoveUser(p.r.Context(), p.by, p.r.PathValue("name")); err != nil {
		return p.onAccess(in("user", err))
	}
	return p.done("/access", "removed")
}
