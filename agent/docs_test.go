package agent_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"example.com/iad/agent/procedure"
	"example.com/iad/bank"
)

var update = flag.Bool("update", false, "write the generated parts of the documentation")

// generated is a part of a documentation file between two comment lines.
type generated struct {
	file, part string
	write      func(*bytes.Buffer)
}

var documentation = []generated{
	{"procedure.md", "diagram", writeDiagram},
	{"procedure.md", "transitions", writeTransitions},
	{"procedure.md", "phases", writePhases},
	{"procedure.md", "boot", func(b *bytes.Buffer) { _ = bank.WriteBootTable(b) }},
	{"mib.md", "causes", writeCauses},
}

// The tables in docs/ are those of the code. "go test ./agent -run
// TestDocumentation -update" writes them.
func TestDocumentation(t *testing.T) {
	for _, g := range documentation {
		path := filepath.Join("..", "docs", g.file)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		begin, end := []byte("<!-- begin generated: "+g.part+" -->\n"), []byte("<!-- end generated -->\n")
		i := bytes.Index(data, begin)
		j := bytes.Index(data[max(i, 0):], end)
		if i < 0 || j < 0 {
			t.Fatalf("%s: no part %q", path, g.part)
		}
		i, j = i+len(begin), i+j
		var b bytes.Buffer
		b.WriteString("\n")
		g.write(&b)
		b.WriteString("\n")
		if bytes.Equal(data[i:j], b.Bytes()) {
			continue
		}
		if !*update {
			t.Errorf("%s: part %q is not current; write it by go test ./agent -run TestDocumentation -update", path, g.part)
			continue
		}
		if err := os.WriteFile(path, slices.Concat(data[:i], b.Bytes(), data[j:]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func writeDiagram(b *bytes.Buffer) {
	b.WriteString("```mermaid\nstateDiagram-v2\n    [*] --> idle\n")
	// Rows between the same two states make one arrow.
	type arrow struct{ from, to procedure.State }
	var order []arrow
	labels := map[arrow][]string{}
	for _, tr := range procedure.Transitions() {
		a := arrow{tr.From, tr.To}
		if labels[a] == nil {
			order = append(order, a)
		}
		labels[a] = append(labels[a], tr.On.String())
	}
	for _, a := range order {
		fmt.Fprintf(b, "    %s --> %s: %s\n", a.from, a.to, strings.Join(labels[a], ", "))
	}
	b.WriteString("```\n")
}

func writeTransitions(b *bytes.Buffer) {
	b.WriteString("| state | on | next state | because |\n|---|---|---|---|\n")
	for _, tr := range procedure.Transitions() {
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", tr.From, tr.On, tr.To, tr.Why)
	}
}

func writePhases(b *bytes.Buffer) {
	b.WriteString("| operation | options | phases |\n|---|---|---|\n")
	const activate, reset = procedure.ThenActivate, procedure.ThenReset
	for _, row := range []struct {
		kind    procedure.Kind
		options procedure.Options
	}{
		{procedure.BackupConfig, 0}, {procedure.DownloadSoftware, 0}, {procedure.DownloadSoftware, activate},
		{procedure.DownloadSoftware, activate | reset}, {procedure.Activate, 0}, {procedure.Activate, reset},
		{procedure.Reset, 0}, {procedure.RestoreOldSoftware, 0}, {procedure.RecoverConfig, 0},
		{procedure.RecoverConfig, reset}, {procedure.ConvertConfig, 0},
	} {
		var names []string
		for _, p := range procedure.Plan(row.kind, row.options) {
			names = append(names, p.String())
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", row.kind, row.options, strings.Join(names, ", "))
	}
}

// todo says what somebody who gets a cause may do; the device's advice is added
// to it.
var todo = map[procedure.Cause]string{
	procedure.CauseNone:                 "nothing",
	procedure.CauseOther:                "read the text; it is meant for humans",
	procedure.CauseUnsupported:          "ask `iadUpgOpKindsSupported` what the device can do",
	procedure.CauseBadRequest:           "correct the parameter that the text names and make a new request",
	procedure.CauseBusy:                 "wait for the end of the operation in `iadUpgOpId`, or abort it",
	procedure.CauseNotPermitted:         "too late to abort: wait for the end, then go back with `restoreOldSoftware` if need be",
	procedure.CauseUnsupportedProtocol:  "choose one of `iadUpgProtocolsSupported`",
	procedure.CauseIncompatibleHardware: "get the software for `iadUpgHardwareRevision`",
	procedure.CauseDowngradeRefused:     "set `allowDowngrade` if the version is meant; below the version floor there is no way",
	procedure.CauseAlreadyInstalled:     "nothing to do; set `force` to write it once more",
	procedure.CausePreconditionMissing:  "do first what the text names: download, reset, or install the version in between",
	procedure.CauseServiceInUse:         "try when there are fewer calls, or set `force`",
	procedure.CauseNameNotResolved:      "check the host name in `iadUpgServerAddress` and the device's resolver; or write the address",
	procedure.CauseServerUnreachable:    "check address, port, firewall and that the server runs",
	procedure.CauseServerBusy:           "let fewer devices transfer at once, try later",
	procedure.CauseAuthFailed:           "write `iadUpgServerUser` and `iadUpgServerPassword` again",
	procedure.CauseFileNotFound:         "check `iadUpgFileName` and `iadUpgServerPath`; TFTP servers often need the file to exist before an upload",
	procedure.CauseAccessDenied:         "check the permissions on the server",
	procedure.CauseRemoteStorageFull:    "make room on the server",
	procedure.CauseRemoteFileExists:     "remove the file on the server or choose another name",
	procedure.CauseTransferTimeout:      "try again; raise `iadUpgServerTimeout` on slow links",
	procedure.CauseConnectionLost:       "try again; a download goes on where it was cut where the server can do that",
	procedure.CauseProtocolError:        "read the server's words in the text; check its log",
	procedure.CauseFileTooLarge:         "compare the software with `iadUpgBankCapacity`; it does not fit this device",
	procedure.CauseSizeMismatch:         "check `iadUpgFileExpectSize` and that the file on the server is complete",
	procedure.CauseTLSFailed:            "check the server's certificate and what the device trusts",
	procedure.CauseBadFormat:            "check that the right file has the name",
	procedure.CauseDigestMismatch:       "check `iadUpgFileExpectDigest`; upload the file again; if it stays so the file is damaged",
	procedure.CauseSignatureInvalid:     "do not use this file; get it from its maker again",
	procedure.CauseSignerUntrusted:      "sign the software with a key that the device trusts",
	procedure.CauseVersionMismatch:      "correct `iadUpgReqVersion` or the file name",
	procedure.CauseNoMemory:             "try later, after a reset if need be",
	procedure.CauseStorageFull:          "free room on the device; reset, restore, abort and confirm work all the same",
	procedure.CauseEraseError:           "try again; if it stays so the flash is failing",
	procedure.CauseWriteError:           "try again; if it stays so the flash is failing",
	procedure.CauseReadBackMismatch:     "try again; if it stays so the flash is failing",
	procedure.CauseBankUnavailable:      "name the other bank; while software is on trial confirm it or restore the old one first",
	procedure.CauseBootFlagError:        "try again; the bank that boots next is unchanged",
	procedure.CauseBootFailed:           "the old software runs again; do not use this file",
	procedure.CauseSelfTestFailed:       "the old software runs again; the text says what is not healthy",
	procedure.CauseConfirmTimeout:       "the old software runs again; activate once more and send `confirm` within `iadUpgConfirmWindow`",
	procedure.CauseWatchdogReset:        "the old software runs again; the new one hung",
	procedure.CauseNoFallback:           "the other bank holds nothing to go back to: download software into it",
	procedure.CauseRollbackFailed:       "look at `iadUpgBankTable`; download software that works into the other bank",
	procedure.CauseConfigReadError:      "try later; the configuration data on the device may be damaged",
	procedure.CauseConfigParseError:     "mend the file: its first line is `iad-config KIND FORMAT`",
	procedure.CauseConfigFormatMismatch: "set `convertFirst`, or convert the file by hand",
	procedure.CauseConvertFailed:        "read the text, the last words of the conversion program; edit the files and recover them",
	procedure.CauseConvertTimeout:       "try again; then convert the files by hand",
	procedure.CauseConvertToolMissing:   "convert the files by hand, or install software with a converter",
	procedure.CauseConfigApplyError:     "mend the settings that the text names; the data from before are in force",
	procedure.CauseConfigSaveError:      "try later; look at the device's storage",
	procedure.CauseAbortedByManager:     "make the request again if it is still wanted",
	procedure.CauseAbortedLocally:       "ask on site, then make the request again",
	procedure.CauseDeadlineExceeded:     "raise `iadUpgReqTimeLimit`, or find out what is slow",
	procedure.CauseInterrupted:          "make the request again; a download goes on where it was cut",
	procedure.CauseInternalError:        "report it with the text and the device's log",
}

func writeCauses(b *bytes.Buffer) {
	b.WriteString("| | cause | advice of the device | what to do |\n|---|---|---|---|\n")
	for _, c := range procedure.Causes() {
		fmt.Fprintf(b, "| %d | `%s` | %s | %s |\n", c, c, procedure.AdviceFor(c), todo[c])
	}
}

func TestEveryCauseIsExplained(t *testing.T) {
	for _, c := range procedure.Causes() {
		if todo[c] == "" {
			t.Errorf("docs/mib.md says nothing about %s", c)
		}
	}
	if len(todo) != len(procedure.Causes()) {
		t.Errorf("%d explanations for %d causes", len(todo), len(procedure.Causes()))
	}
}
