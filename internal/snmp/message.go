package snmp

import (
	"crypto/hmac"
	"errors"
)

// Values of msgVersion (RFC 3584 section 1; RFC 3412 section 6).
const (
	Version1  = 0
	Version2c = 1
	Version3  = 3
)

// Bits of msgFlags (RFC 3412 section 6.4).
const (
	FlagAuth       = 1
	FlagPriv       = 2
	FlagReportable = 4
)

// securityModelUSM is the one security model there is (RFC 3411 section 5).
const securityModelUSM = 3

// MinMaxSize is the smallest msgMaxSize (RFC 3412 section 6).
const MinMaxSize = 484

// ReadVersion reads the version of a message.
func ReadVersion(msg []byte) (int32, error) {
	version, _, err := openMessage(msg)
	return version, err
}

// openMessage reads the version, and gives what follows it.
func openMessage(msg []byte) (int32, reader, error) {
	r := reader{buf: msg, end: len(msg)}
	body, err := r.expect(tagSequence, "message")
	if err != nil {
		return 0, body, err
	}
	if !r.empty() {
		return 0, body, malformed("octets after the message")
	}
	version, err := body.integer("version")
	return version, body, err
}

// ReadCommunityMessage reads a message of v1 or v2c (RFC 1901 section 3).
func ReadCommunityMessage(msg []byte) (community []byte, p PDU, err error) {
	_, body, err := openMessage(msg)
	if err != nil {
		return nil, p, err
	}
	if community, err = body.octets("community"); err != nil {
		return nil, p, err
	}
	p, err = readPDU(&body)
	return community, p, err
}

// AppendCommunityMessage writes a message of v1 or v2c.
func AppendCommunityMessage(dst []byte, version int32, community string, p PDU, vars []byte) []byte {
	start := len(dst)
	dst = appendInt(dst, tagInteger, int64(version))
	dst = appendOctets(dst, tagOctets, []byte(community))
	dst = appendPDU(dst, p, vars)
	return wrap(dst, start, tagSequence)
}

// CommunityOverhead is the most that a message of v1 or v2c adds to its
// encoded variable bindings.
func CommunityOverhead(community string) int {
	return 4 + 3 + 3 + len(community) + pduOverhead
}

// pduOverhead is the most that a PDU adds to its encoded variable bindings:
// its own header, three integers, the header of the list.
const pduOverhead = 4 + 3*6 + 4

// Header is what stands before the scoped PDU of a message of v3: RFC 3412
// section 6 and RFC 3414 section 2.4. SealV3 fills in MAC and Salt.
type Header struct {
	MsgID    int32
	MaxSize  int32
	Flags    byte
	EngineID []byte
	Boots    int32
	Time     int32
	User     string
	MAC      []byte // msgAuthenticationParameters
	Salt     []byte // msgPrivacyParameters
}

// Level is the security level that the flags ask for.
func (h *Header) Level() Level {
	switch h.Flags & (FlagAuth | FlagPriv) {
	case FlagAuth:
		return AuthNoPriv
	case FlagAuth | FlagPriv:
		return AuthPriv
	}
	return NoAuthNoPriv
}

// Message is a message of v3 as it arrived. Its byte strings share the
// datagram's buffer.
type Message struct {
	Header
	msg    []byte
	macPos int    // where msgAuthenticationParameters stand in msg
	scoped reader // the scoped PDU, or what it is encrypted to
}

// Errors of ReadV3, besides errMalformed, that RFC 3412 section 7.2 counts.
var (
	ErrSecurityModel = errors.New("security model is not USM")
	ErrFlags         = errors.New("privacy without authentication")
)

