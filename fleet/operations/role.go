package operations

import (
	"fmt"
	"slices"
)

// Role is what a user or token is permitted to do. Each role includes the ones before it.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"   // looks at everything but configuration data and the audit
	Operator Role = "operator" // runs campaigns, answers questions, maintains the inventory
	Admin    Role = "admin"    // also credentials, users and tokens
)

// Roles lists the roles, the least powerful one first.
func Roles() []Role { return []Role{Viewer, Operator, Admin} }

// CheckRole reports why r is not a role.
func CheckRole(r Role) error {
	if !slices.Contains(Roles(), r) {
		return fmt.Errorf("must be viewer, operator or admin, and is %.40q", string(r))
	}
	return nil
}

// Action is a verb and an object, as in fleet.AuditEntry.
type Action string

// The actions.
const (
	Read            Action = "fleet.read"
	ReadAudit       Action = "audit.read"
	ReadBackup      Action = "backup.read" // the content: configuration data contain secrets
	WriteDevice     Action = "device.write"
	RemoveDevice    Action = "device.remove"
	ImportDevices   Action = "device.import"
	DiscoverDevices Action = "device.discover"
	WriteSite       Action = "site.write"
	WriteGroup      Action = "group.write"
	WriteSecret     Action = "secret.write"
	WriteSchedule   Action = "schedule.write"
	CreateCampaign  Action = "campaign.create"
	EditCampaign    Action = "campaign.edit"
	SubmitCampaign  Action = "campaign.submit"
	ApproveCampaign Action = "campaign.approve"
	PauseCampaign   Action = "campaign.pause"
	ResumeCampaign  Action = "campaign.resume"
	StopCampaign    Action = "campaign.stop"
	// RotateCredentials is required in addition to these for campaigns with
	// fleet.OperationRotate.
	RotateCredentials Action = "credentials.rotate"
	AnswerQuestion    Action = "question.answer"
	EditBackup        Action = "backup.edit"
	PinBackup         Action = "backup.pin"
	AddImage          Action = "image.add"
	RemoveImage       Action = "image.remove"
	DrainWorker       Action = "worker.drain"
	RemoveNode        Action = "node.remove"
	RemoveDamage      Action = "damage.remove"
	ManageAccess      Action = "access.manage" // users and tokens
)

// least is the least powerful role that may carry out an action; actions that are
// missing are for operators.
var least = map[Action]Role{Read: Viewer, WriteSecret: Admin, RotateCredentials: Admin, RemoveNode: Admin, RemoveDamage: Admin, ManageAccess: Admin}

// Actions lists the actions.
func Actions() []Action {
	return []Action{
		Read, ReadAudit, ReadBackup, WriteDevice, RemoveDevice, ImportDevices, DiscoverDevices, WriteSite, WriteGroup, WriteSecret, WriteSchedule,
		CreateCampaign, EditCampaign, SubmitCampaign, ApproveCampaign, PauseCampaign, ResumeCampaign, StopCampaign, RotateCredentials,
		AnswerQuestion, EditBackup, PinBackup, AddImage, RemoveImage, DrainWorker, RemoveNode, RemoveDamage, ManageAccess,
	}
}

// Least returns the least powerful role that may carry out an action.
func (a Action) Least() Role {
	if r, ok := least[a]; ok {
		return r
	}
	return Operator
}

// May reports whether the role permits an action.
func (r Role) May(a Action) bool {
	return slices.Index(Roles(), r) >= slices.Index(Roles(), a.Least())
}

// Caller is on whose behalf something happens.
type Caller struct {
	// Name is the user.
	Name string
	// Token is the name of the user's token that the request carried; empty: none, the user
	// has logged in.
	Token string
	Role  Role
	// From is the network address of the request.
	From string
	// Request is an ID that the caller chose and that repetitions share: what is repeated
	// takes effect once. Empty: none.
	Request string
	// Content is a digest of what is requested: a repetition has the same one. Empty: not known.
	Content string
}

// Actor is how the audit names the caller: USER, or USER/TOKEN.
func (c Caller) Actor() string {
	if c.Token != "" {
		return c.Name + "/" + c.Token
	}
	return c.Name
}

// Check returns an error that wraps ErrForbidden unless the caller may carry out an
// action.
func (c Caller) Check(a Action) error {
	if c.Role.May(a) {
		return nil
	}
	return fmt.Errorf("%s has the role %s: %w: %s requires the role %s", c.Name, c.Role, ErrForbidden, a, a.Least())
}
