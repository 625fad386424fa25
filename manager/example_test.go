package manager_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/spf13/afero"

	"example.com/iad/manager"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
)

// This upgrades a device. It serves the image and receives the backup itself.
func Example() {
	address, image, stop := startExampleDevice() // such as "192.0.2.10" and "fw-2.0.0.iad"
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	client, err := device.Dial(device.Target{
		Address:     address,
		Credentials: device.Credentials{Read: "public", Write: "private"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	servers, err := files.StartServers(files.ServersConfig{
		Files:     afero.NewMemMapFs(), // gets the backup; afero.NewBasePathFs keeps it in a directory
		TFTP:      "127.0.0.1:0",
		Advertise: "127.0.0.1",
	})
	if err != nil {
		log.Fatal(err)
	}
	defer servers.Close()
	img, err := files.OpenImage(afero.NewOsFs(), image)
	if err != nil {
		log.Fatal(err)
	}

	plan := manager.Plan{Client: client, Files: servers, Image: img}
	result, err := manager.Upgrade(ctx, plan, manager.Automatic{Retries: 2}, func(u manager.Update) {
		if u.Kind == manager.StepBegins {
			fmt.Println("step", u.Step)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s upgraded %s -> %s, %d files in the backup\n", result.Device, result.OldVersion, result.NewVersion, len(result.Backup))
	// Output:
	// step 100
	// step 110
	// step 120
	// step 130
	// step 140
	// step 150
	// step 170
	// step 180
	// step 190
	// TEST-0001 upgraded 1.0.0 -> 2.0.0, 5 files in the backup
}
