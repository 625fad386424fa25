package device

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"example.com/iad/mib"
)

// ServerRow is what Start writes into a row of iadUpgServerTable.
type ServerRow struct {
	Index uint32 // 1 to 4
	FileServerAddress
	Path string // directory on the server
}

// FileRow is what Start writes into a row of iadUpgFileTable.
type FileRow struct {
	Kind         mib.FileType
	Name         string
	ExpectSize   uint32 // bytes; 0: any
	ExpectDigest []byte // SHA-256; empty: any
}

// Option is a bit of iadUpgReqOptions.
type Option int

// Options of a request; see iadUpgReqOptions.
const (
	Force          Option = mib.ReqOptionsForce
	AllowDowngrade Option = mib.ReqOptionsAllowDowngrade
	ThenActivate   Option = mib.ReqOptionsThenActivate
	ThenReset      Option = mib.ReqOptionsThenReset
	ConvertFirst   Option = mib.ReqOptionsConvertFirst
	CheckOnly      Option = mib.ReqOptionsCheckOnly
)

// Request is a command for one operation, with the rows that it needs.
type Request struct {
	Kind mib.OperationKind
	// ID is iadUpgReqId, made by NewReqID. Keep it to repeat the request.
	ID    uint32
	Owner string // up to 32 bytes
	// Server is written before the command, for the operation; nil: none.
	Server *ServerRow
	// Files are written before the command, for the operation; none: all files that the
	// kind of operation has.
	Files     []FileRow
	Bank      uint32 // 0: the one that is not running
	Version   string // that the software must have; empty: any
	Options   []Option
	TimeLimit time.Duration // 0, or 10 s to 24 h
	Retries   int           // of a transfer, by the device itself; 0 to 10
	Delay     time.Duration
	// Owns, if not nil, is called before each SET, after the lock was read. An error means
	// that another run of the procedure has taken over, and nothing is written.
	Owns func() error
	// TargetOpID is the operation to abort; 0: whichever is running.
	TargetOpID uint32
}

// NewReqID returns a random request number other than 0.
func NewReqID() uint32 { return rand.Uint32N(1<<32-1) + 1 }

// maxLockTries bounds how often a request starts over because other managers change the
// device at the same time or responses are lost.
const maxLockTries = 5

// errRace: the lock had changed, so nothing was written.
var errRace = errors.New("another manager wrote first")