// ReadV3 reads a message of v3 as far as nothing is encrypted.
func ReadV3(msg []byte) (*Message, error) {
	version, body, err := openMessage(msg)
	if err != nil {
		return nil, err
	}
	if version != Version3 {
		return nil, malformed("message of another version")
	}
	m := &Message{msg: msg}
	if err := m.readGlobalData(&body); err != nil {
		return nil, err
	}
	if err := m.readSecurity(&body); err != nil {
		return nil, err
	}
	m.scoped = body
	tag, content, err := body.next()
	switch {
	case err != nil:
		return nil, err
	case !body.empty():
		return nil, malformed("octets after the scoped PDU")
	case m.Encrypted() && tag == tagOctets:
		m.scoped = content
	case m.Encrypted() || tag != tagSequence:
		return nil, malformed("scoped PDU has another type")
	}
	return m, nil
}

// readGlobalData reads msgGlobalData.
func (m *Message) readGlobalData(body *reader) error {
	g, err := body.expect(tagSequence, "msgGlobalData")
	if err != nil {
		return err
	}
	if m.MsgID, err = g.integer("msgID"); err != nil {
		return err
	}
	if m.MaxSize, err = g.integer("msgMaxSize"); err != nil {
		return err
	}
	flags, err := g.octets("msgFlags")
	if err != nil {
		return err
	}
	model, err := g.integer("msgSecurityModel")
	switch {
	case err != nil:
		return err
	case len(flags) != 1 || m.MsgID < 0 || m.MaxSize < MinMaxSize || model < 1 || !g.empty():
		return malformed("msgGlobalData")
	case model != securityModelUSM:
		return ErrSecurityModel
	}
	m.Flags = flags[0]
	if m.Flags&(FlagAuth|FlagPriv) == FlagPriv {
		return ErrFlags
	}
	return nil
}

// readSecurity reads the USM's msgSecurityParameters.
func (m *Message) readSecurity(body *reader) error {
	wrapped, err := body.expect(tagOctets, "msgSecurityParameters")
	if err != nil {
		return err
	}
	s, err := wrapped.expect(tagSequence, "msgSecurityParameters")
	if err != nil {
		return err
	}
	if m.EngineID, err = s.octets("msgAuthoritativeEngineID"); err != nil {
		return err
	}
	if m.Boots, err = s.integer("msgAuthoritativeEngineBoots"); err != nil {
		return err
	}
	if m.Time, err = s.integer("msgAuthoritativeEngineTime"); err != nil {
		return err
	}
	user, err := s.octets("msgUserName")
	if err != nil {
		return err
	}
	mac, err := s.expect(tagOctets, "msgAuthenticationParameters")
	if err != nil {
		return err
	}
	if m.Salt, err = s.octets("msgPrivacyParameters"); err != nil {
		return err
	}
	if len(user) > MaxUserName || len(m.EngineID) > MaxEngineID ||
		m.Boots < 0 || m.Time < 0 || !s.empty() || !wrapped.empty() {
		return malformed("msgSecurityParameters")
	}
	m.User, m.MAC, m.macPos = string(user), mac.bytes(), mac.pos
	return nil
}

// Encrypted reports whether the scoped PDU is encrypted.
func (h *Header) Encrypted() bool { return h.Flags&FlagPriv != 0 }

// Authentic reports whether the message has the digest that k gives it.
func (m *Message) Authentic(k *Keys) bool {
	n := k.auth.macLen()
	if n == 0 || len(m.MAC) != n {
		return false
	}
	return hmac.Equal(m.MAC, k.Digest(m.msg[:m.macPos], make([]byte, n), m.msg[m.macPos+n:]))
}

// Open returns the scoped PDU, decrypted with k if need be. The error is
// ErrDecrypt for whatever is wrong with an encrypted one: a wrong key shows in
// nothing else.
func (m *Message) Open(k *Keys) (ScopedPDU, error) {
	r := m.scoped
	if !m.Encrypted() {
		return readScoped(&r)
	}
	plain, err := k.decrypt(m.Boots, m.Time, m.Salt, r.bytes())
	if err != nil {
		return ScopedPDU{}, err
	}
	r = reader{buf: plain, end: len(plain)}
	s, err := readScoped(&r)
	if err != nil {
		return ScopedPDU{}, ErrDecrypt
	}
	return s, nil
}

