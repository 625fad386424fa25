package command

import "testing"

func TestListenerUsers(t *testing.T) {
	user := func(name, password string) deviceSettings {
		return deviceSettings{accessSettings: accessSettings{User: &userSettings{Name: name, Auth: "sha256", AuthPassword: password}}}
	}
	s := &settings{Devices: map[string]deviceSettings{
		"attic": user("iadms", "password of the attic"), "cellar": user("iadms", "password of the cellar"),
		"shed": user("iadms", "password of the attic"), "roof": user("roof", "password of the roof"),
	}}
	if users := listenerConfig(":0", s, nil, "", nil).Users; len(users) != 3 {
		t.Errorf("%d users may vouch for notifications: %v", len(users), users)
	}
}