// Start commands an operation and returns it as the device reports it. A request whose
// response was lost is not carried out twice: the lock, and the number and owner of the
// request, show whether the device has received it. Of an operation with which the device
// restarts at once, only number, owner and kind of the request may be known. A refusal is
// a *RefusalError.
func (c *Client) Start(ctx context.Context, r Request) (*Operation, error) {
	var err error
	for try := range maxLockTries {
		var op *Operation
		if op, err = c.Operation(ctx); err != nil {
			if try == 0 || !errors.Is(err, ErrNoAnswer) {
				return nil, err
			}
			// The device may have accepted the command and be restarting.
			if err := c.pause(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if op.Is(r.ID, r.Owner) && op.Kind == r.Kind {
			return op, nil
		}
		err = c.command(ctx, r)
		if err == nil {
			return c.accepted(ctx, r)
		}
		if !errors.Is(err, errRace) && !errors.Is(err, ErrNoAnswer) {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s: %s was not accepted in %d attempts: %w", c.address, r.Kind, maxLockTries, err)
}

// pause waits as long as for an answer, because a refused connection returns at once.
func (c *Client) pause(ctx context.Context) error {
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RestartLimit is how long a device that does not answer after a command may take to
// report the time limit of the operation.
const RestartLimit = 5 * time.Minute

// accepted returns the operation of a request that the device has accepted.
func (c *Client) accepted(ctx context.Context, r Request) (*Operation, error) {
	op, err := c.Operation(ctx)
	if errors.Is(err, ErrNoAnswer) {
		return &Operation{ReqID: r.ID, Owner: r.Owner, Kind: r.Kind, State: mib.OperationStateRunning,
			Phase: mib.OperationPhaseNone, TimeLeft: max(r.TimeLimit, RestartLimit)}, nil
	}
	if err != nil || op.Is(r.ID, r.Owner) || !hasOwnID(r.Kind) {
		return op, err
	}
	return c.ended(ctx, r.ID, r.Owner)
}

// ended returns an operation from the history.
func (c *Client) ended(ctx context.Context, reqID uint32, owner string) (*Operation, error) {
	history, err := c.History(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range slices.Backward(history) {
		if h.ReqID == reqID && h.Owner == owner {
			return &Operation{
				ID: h.OpID, ReqID: h.ReqID, Owner: h.Owner, Kind: h.Kind, State: h.State, Phase: h.Phase,
				Cause: h.Cause, Text: h.Text, Attempt: h.Attempts, Started: h.Started, Ended: h.Ended,
				Elapsed: h.Elapsed, BytesDone: h.Bytes, Bank: h.Bank, Advice: h.Cause.Advice(),
			}, nil
		}
	}
	return nil, fmt.Errorf("%s: operation of request %d: %w", c.address, reqID, ErrUnknownOperation)
}

// ErrUnknownOperation: the device has forgotten the operation, or never had it.
var ErrUnknownOperation = errors.New("unknown to the device")

// hasOwnID reports whether a command starts an operation, and does not act on another
// one.
func hasOwnID(k mib.OperationKind) bool {
	return k != mib.OperationKindAbort && k != mib.OperationKindConfirm
}

// Command sends abort or confirm, which the device carries out or refuses at once.
func (c *Client) Command(ctx context.Context, r Request) error {
	var err error
	for range maxLockTries {
		if err = c.command(ctx, r); err == nil || !errors.Is(err, errRace) {
			return err
		}
	}
	return fmt.Errorf("%s: %s was not accepted in %d attempts: %w", c.address, r.Kind, maxLockTries, err)
}

// command writes the rows and the command under the lock, in one SET, so that no rows of
// another manager come between them. Only if the datagram would be fragmented, the files
// are written first.
func (c *Client) command(ctx context.Context, r Request) error {
	var lock uint32
	if err := c.read(ctx, scalar, []Field{Number(mib.ReqLock, &lock)}); err != nil {
		return err
	}
	var server []mib.Varbind
	if r.Server != nil {
		var err error
		if server, err = c.serverVarbinds(r.Server); err != nil {
			return err
		}
	}
	files := c.fileVarbinds(r.Files)
	request := append(server, c.requestVarbinds(r)...)
	if size(files)+size(request) <= maxSet {
		files, request = nil, append(files, request...)
	}
	for _, vbs := range [][]mib.Varbind{files, request} {
		if len(vbs) == 0 {
			continue
		}
		if r.Owns != nil {
			if err := r.Owns(); err != nil {
				return err
			}
		}
		if err := c.setLocked(ctx, &lock, vbs); err != nil {
			return c.refused(ctx, r, err)
		}
	}
	return nil
}

// maxSet is how many bytes of varbinds go into one SET: with a header of SNMPv3 they
// fit a datagram on an Ethernet.
const maxSet = 1300

// size is the approximate size of varbinds in bytes.
func size(vbs []mib.Varbind) (n int) {
	for _, vb := range vbs {
		n += len(vb.OID) + 8 + max(len(vb.Value.Bytes), 4)
	}
	return n
}

// refused returns why a SET failed.
func (c *Client) refused(ctx context.Context, r Request, err error) error {
	var refused *SetError
	if errors.As(err, &refused) && (strings.HasPrefix(refused.Object, "iadUpgServer") || strings.HasPrefix(refused.Object, "iadUpgFile")) {
		return c.rowRefused(ctx, r, err)
	}
	return c.requestRefused(ctx, r, err)
}

// setLocked puts the lock before the varbinds. If the lock does not match, it returns
// errRace: another manager wrote, or this SET was repeated and the first one took effect;
// the caller finds out which.
func (c *Client) setLocked(ctx context.Context, lock *uint32, vbs []mib.Varbind) error {
	first := mib.Varbind{OID: c.module.OID(mib.ReqLock, 0), Value: mib.Int32(int64(*lock))}
	err := c.set(ctx, append([]mib.Varbind{first}, vbs...))
	var refused *SetError
	if errors.As(err, &refused) && refused.Status == mib.InconsistentValue && refused.Index == 1 {
		return fmt.Errorf("%s: %w", c.address, errRace)
	}
	*lock = (*lock + 1) & 0x7fffffff // TestAndIncr, RFC 2579
	return err
}

func (c *Client) serverVarbinds(s *ServerRow) ([]mib.Varbind, error) {
	typ, address, err := mib.InetAddress(s.Host)
	if err != nil {
		return nil, err
	}
	row := func(o *mib.Object, v mib.Value) mib.Varbind {
		return mib.Varbind{OID: c.module.OID(o, s.Index), Value: v}
	}
	limit := uint32(30)
	if s.Timeout > 0 {
		limit = uint32(min(max(s.Timeout/time.Second, 1), 600))
	}
	vbs := []mib.Varbind{
		row(mib.ServerAddressType, typ.Value()), row(mib.ServerAddress, mib.Octets(address)),
		row(mib.ServerPort, mib.Uint32(uint32(s.Port))), row(mib.ServerProtocol, s.Protocol.Value()),
		row(mib.ServerUser, mib.Str(s.User)), row(mib.ServerPath, mib.Str(s.Path)),
		row(mib.ServerTimeout, mib.Uint32(limit)),
	}
	if s.Password != "" {
		vbs = append(vbs, row(mib.ServerPassword, mib.Str(s.Password)))
	}
	return vbs, nil
}

func (c *Client) fileVarbinds(files []FileRow) []mib.Varbind {
	var vbs []mib.Varbind
	for _, f := range files {
		index := uint32(f.Kind)
		vbs = append(vbs,
			mib.Varbind{OID: c.module.OID(mib.FileName, index), Value: mib.Str(f.Name)},
			mib.Varbind{OID: c.module.OID(mib.FileExpectSize, index), Value: mib.Uint32(f.ExpectSize)},
			mib.Varbind{OID: c.module.OID(mib.FileExpectDigest, index), Value: mib.Octets(f.ExpectDigest)})
	}
	return vbs
}

func (c *Client) requestVarbinds(r Request) []mib.Varbind {
	kinds := make([]int, len(r.Files))
	for i, f := range r.Files {
		kinds[i] = int(f.Kind) - 1
	}
	options := make([]int, len(r.Options))
	for i, o := range r.Options {
		options[i] = int(o)
	}
	server := uint32(0)
	if r.Server != nil {
		server = r.Server.Index
	}
	of := func(o *mib.Object, v mib.Value) mib.Varbind { return mib.Varbind{OID: c.module.OID(o, 0), Value: v} }
	return []mib.Varbind{
		of(mib.ReqId, mib.Uint32(r.ID)), of(mib.ReqOwner, mib.Str(r.Owner)),
		of(mib.ReqServer, mib.Uint32(server)), of(mib.ReqFiles, mib.Octets(mib.Bits(kinds...))),
		of(mib.ReqBank, mib.Uint32(r.Bank)), of(mib.ReqVersion, mib.Str(r.Version)),
		of(mib.ReqOptions, mib.Octets(mib.Bits(options...))),
		of(mib.ReqTimeLimit, mib.Uint32(uint32(r.TimeLimit/time.Second))),
		of(mib.ReqRetries, mib.Uint32(uint32(r.Retries))),
		of(mib.ReqDelay, mib.Uint32(uint32(r.Delay/time.Second))),
		of(mib.ReqTargetOpId, mib.Uint32(r.TargetOpID)), of(mib.ReqCommand, r.Kind.Value()),
	}
}

// rowRefused returns why a server or file row could not be written.
func (c *Client) rowRefused(ctx context.Context, r Request, err error) error {
	var refused *SetError
	if !errors.As(err, &refused) {
		return err
	}
	refusal := &RefusalError{Device: c.address, Kind: r.Kind, Set: refused}
	switch {
	case refused.Status == mib.AuthorizationError && refused.Object == mib.ServerPassword.Name:
		refusal.Cause = mib.FailCauseNotPermitted
		refusal.Text = "it accepts the password of a file server only in SNMPv3 requests with privacy: " +
			"use such a user, use TFTP, or set plain_passwords on the device"
	case refused.Status == mib.WrongValue && refused.Object == mib.ServerProtocol.Name:
		refusal.Cause = mib.FailCauseUnsupportedProtocol
		refusal.Text = "the device cannot use " + r.Server.Protocol.String()
	case refused.Status == mib.InconsistentValue:
		refusal.Cause = mib.FailCauseBusy
		op, operr := c.Operation(ctx)
		switch {
		case operr == nil && op.Final() && strings.HasPrefix(refused.Object, "iadUpgServerAddress"):
			refusal.Cause = mib.FailCauseBadRequest
			refusal.Text = "the device does not accept the address " + r.Server.Host
		case operr == nil:
			refusal.Text = fmt.Sprintf("operation %d, %s of %q, is %s, %s", op.ID, op.Kind, op.Owner, op.State, percentText(op.Percent))
		}
	case refused.Status == mib.CommitFailed:
		refusal.Cause = mib.FailCauseStorageFull
		refusal.Text = "the device cannot store the request: its state partition is full or read-only"
	case refused.Status == mib.NoAccess || refused.Status == mib.AuthorizationError || refused.Status == mib.NotWritable:
		refusal.Cause = mib.FailCauseNotPermitted
		refusal.Text = "the community or user has no write access"
	default:
		refusal.Cause = mib.FailCauseBadRequest
	}
	return refusal
}

// requestRefused reads from the device why it refused the command.
func (c *Client) requestRefused(ctx context.Context, r Request, err error) error {
	var refused *SetError
	if !errors.As(err, &refused) {
		return err
	}
	refusal := &RefusalError{Device: c.address, Kind: r.Kind, Set: refused}
	if refused.Status == mib.NoAccess || refused.Status == mib.AuthorizationError {
		refusal.Cause, refusal.Text = mib.FailCauseNotPermitted, "the community or user has no write access"
		return refusal
	}
	readErr := c.read(ctx, scalar, []Field{Number(mib.ReqRefusal, &refusal.Cause), Text(mib.ReqRefusalText, &refusal.Text)})
	if readErr != nil || refusal.Cause == mib.FailCauseNone {
		refusal.Cause = mib.FailCauseBadRequest
	}
	return refusal
}

func percentText(p uint32) string {
	if p > 100 {
		return "progress unknown"
	}
	return fmt.Sprintf("%d %%", p)
}
