package agent_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"strings"

	"aead.dev/minisign"
	"github.com/spf13/afero"

	"example.com/iad/agent"
	"example.com/iad/agent/snmp"
	"example.com/iad/bank/image"
)

// myBoard is what only this board knows. A real one fills the whole interface in; here
// idleBoard does nothing for what the example leaves out.
type myBoard struct{ idleBoard }

// Calls returns the number of telephone calls, during which nothing restarts.
func (myBoard) Calls() int { return 0 }

// This embeds the agent in the program of a device, which SNMP requests then upgrade.
func Example() {
	factory, key := factorySoftware()

	socket, err := snmp.Listen("127.0.0.1:0") // in a device "0.0.0.0:161"
	if err != nil {
		log.Fatal(err)
	}
	defer socket.Close()
	config := agent.Config{
		DeviceID: "IAD-0001",
		Hardware: "IAD-4FXS",
		// In a device each of these is a partition: afero.NewBasePathFs(afero.NewOsFs(), "/mnt/bank1")
		Banks:    [2]afero.Fs{afero.NewMemMapFs(), afero.NewMemMapFs()},
		State:    afero.NewMemMapFs(),
		Data:     afero.NewMemMapFs(),
		Work:     afero.NewMemMapFs(),
		Trust:    image.TrustKeys(key),
		Platform: myBoard{},
		SNMP: &snmp.Config{
			Conn:        socket,
			Communities: []snmp.Community{{Name: "public", View: snmp.Everything()}},
		},
	}
	// Once, in the factory.
	if err := agent.Provision(config, factory, nil); err != nil {
		log.Fatal(err)
	}

	// At each start of the device.
	a, err := agent.New(config)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("running", a.Engine().Snapshot().Banks.Bank(1).Version)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // in a device when it is switched off
	if err := a.Run(ctx); err != nil {
		log.Fatal(err) // a *procedure.RestartError asks for a restart
	}
	// Output: running 1.0.0
}

// factorySoftware builds an image and returns the key that it is signed with.
func factorySoftware() (io.Reader, minisign.PublicKey) {
	public, private, err := minisign.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	var b bytes.Buffer
	app := image.PayloadFile{Name: "app", Mode: 0o755, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("gateway")), nil
	}}
	m := image.Manifest{Version: "1.0.0", Hardware: []string{"IAD-4FXS"}, ConfigFormat: 1}
	if err := image.Build(&b, m, []image.PayloadFile{app}, private); err != nil {
		log.Fatal(err)
	}
	return &b, public
}
