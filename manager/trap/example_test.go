package trap_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/trap"
	"example.com/iad/mib"
)

// This waits for the end of operations of one device.
func Example() {
	listener, err := trap.Listen(trap.ListenerConfig{
		Listen: "127.0.0.1:0", // the usual port is 162
		Users:  []device.User{{Name: "iadms", Auth: "sha256", AuthPassphrase: "authentication", Priv: "aes", PrivPassphrase: "privacy-privacy"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	subscription := listener.Subscribe(trap.Filter{DeviceID: "IAD-0001"}, 64)
	defer subscription.Close()

	sendExample(listener.Addr().Port()) // a device

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	n, err := subscription.Next(ctx)
	if err != nil {
		log.Fatal(err)
	}
	switch n.Kind {
	case mib.NotifyOpCompleted:
		fmt.Printf("%s: operation %d succeeded\n", n.DeviceID, n.Op.ID)
	case mib.NotifyOpFailed:
		fmt.Printf("%s: operation %d failed: %s\n", n.DeviceID, n.Op.ID, n.Op.Cause)
	}
	// Output:
	// IAD-0001: operation 7 failed: fileNotFound
}
