package snmp

import "testing"

func TestProtocolNames(t *testing.T) {
	for text, want := range map[string]AuthProtocol{"none": NoAuth, "md5": MD5, "SHA": SHA1, "sha256": SHA256, "SHA-512": SHA512} {
		var got AuthProtocol
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for text, want := range map[string]PrivProtocol{"none": NoPriv, "des": DES, "AES": AES128, "aes128": AES128, "AES-256": AES256, "aes192c": AES192C} {
		var got PrivProtocol
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for i := range authProtocols {
		var back AuthProtocol
		text, err := AuthProtocol(i).MarshalText()
		if err != nil || back.UnmarshalText(text) != nil || back != AuthProtocol(i) {
			t.Errorf("%s: %v", text, back)
		}
	}
	for i := range privProtocols {
		var back PrivProtocol
		text, err := PrivProtocol(i).MarshalText()
		if err != nil || back.UnmarshalText(text) != nil || back != PrivProtocol(i) {
			t.Errorf("%s: %v", text, back)
		}
	}
	var a AuthProtocol
	var p PrivProtocol
	if a.UnmarshalText([]byte("rot13")) == nil || p.UnmarshalText([]byte("rot13")) == nil {
		t.Error("unknown protocols are accepted")
	}
}
