package sim_test

import (
	"testing"

	"example.com/iad/bank/image"
	"example.com/iad/manager"
	"example.com/iad/manager/device"
)

// The whole procedure, by both protocols, with a conversion on the way.
func TestUpgrade(t *testing.T) {
	for name, protocol := range map[string]device.Protocol{"tftp": device.TFTP, "ftp": device.FTP} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			img := l.build(image.Manifest{
				Version: "2.0.0", ConfigFormat: 2, SelfTest: "selftest",
				Converters: []image.Converter{{From: 1, To: 2, Payload: "convert"}},
			}, payload("selftest", "#!/bin/sh\nexit 0\n", 0o755), payload("convert", converter, 0o755))
			plan := l.plan(img, "fw-2.0.0.iad")
			plan.Protocol = protocol
			result, err := manager.Upgrade(t.Context(), plan, manager.Automatic{}, func(u manager.Update) {
				t.Logf("%+v", u)
			})
			if err != nil {
				t.Fatal(err)
			}
			if result.NewVersion != "2.0.0" {
				t.Errorf("runs %s", result.NewVersion)
			}
		})
	}
}
