package files_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/afero"

	"example.com/iad/manager/files"
)

// asServers makes the test's own binary start servers in the store of this name.
const asServers = "MANAGER_TEST_AS_SERVERS"

func init() {
	store := os.Getenv(asServers)
	if store == "" {
		return
	}
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // all at once
	s, err := files.StartServers(files.ServersConfig{Files: afero.NewBasePathFs(afero.NewOsFs(), store), FTP: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%x\n", s.Fingerprint())
	os.Exit(0)
}

// Several programs that start on a new store at the same time have one certificate.
func TestServersStartTogether(t *testing.T) {
	for round := range 3 {
		store := t.TempDir()
		if round == 1 { // somebody removed the certificate
			if err := os.MkdirAll(store+"/tls", 0o700); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		var all sync.WaitGroup
		fingerprints := make(map[string]int)
		var starts []func()
		for range 12 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), asServers+"="+store)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			starts = append(starts, func() { fmt.Fprintln(in) })
			all.Go(func() {
				err := cmd.Wait()
				mu.Lock()
				defer mu.Unlock()
				fingerprints[strings.TrimSpace(out.String())]++
				if err != nil {
					t.Errorf("%v: %s", err, out.String())
				}
			})
		}
		for _, start := range starts {
			start()
		}
		all.Wait()
		if len(fingerprints) != 1 {
			t.Errorf("fingerprints: %v", fingerprints)
		}
		if list, err := os.ReadDir(store); err != nil || len(list) != 1 {
			t.Errorf("the store holds %v, %v", list, err)
		}
	}
}
