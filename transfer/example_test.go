package transfer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"time"

	"github.com/pin/tftp/v3"

	"example.com/iad/transfer"
)

// This fetches a file. The URL may also begin with ftp:// or ftps://.
func ExampleClient_Get() {
	url, stop := startTFTPServer("fw-2.0.0.iad", "new software") // such as tftp://192.0.2.1/firmware
	defer stop()

	server, err := transfer.ParseURL(url)
	if err != nil {
		log.Fatal(err)
	}
	server.Timeout = 10 * time.Second // without any data
	client, err := transfer.New(server, transfer.Options{RateLimit: 1 << 20})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // for all of it
	defer cancel()
	file, size, err := client.Get(ctx, "fw-2.0.0.iad", 0)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	data, err := io.ReadAll(file)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q, %d bytes\n", data, size)
	// Output: "new software", 12 bytes
}

// startTFTPServer serves one file on the loopback interface.
func startTFTPServer(name, content string) (url string, stop func()) {
	server := tftp.NewServer(func(file string, to io.ReaderFrom) error {
		if file != name {
			return fmt.Errorf("no file %s", file)
		}
		to.(tftp.OutgoingTransfer).SetSize(int64(len(content)))
		_, err := to.ReadFrom(bytes.NewReader([]byte(content)))
		return err
	}, nil)
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	go server.Serve(conn)
	return "tftp://" + conn.LocalAddr().String(), server.Shutdown
}
