package manager_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"example.com/iad/manager"
	"example.com/iad/mib"
)

// A device that is busy is said to be, also when the refusal meets the row of a
// server that the running operation uses.
func TestBusyDevice(t *testing.T) {
	l := newLab(t, labOptions{})
	row := func(host string) *manager.ServerRow {
		return &manager.ServerRow{Index: 1, FileServerAddress: manager.FileServerAddress{Protocol: manager.TFTP, Host: host, Timeout: 5 * time.Second}}
	}
	var files []manager.FileRow
	for _, k := range manager.ConfigKinds {
		files = append(files, manager.FileRow{Kind: k, Name: k.String()})
	}
	op, err := l.client.Start(l.ctx, manager.Request{Kind: mib.OperationKindBackupConfig, ID: manager.NewReqID(), Owner: "first",
		Server: row("127.0.0.1"), Files: files, Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.client.Start(l.ctx, manager.Request{Kind: mib.OperationKindBackupConfig, ID: manager.NewReqID(), Owner: "second",
		Server: row("127.0.0.2"), Files: files})
	var refusal *manager.RefusalError
	if !errors.As(err, &refusal) || refusal.Cause != mib.FailCauseBusy || !strings.Contains(err.Error(), `"first"`) {
		t.Errorf("%v while operation %d waits", err, op.ID)
	}
}
