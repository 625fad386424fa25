package command

import (
	"testing"

	"example.com/iad/internal/credentials"
)

func TestListenerUsers(t *testing.T) {
	user := func(name, password string) credentials.Device {
		return credentials.Device{Access: credentials.Access{User: &credentials.User{Name: name, Auth: "sha256", AuthPassphrase: password}}}
	}
	s := &settings{credentials.File{Devices: map[string]credentials.Device{
		"attic": user("iadms", "password of the attic"), "cellar": user("iadms", "password of the cellar"),
		"shed": user("iadms", "password of the attic"), "roof": user("roof", "password of the roof"),
	}}}
	if users := listenerConfig(":0", s, nil, "", nil).Users; len(users) != 3 {
		t.Errorf("%d users may vouch for notifications: %v", len(users), users)
	}
}