// ScopedPDU is the plain text of RFC 3412 section 6.
type ScopedPDU struct {
	ContextEngineID []byte
	ContextName     []byte
	PDU             PDU
}

// readScoped takes a scoped PDU out of r, which may hold padding after it.
func readScoped(r *reader) (s ScopedPDU, err error) {
	body, err := r.expect(tagSequence, "scoped PDU")
	if err != nil {
		return s, err
	}
	if s.ContextEngineID, err = body.octets("contextEngineID"); err != nil {
		return s, err
	}
	if s.ContextName, err = body.octets("contextName"); err != nil {
		return s, err
	}
	s.PDU, err = readPDU(&body)
	return s, err
}

// AppendScoped writes a scoped PDU with the variable bindings that vars holds
// encoded.
func AppendScoped(dst []byte, contextEngineID, contextName []byte, p PDU, vars []byte) []byte {
	start := len(dst)
	dst = appendOctets(dst, tagOctets, contextEngineID)
	dst = appendOctets(dst, tagOctets, contextName)
	dst = appendPDU(dst, p, vars)
	return wrap(dst, start, tagSequence)
}

// SealV3 makes a message of v3 around an encoded scoped PDU, encrypted and
// authenticated with k as h.Flags say. h.Boots, h.Time and h.EngineID are
// those of the authoritative engine.
func SealV3(h Header, k *Keys, salt uint64, scoped []byte) ([]byte, error) {
	var privParams []byte
	data := scoped
	if h.Flags&FlagPriv != 0 {
		var err error
		if data, privParams, err = k.encrypt(h.Boots, h.Time, salt, scoped); err != nil {
			return nil, err
		}
		data = appendOctets(nil, tagOctets, data)
	}
	macLen := 0
	if h.Flags&FlagAuth != 0 {
		macLen = k.auth.macLen()
	}

	msg := make([]byte, 0, len(data)+256)
	msg = appendInt(msg, tagInteger, Version3)
	start := len(msg)
	msg = appendInt(msg, tagInteger, int64(h.MsgID))
	msg = appendInt(msg, tagInteger, int64(h.MaxSize))
	msg = append(msg, tagOctets, 1, h.Flags)
	msg = appendInt(msg, tagInteger, securityModelUSM)
	msg = wrap(msg, start, tagSequence)

	start = len(msg)
	msg = appendOctets(msg, tagOctets, h.EngineID)
	msg = appendInt(msg, tagInteger, int64(h.Boots))
	msg = appendInt(msg, tagInteger, int64(h.Time))
	msg = appendOctets(msg, tagOctets, []byte(h.User))
	msg = appendOctets(msg, tagOctets, make([]byte, macLen))
	afterMAC := len(msg)
	msg = appendOctets(msg, tagOctets, privParams)
	afterMAC = len(msg) - afterMAC
	msg = wrap(msg, start, tagSequence)
	msg = wrap(msg, start, tagOctets)

	afterMAC += len(data)
	msg = append(msg, data...)
	msg = wrap(msg, 0, tagSequence)
	if macLen > 0 {
		end := len(msg) - afterMAC
		copy(msg[end-macLen:end], k.Digest(msg))
	}
	return msg, nil
}

// V3Overhead is the most that a message of v3 adds to its encoded variable
// bindings: headers of the message, the parameters and the scoped PDU, and
// the padding of a block cipher.
func V3Overhead(h *Header, k *Keys) int {
	return 4 + 3 + // message, version
		2 + 6 + 6 + 3 + 3 + // msgGlobalData
		4 + 4 + 2 + len(h.EngineID) + 6 + 6 + 2 + len(h.User) + 2 + k.auth.macLen() + 2 + 8 +
		4 + 8 + // encrypted data
		4 + 2 + len(h.EngineID) + 2 + pduOverhead
}
