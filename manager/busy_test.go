package manager_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/mib"
)

// A device that is busy is said to be, also when the refusal meets the row of a
// server that the running operation uses.
func TestBusyDevice(t *testing.T) {
	l := newLab(t, labOptions{})
	row := func(host string) *device.ServerRow {
		return &device.ServerRow{Index: 1, FileServerAddress: device.FileServerAddress{Protocol: device.TFTP, Host: host, Timeout: 5 * time.Second}}
	}
	var list []device.FileRow
	for _, k := range files.ConfigKinds {
		list = append(list, device.FileRow{Kind: k, Name: k.String()})
	}
	op, err := l.client.Start(l.ctx, device.Request{Kind: mib.OperationKindBackupConfig, ID: device.NewReqID(), Owner: "first",
		Server: row("127.0.0.1"), Files: list, Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.client.Start(l.ctx, device.Request{Kind: mib.OperationKindBackupConfig, ID: device.NewReqID(), Owner: "second",
		Server: row("127.0.0.2"), Files: list})
	var refusal *device.RefusalError
	if !errors.As(err, &refusal) || refusal.Cause != mib.FailCauseBusy || !strings.Contains(err.Error(), `"first"`) {
		t.Errorf("%v while operation %d waits", err, op.ID)
	}
}
