package snmp

import (
	"math"

	"example.com/iad/mib"
)

// Values of msgVersion (RFC 3584 section 1; RFC 3412 section 6).
const (
	version1  = 0
	version2c = 1
	version3  = 3
)

// Bits of msgFlags (RFC 3412 section 6.4).
const (
	flagAuth       = 1
	flagPriv       = 2
	flagReportable = 4
)

// securityModelUSM is the one security model there is (RFC 3411 section 5).
const securityModelUSM = 3

// minMaxSize is the smallest msgMaxSize (RFC 3412 section 6).
const minMaxSize = 484

// readVersion opens a message: the version, and what follows it.
func readVersion(msg []byte) (int32, reader, error) {
	r := newReader(msg)
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

// readCommunityMessage reads what follows the version of a message of v1 or
// v2c (RFC 1901 section 3).
func readCommunityMessage(body *reader) (community []byte, p pdu, err error) {
	if community, err = body.octets("community"); err != nil {
		return nil, p, err
	}
	p, err = readPDU(body)
	return community, p, err
}

// appendCommunityMessage writes a message of v1 or v2c.
func appendCommunityMessage(dst []byte, version int32, community string, p pdu, vars []byte) []byte {
	start := len(dst)
	dst = appendInt(dst, tagInteger, int64(version))
	dst = appendOctets(dst, tagOctets, []byte(community))
	dst = appendPDU(dst, p, vars)
	return wrap(dst, start, tagSequence)
}

// communityOverhead is the most that a message of v1 or v2c adds to its
// encoded variable bindings.
func communityOverhead(community string) int {
	return 4 + 3 + 3 + len(community) + pduOverhead
}

// pduOverhead is the most that a PDU adds to its encoded variable bindings:
// its own header, three integers, the header of the list.
const pduOverhead = 4 + 3*6 + 4

// header is what stands before the scoped PDU of a message of v3: RFC 3412
// section 6 and RFC 3414 section 2.4.
type header struct {
	msgID    int32
	maxSize  int32
	flags    byte
	model    int32
	engineID []byte
	boots    int32
	time     int32
	user     string
	mac      []byte // msgAuthenticationParameters
	macPos   int    // where they stand in the message
	salt     []byte // msgPrivacyParameters
}

// level is the security level that the flags ask for.
func (h *header) level() Level {
	switch h.flags & (flagAuth | flagPriv) {
	case flagAuth:
		return AuthNoPriv
	case flagAuth | flagPriv:
		return AuthPriv
	}
	return NoAuthNoPriv
}

// readGlobalData reads msgGlobalData.
func readGlobalData(body *reader) (h header, err error) {
	g, err := body.expect(tagSequence, "msgGlobalData")
	if err != nil {
		return h, err
	}
	if h.msgID, err = g.integer("msgID"); err != nil {
		return h, err
	}
	if h.maxSize, err = g.integer("msgMaxSize"); err != nil {
		return h, err
	}
	flags, err := g.octets("msgFlags")
	if err != nil {
		return h, err
	}
	if h.model, err = g.integer("msgSecurityModel"); err != nil {
		return h, err
	}
	if len(flags) != 1 || h.msgID < 0 || h.maxSize < minMaxSize || h.model < 1 || !g.empty() {
		return h, malformed("msgGlobalData")
	}
	h.flags = flags[0]
	return h, nil
}

// readSecurity reads the USM's msgSecurityParameters into h.
func (h *header) readSecurity(body *reader) error {
	wrapped, err := body.expect(tagOctets, "msgSecurityParameters")
	if err != nil {
		return err
	}
	s, err := wrapped.expect(tagSequence, "msgSecurityParameters")
	if err != nil {
		return err
	}
	if h.engineID, err = s.octets("msgAuthoritativeEngineID"); err != nil {
		return err
	}
	if h.boots, err = s.integer("msgAuthoritativeEngineBoots"); err != nil {
		return err
	}
	if h.time, err = s.integer("msgAuthoritativeEngineTime"); err != nil {
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
	if h.salt, err = s.octets("msgPrivacyParameters"); err != nil {
		return err
	}
	if len(user) > maxUserName || len(h.engineID) > maxEngineID ||
		h.boots < 0 || h.time < 0 || !s.empty() || !wrapped.empty() {
		return malformed("msgSecurityParameters")
	}
	h.user, h.mac, h.macPos = string(user), mac.bytes(), mac.pos
	return nil
}

// scopedPDU is the plain text of RFC 3412 section 6.
type scopedPDU struct {
	contextEngineID []byte
	contextName     []byte
	pdu             pdu
}

// readScoped takes a scoped PDU out of r, which may hold padding after it.
func readScoped(r *reader) (s scopedPDU, err error) {
	body, err := r.expect(tagSequence, "scoped PDU")
	if err != nil {
		return s, err
	}
	if s.contextEngineID, err = body.octets("contextEngineID"); err != nil {
		return s, err
	}
	if s.contextName, err = body.octets("contextName"); err != nil {
		return s, err
	}
	s.pdu, err = readPDU(&body)
	return s, err
}

func appendScoped(dst []byte, contextEngineID []byte, p pdu, vars []byte) []byte {
	start := len(dst)
	dst = appendOctets(dst, tagOctets, contextEngineID)
	dst = append(dst, tagOctets, 0) // the default context
	dst = appendPDU(dst, p, vars)
	return wrap(dst, start, tagSequence)
}

// appendV3 writes a message of v3 around an encoded scoped PDU, encrypted and
// authenticated with k as h.flags say. h.boots, h.time and h.engineID are
// those of the authoritative engine.
func appendV3(h header, k *keys, salt uint64, scoped []byte) ([]byte, error) {
	var privParams []byte
	data := scoped
	if h.flags&flagPriv != 0 {
		var err error
		if data, privParams, err = k.encrypt(h.boots, h.time, salt, scoped); err != nil {
			return nil, err
		}
		data = appendOctets(nil, tagOctets, data)
	}
	macLen := 0
	if h.flags&flagAuth != 0 {
		macLen = k.auth.macLen()
	}

	msg := make([]byte, 0, len(data)+256)
	msg = appendInt(msg, tagInteger, version3)
	start := len(msg)
	msg = appendInt(msg, tagInteger, int64(h.msgID))
	msg = appendInt(msg, tagInteger, int64(h.maxSize))
	msg = append(msg, tagOctets, 1, h.flags)
	msg = appendInt(msg, tagInteger, securityModelUSM)
	msg = wrap(msg, start, tagSequence)

	start = len(msg)
	msg = appendOctets(msg, tagOctets, h.engineID)
	msg = appendInt(msg, tagInteger, int64(h.boots))
	msg = appendInt(msg, tagInteger, int64(h.time))
	msg = appendOctets(msg, tagOctets, []byte(h.user))
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
		copy(msg[end-macLen:end], k.digest(msg))
	}
	return msg, nil
}

// v3Overhead is the most that a message of v3 adds to its encoded variable
// bindings: headers of the message, the parameters and the scoped PDU, and
// the padding of a block cipher.
func v3Overhead(h *header, k *keys) int {
	return 4 + 3 + // message, version
		2 + 6 + 6 + 3 + 3 + // msgGlobalData
		4 + 4 + 2 + len(h.engineID) + 6 + 6 + 2 + len(h.user) + 2 + k.auth.macLen() + 2 + 8 +
		4 + 8 + // encrypted data
		4 + 2 + len(h.engineID) + 2 + pduOverhead
}

// clampInt32 keeps counters and sizes within an INTEGER.
func clampInt32(n int64) int32 { return int32(max(0, min(n, math.MaxInt32))) }

var zeroDotZero = mib.OID{0, 0}
