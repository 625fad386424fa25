package agent_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"example.com/iad/agent"
	"example.com/iad/agent/config"
	"example.com/iad/internal/peers"
	"example.com/iad/mib"
	"example.com/iad/transfer/tftp"
)

// What the device gives to package transfer can be sent a second time, and its progress
// is what the server has.

// A TFTP server behind a line that drops large datagrams gets the backup in smaller
// blocks.
func TestUploadInSmallerBlocks(t *testing.T) {
	t.Parallel()
	s := &narrowServer{files: map[string][]byte{}}
	a := runAgentWith(t, large(), func(*agent.Config) {})
	op := operate(t, a, append(server1(mib.ProtocolTftp, s.start(t), 30), command(backupConfig))...)
	if op.State != mib.OperationStateSucceeded {
		t.Fatalf("%s: %s (%s)", op.State, op.Cause, op.Text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped == 0 {
		t.Error("no datagram was too large: nothing was tested")
	}
	stored := s.files["user"]
	if len(stored) < 4000 || op.Done != uint64(len(stored)) || op.Total != op.Done {
		t.Errorf("%d of %d bytes are reported, the server has %d", op.Done, op.Total, len(stored))
	}
}

// A server that permits neither renaming nor removing gets the backup under its name,
// and nothing else.
func TestUploadWithoutRenaming(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	upload := filepath.Join(root, "upload")
	if err := os.Mkdir(upload, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(upload, 0o777); err != nil {
		t.Fatal(err)
	}
	addr := peers.Vsftpd(t, root, "anon_other_write_enable=NO")
	a := runAgentWith(t, large(), func(*agent.Config) {})
	op := operate(t, a, append(server1(mib.ProtocolFtp, addr.Port, 30), text(mib.ServerPath, "upload", 1), command(backupConfig))...)
	if op.State != mib.OperationStateSucceeded {
		t.Errorf("%s: %s (%s)", op.State, op.Cause, op.Text)
	}
	list, err := os.ReadDir(upload)
	if err != nil || len(list) != 1 || list[0].Name() != "user" {
		t.Errorf("on the server: %v, %v", list, err)
	}
}

// large is configuration data that no single datagram holds.
func large() config.Set { return settings(1, strings.Repeat("name = value\n", 500)+"name") }

// narrowServer takes uploads by TFTP, but no datagram of more than 1300 bytes.
type narrowServer struct {
	mu      sync.Mutex
	files   map[string][]byte
	dropped int
	name    string
	block   uint16
}

func (s *narrowServer) start(t *testing.T) (port int) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	t.Cleanup(func() {
		conn.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		buf := make([]byte, 65536)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			s.mu.Lock()
			answer := s.answer(buf[:n])
			s.mu.Unlock()
			if answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).Port
}

func (s *narrowServer) answer(b []byte) []byte {
	if len(b) > 1300 {
		s.dropped++
		return nil
	}
	p, err := tftp.Parse(b)
	switch {
	case err != nil:
		return nil
	case p.Op == tftp.OpWriteRequest:
		s.name, s.block = p.Filename, 0
		s.files[s.name] = nil
		return tftp.AppendOptionAck(nil, tftp.Options{BlockSize: p.Options.BlockSize})
	case p.Op == tftp.OpReadRequest:
		return tftp.AppendError(nil, tftp.ErrorCode(2), "uploads cannot be read")
	case p.Op == tftp.OpData && p.Block == s.block+1:
		s.files[s.name] = append(s.files[s.name], p.Data...)
		s.block++
		return tftp.AppendAck(nil, s.block)
	case p.Op == tftp.OpData:
		return tftp.AppendAck(nil, s.block)
	}
	return nil
}
