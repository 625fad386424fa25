package sim_test

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// inNamespace is set in a child of this test binary that runs in a network namespace of
// its own.
const inNamespace = "SIM_TEST_NAMESPACE"

// A range of IPv6 addresses needs no more than a route.
func TestAddressesIPv6(t *testing.T) {
	prefix := netip.MustParsePrefix("2001:db8:1::/64")
	if os.Getenv(inNamespace) != "" {
		testAddresses(t, prefix, netip.IPv6Loopback())
		return
	}
	script := "ip link set lo up && ip -6 route add local " + prefix.String() + " dev lo && exec " + os.Args[0] + " -test.v -test.run=^TestAddressesIPv6$"
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil && !strings.Contains(string(out), "=== RUN") && os.Getenv("CI") != "true":
		t.Skipf("needs ip of iproute2 and network namespaces: %v\n%s", err, out)
	case err != nil || !strings.Contains(string(out), "--- PASS"):
		t.Errorf("%v\n%s", err, out)
	}
}
