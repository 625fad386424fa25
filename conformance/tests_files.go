package conformance

import (
	"bytes"
	"net"
	"time"

	"example.com/iad/manager/device"
	"example.com/iad/mib"
	"example.com/iad/transfer/tftp"
)

var testsOfFiles = []*Test{
	{Name: "backup", Title: "backupConfig sends all files, and reports their digests", Quick: true, needs: needTFTP, run: func(t *T) { backup(t, mib.ProtocolTftp) }},
	{Name: "backup-ftp", Title: "backupConfig by FTP", Quick: true, needs: needFTP, run: func(t *T) { backup(t, mib.ProtocolFtp) }},
	{Name: "backup-some", Title: "backupConfig sends the files in iadUpgReqFiles and no others", Quick: true, run: backupSome},
	{Name: "backup-check-only", Title: "backupConfig with checkOnly sends nothing", Quick: true, run: backupCheckOnly},
	{Name: "backup-refused-tftp", Title: "Errors of a TFTP server on an upload have their causes", needs: needTFTP, run: backupRefusedTFTP},
	{Name: "backup-refused-ftp", Title: "Errors of an FTP server on an upload have their causes", needs: needFTP, run: backupRefusedFTP},
	{Name: "recover", Title: "recoverConfig puts a backup in force", Quick: true, run: recoverBackup},
	{Name: "recover-damaged", Title: "recoverConfig of wrong files changes nothing", Quick: true, run: recoverDamaged},
	{Name: "recover-check-only", Title: "recoverConfig with checkOnly fetches and changes nothing", Quick: true, run: recoverCheckOnly},
	{Name: "download", Title: "downloadSoftware fills the other bank and changes nothing else", Quick: true, needs: needSoftware | needTFTP, run: func(t *T) { download(t, mib.ProtocolTftp) }},
	{Name: "download-ftp", Title: "downloadSoftware by FTP", Quick: true, needs: needSoftware | needFTP, run: func(t *T) { download(t, mib.ProtocolFtp) }},
	{Name: "download-check-only", Title: "downloadSoftware with checkOnly writes nothing", Quick: true, needs: needSoftware, run: downloadCheckOnly},
	{Name: "download-present", Title: "Software that the device has is not fetched again", Quick: true, needs: needSoftware, run: downloadPresent},
	{Name: "download-other-version", Title: "Software of another version than iadUpgReqVersion is refused", Quick: true, needs: needSoftware, run: downloadOtherVersion},
	{Name: "download-expected", Title: "iadUpgFileExpectSize and iadUpgFileExpectDigest are checked", Quick: true, needs: needSoftware, run: downloadExpected},
	{Name: "download-damaged", Title: "Damaged images are refused, and the bank is not bootable", Quick: true, needs: needSoftware, run: downloadDamaged},
	{Name: "download-foreign", Title: "Images that were not made for the device are refused before the bank is erased", Quick: true, needs: needKey, run: downloadForeign},
	{Name: "download-too-large", Title: "Software that does not fit is refused", Quick: true, needs: needKey, run: downloadTooLarge},
	{Name: "download-refused-tftp", Title: "Errors of a TFTP server on a download have their causes", needs: needSoftware | needTFTP, run: downloadRefusedTFTP},
	{Name: "download-refused-ftp", Title: "Errors of an FTP server on a download have their causes", needs: needSoftware | needFTP, run: downloadRefusedFTP},
	{Name: "server-silent", Title: "A server that does not answer, or that stalls, is given up after iadUpgServerTimeout", needs: needSoftware | needTFTP, run: serverSilent},
	{Name: "server-unreachable", Title: "A port where nobody listens", needs: needSoftware, run: serverUnreachable},
	{Name: "retries", Title: "The device retries a transfer as often as iadUpgReqRetries says", Quick: true, needs: needSoftware | needTFTP, run: retries},
	{Name: "time-limit", Title: "An operation ends at its time limit", needs: needSoftware, run: timeLimit},
	{Name: "abort-transfer", Title: "abort stops a transfer, and the bank is not bootable", Quick: true, needs: needSoftware, run: abortTransfer},
	{Name: "abort-connecting", Title: "abort stops an operation that waits for the server", Quick: true, needs: needSoftware | needTFTP, run: abortConnecting},
	{Name: "progress", Title: "Progress is reported at the steps that iadUpgNotifyStep sets", Quick: true, needs: needSoftware | needNotifications, run: progress},
	{Name: "notify-enable", Title: "A notification that is disabled is not sent, and its event is numbered", Quick: true, needs: needNotifications, run: notifyEnable},
	{Name: "inform-repeated", Title: "An inform that is not acknowledged is sent again with the same number", needs: needNotifications, run: informRepeated},
}

// takeBackup makes a backup and returns its files.
func (t *T) takeBackup(p mib.Protocol) map[mib.FileType][]byte {
	t.useServer(p, 2*time.Second)
	t.succeed("BACKUP", request{kind: mib.OperationKindBackupConfig, before: t.configNames("backup-")})
	files := map[mib.FileType][]byte{}
	for _, k := range configKinds {
		data, ok := t.servers.uploaded("backup-" + k.String())
		if !ok {
			continue
		}
		files[k] = data
	}
	return files
}

func backup(t *T, p mib.Protocol) {
	before := t.device()
	files := t.takeBackup(p)
	op := t.operation()
	var all []byte
	for _, k := range configKinds {
		data, sent := files[k]
		row, err := t.client.File(t.ctx, k)
		t.answered(err)
		if !t.check("BACKUP", sent, "the server did not receive %s", k) {
			continue
		}
		all = append(all, data...)
		t.check("FILE-LAST", row.LastOpID == op.ID && row.LastResult == mib.FailCauseNone, "iadUpgFileLastOpId.%s is %d, iadUpgFileLastResult %s; want %d, none", k, row.LastOpID, row.LastResult, op.ID)
		t.check("FILE-SIZE", row.LastSize == uint32(len(data)), "iadUpgFileLastSize.%s is %d; the server received %d bytes", k, row.LastSize, len(data))
		t.check("FILE-DIGEST", bytes.Equal(row.LastDigest, digest(data)), "iadUpgFileLastDigest.%s is %x; what the server received has %x", k, row.LastDigest, digest(data))
		if before.Generation != 0 {
			t.check("FILE-FORMAT", row.LastFormat == before.ConfigFormat, "iadUpgFileLastFormat.%s is %d; iadUpgConfigFormat is %d", k, row.LastFormat, before.ConfigFormat)
		}
	}
	if before.Generation != 0 {
		t.check("CONFIG-DIGEST", bytes.Equal(before.ConfigDigest, digest(all)), "iadUpgConfigDigest is %x; the files of the backup, one after the other, have %x", before.ConfigDigest, digest(all))
	} else {
		t.check("CONFIG-DIGEST", len(before.ConfigDigest) == 0, "iadUpgConfigDigest is %x with generation 0; want a zero-length string", before.ConfigDigest)
	}
	t.check("OP-BYTES", int(op.BytesDone) == len(all), "iadUpgOpBytesDone is %d; the server received %d bytes", op.BytesDone, len(all))
	t.unchanged(before)
}

// unchanged checks that software and configuration data are what they were.
func (t *T) unchanged(before *device.Device) {
	now := t.device()
	t.check("CONFIG-SAME", bytes.Equal(now.ConfigDigest, before.ConfigDigest) && now.Generation == before.Generation,
		"the configuration data in force were generation %d, digest %x, and are %d, %x", before.Generation, before.ConfigDigest, now.Generation, now.ConfigDigest)
	t.check("SOFTWARE-SAME", now.Version == before.Version && now.RestartCount == before.RestartCount,
		"iadUpgSoftwareVersion was %s, iadUpgRestartCount %d, and now %s, %d", before.Version, before.RestartCount, now.Version, now.RestartCount)
}

func backupSome(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	some := []mib.FileType{mib.FileTypeUserData, mib.FileTypeProtocolParams}
	t.succeed("BACKUP", request{kind: mib.OperationKindBackupConfig, files: some, before: t.configNames("some-")})
	for _, k := range configKinds {
		_, sent := t.servers.uploaded("some-" + k.String())
		t.check("REQ-FILES", sent == contains(some, k), "%s: sent %v, in iadUpgReqFiles %v", k, sent, contains(some, k))
	}
}

func backupCheckOnly(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	before := t.device()
	t.succeed("CHECK-ONLY", request{kind: mib.OperationKindBackupConfig, options: []int{mib.ReqOptionsCheckOnly}, before: t.configNames("check-")})
	for _, k := range configKinds {
		_, sent := t.servers.uploaded("check-" + k.String())
		t.check("CHECK-ONLY", !sent, "backupConfig with checkOnly sent %s", k)
	}
	t.unchanged(before)
}

// tftpErrors are ERROR packets and the causes that they may be reported as, by the table
// in IadUpgFailCause.
var tftpErrors = []struct {
	code   tftp.ErrorCode
	text   string
	causes []mib.FailCause
}{
	{tftp.ErrFileNotFound, "file not found", []mib.FailCause{mib.FailCauseFileNotFound}},
	{tftp.ErrAccessViolation, "access violation", []mib.FailCause{mib.FailCauseAccessDenied}},
	{tftp.ErrDiskFull, "disk full", []mib.FailCause{mib.FailCauseRemoteStorageFull}},
	{tftp.ErrIllegal, "illegal operation", []mib.FailCause{mib.FailCauseProtocolError}},
	{tftp.ErrFileExists, "file already exists", []mib.FailCause{mib.FailCauseRemoteFileExists}},
	{tftp.ErrNoSuchUser, "no such user", []mib.FailCause{mib.FailCauseProtocolError}},
	{tftp.ErrNotDefined, "something else", []mib.FailCause{mib.FailCauseProtocolError}},
}

func backupRefusedTFTP(t *T) {
	t.useServer(mib.ProtocolTftp, 2*time.Second)
	for _, x := range tftpErrors {
		t.servers.put("refused.cfg", nil, behaviour{failing: true, tftp: x.code, tftpText: x.text})
		t.fail("CAUSE-TFTP", request{kind: mib.OperationKindBackupConfig, files: configKinds[:1], before: t.file(configKinds[0], "refused.cfg", 0, nil)}, x.causes...)
		row, err := t.client.File(t.ctx, configKinds[0])
		t.answered(err)
		t.check("FILE-LAST", contains(x.causes, row.LastResult), "iadUpgFileLastResult.%s is %s; want %v", configKinds[0], row.LastResult, x.causes)
	}
	t.servers.put("full.cfg", nil, behaviour{full: 1})
	t.fail("CAUSE-TFTP", request{kind: mib.OperationKindBackupConfig, files: configKinds[:1], before: t.file(configKinds[0], "full.cfg", 0, nil)}, mib.FailCauseRemoteStorageFull)
}

func backupRefusedFTP(t *T) {
	t.useServer(mib.ProtocolFtp, 2*time.Second)
	for _, x := range []struct {
		reply string
		cause mib.FailCause
	}{
		{"552 quota exceeded", mib.FailCauseRemoteStorageFull}, {"452 insufficient storage space", mib.FailCauseRemoteStorageFull},
		{"550 permission denied", mib.FailCauseAccessDenied}, {"553 file name not allowed", mib.FailCauseAccessDenied},
		{"450 file busy", mib.FailCauseServerBusy},
	} {
		t.servers.put("refused.cfg", nil, behaviour{ftp: x.reply, ftpTo: "STOR"})
		op := t.execute(request{kind: mib.OperationKindBackupConfig, files: configKinds[:1], before: t.file(configKinds[0], "refused.cfg", 0, nil)})
		t.check("CAUSE-FTP", op.State == mib.OperationStateFailed && op.Cause == x.cause, "after %q the operation ended as %s, %s: %s; want %s", x.reply, op.State, op.Cause, op.Text, x.cause)
	}
}

// offer puts files of a backup on the server under names with a prefix.
func (t *T) offer(prefix string, files map[mib.FileType][]byte) {
	for k, data := range files {
		t.servers.put(prefix+k.String(), data, behaviour{})
	}
}

func recoverBackup(t *T) {
	before := t.device()
	files := t.takeBackup(t.protocol())
	if before.Generation == 0 {
		t.skip("the device runs on the defaults of its software: there is nothing to recover")
	}
	t.offer("restore-", files)
	op := t.succeed("RECOVER", request{kind: mib.OperationKindRecoverConfig, before: t.configNames("restore-")})
	after := t.device()
	t.check("RECOVER", bytes.Equal(after.ConfigDigest, before.ConfigDigest), "after recoverConfig of its own backup iadUpgConfigDigest is %x; it was %x", after.ConfigDigest, before.ConfigDigest)
	for k, data := range files {
		row, err := t.client.File(t.ctx, k)
		t.answered(err)
		t.check("FILE-LAST", row.LastOpID == op.ID && row.LastResult == mib.FailCauseNone, "iadUpgFileLastOpId.%s is %d, iadUpgFileLastResult %s; want %d, none", k, row.LastOpID, row.LastResult, op.ID)
		t.check("FILE-DIGEST", bytes.Equal(row.LastDigest, digest(data)) && row.LastSize == uint32(len(data)), "iadUpgFileLastDigest.%s is %x, iadUpgFileLastSize %d; the file has %x, %d", k, row.LastDigest, row.LastSize, digest(data), len(data))
	}
}

func recoverDamaged(t *T) {
	before := t.device()
	if before.Generation == 0 {
		t.skip("the device runs on the defaults of its software: there is nothing to recover")
	}
	files := t.takeBackup(t.protocol())
	last := mib.FileTypeOtherData
	t.offer("ok-", files)
	for _, x := range []struct {
		what   string
		row    []mib.Varbind
		causes []mib.FailCause
	}{
		{"a digest that differs", t.file(last, "ok-"+last.String(), 0, bytes.Repeat([]byte{1}, 32)), []mib.FailCause{mib.FailCauseDigestMismatch}},
		{"a size that differs", t.file(last, "ok-"+last.String(), uint32(len(files[last])+1), nil), []mib.FailCause{mib.FailCauseSizeMismatch}},
		{"a file that is missing", t.file(last, "missing", 0, nil), []mib.FailCause{mib.FailCauseFileNotFound}},
		{"a file of another kind", t.file(last, "ok-"+mib.FileTypeUserData.String(), 0, nil), []mib.FailCause{mib.FailCauseConfigParseError, mib.FailCauseBadFormat}},
		{"garbage", t.file(last, "garbage", 0, nil), []mib.FailCause{mib.FailCauseConfigParseError, mib.FailCauseBadFormat}},
	} {
		t.record(EntryNote, "%s", x.what)
		t.servers.put("garbage", bytes.Repeat([]byte{0xff, 0, 7}, 100), behaviour{})
		rows := t.configNames("ok-")
		rows = append(rows[:len(rows)-len(x.row)], x.row...) // the last kind's
		t.fail("RECOVER-ALL", request{kind: mib.OperationKindRecoverConfig, before: rows}, x.causes...)
		t.unchanged(before)
	}
}

func recoverCheckOnly(t *T) {
	before := t.device()
	if before.Generation == 0 {
		t.skip("the device runs on the defaults of its software: there is nothing to recover")
	}
	files := t.takeBackup(t.protocol())
	t.offer("check-", files)
	t.succeed("CHECK-ONLY", request{kind: mib.OperationKindRecoverConfig, options: []int{mib.ReqOptionsCheckOnly}, before: t.configNames("check-")})
	t.unchanged(before)
}

// fetch is a request to download an image that the servers offer under a name.
func (t *T) fetch(name string, options ...int) request {
	return request{kind: mib.OperationKindDownloadSoftware, options: options, before: t.file(mib.FileTypeSoftware, name, 0, nil)}
}

// otherUnbootable checks that the other bank holds nothing that starts, unless it is still
// what it was. before may be nil.
func (t *T) otherUnbootable(before *device.Bank) {
	running, other := t.banks()
	t.check("BANK-NEXT", running.Next && !other.Next, "bank %d has the role nextBoot after a download that failed", other.Number)
	if before != nil && bytes.Equal(before.Digest, other.Digest) && before.Written.Equal(other.Written) && before.State == other.State {
		return
	}
	t.check("BANK-UNBOOTABLE", other.State != mib.BankStateReady && other.State != mib.BankStateGood && other.State != mib.BankStateTrial,
		"iadUpgBankState.%d is %s after a download that did not complete", other.Number, other.State)
}

func download(t *T, p mib.Protocol) {
	t.useServer(p, 2*time.Second)
	before := t.device()
	running, _ := t.banks()
	t.servers.put("fw.iad", t.software.newer, behaviour{})
	op := t.succeed("DOWNLOAD", t.fetch("fw.iad", mib.ReqOptionsForce))
	now, other := t.banks()
	t.check("BANK-READY", other.State == mib.BankStateReady, "iadUpgBankState.%d is %s after a download; want ready", other.Number, other.State)
	t.check("BANK-READY", other.Version == t.software.version, "iadUpgBankVersion.%d is %q; want %q", other.Number, other.Version, t.software.version)
	t.check("BANK-READY", other.Error == mib.FailCauseNone, "iadUpgBankError.%d is %s after a download", other.Number, other.Error)
	t.check("BANK-NEXT", now.Next && !other.Next, "bank %d has the role nextBoot after a download without thenActivate", other.Number)
	t.check("BANK-SAME", now.Version == running.Version && now.State == running.State && bytes.Equal(now.Digest, running.Digest) && now.Written.Equal(running.Written), "the running bank was %v, and is %v after a download", running, now)
	t.check("OP-BANK", int(op.Bank) == other.Number, "iadUpgOpBank is %d; bank %d was written", op.Bank, other.Number)
	row, err := t.client.File(t.ctx, mib.FileTypeSoftware)
	t.answered(err)
	t.check("FILE-LAST", row.LastOpID == op.ID && row.LastResult == mib.FailCauseNone, "iadUpgFileLastOpId.software is %d, iadUpgFileLastResult %s; want %d, none", row.LastOpID, row.LastResult, op.ID)
	t.check("FILE-DIGEST", len(row.LastDigest) == 0 || bytes.Equal(row.LastDigest, digest(t.software.newer)), "iadUpgFileLastDigest.software is %x; the file has %x", row.LastDigest, digest(t.software.newer))
	t.unchanged(before)
	history, err := t.client.History(t.ctx)
	t.answered(err)
	for _, h := range history {
		if h.OpID == op.ID {
			t.check("HIST-VERSIONS", h.OldVersion == before.Version && h.NewVersion == t.software.version, "iadUpgHistOldVersion %q, iadUpgHistNewVersion %q; want %q, %q", h.OldVersion, h.NewVersion, before.Version, t.software.version)
		}
	}
}

func downloadCheckOnly(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	t.servers.put("fw.iad", t.software.newer, behaviour{})
	before := t.device()
	_, other := t.banks()
	t.succeed("CHECK-ONLY", t.fetch("fw.iad", mib.ReqOptionsForce, mib.ReqOptionsCheckOnly))
	_, now := t.banks()
	t.check("CHECK-ONLY", now.State == other.State && now.Version == other.Version && now.Written.Equal(other.Written), "downloadSoftware with checkOnly changed bank %d from %v to %v", now.Number, other, now)
	t.unchanged(before)
}

func downloadPresent(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	f := t.servers.put("fw.iad", t.software.newer, behaviour{})
	r := t.fetch("fw.iad")
	r.version = t.first.Version
	t.fail("PRESENT", r, mib.FailCauseAlreadyInstalled)
	t.succeed("DOWNLOAD", t.fetch("fw.iad", mib.ReqOptionsForce))
	before := t.servers.requested(f)
	r = t.fetch("fw.iad")
	r.version = t.software.version
	op := t.succeed("PRESENT", r)
	_, other := t.banks()
	t.check("PRESENT", int(op.Bank) == other.Number, "iadUpgOpBank is %d; bank %d holds %s", op.Bank, other.Number, t.software.version)
	t.check("PRESENT", t.servers.requested(f) == before, "the file was fetched although bank %d holds %s", other.Number, t.software.version)
}

func downloadOtherVersion(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	t.servers.put("fw.iad", t.software.newer, behaviour{})
	r := t.fetch("fw.iad", mib.ReqOptionsForce)
	r.version = "99.0.0"
	before := t.device()
	t.fail("CAUSE-IMAGE", r, mib.FailCauseVersionMismatch)
	t.unchanged(before)
}

func downloadExpected(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	data := t.software.newer
	t.servers.put("fw.iad", data, behaviour{})
	with := func(size uint32, sum []byte) request {
		return request{kind: mib.OperationKindDownloadSoftware, options: []int{mib.ReqOptionsForce}, before: t.file(mib.FileTypeSoftware, "fw.iad", size, sum)}
	}
	t.fail("FILE-EXPECT", with(uint32(len(data))-512, nil), mib.FailCauseSizeMismatch)
	t.nextIsRunning()
	t.fail("FILE-EXPECT", with(0, bytes.Repeat([]byte{9}, 32)), mib.FailCauseDigestMismatch)
	t.nextIsRunning()
	t.succeed("FILE-EXPECT", with(uint32(len(data)), digest(data)))
	t.write(t.file(mib.FileTypeSoftware, "fw.iad", 0, nil)...)
}

// nextIsRunning checks that a download that failed did not select another bank.
func (t *T) nextIsRunning() {
	running, other := t.banks()
	t.check("BANK-NEXT", running.Next && !other.Next, "bank %d has the role nextBoot after a download that failed", other.Number)
}

func downloadDamaged(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	good := t.software.newer
	flipped := bytes.Clone(good)
	flipped[len(good)/2] ^= 0x10
	early := bytes.Clone(good)
	early[700] ^= 0x01 // in the manifest
	for _, x := range []struct {
		what   string
		data   []byte
		causes []mib.FailCause
	}{
		{"half of an image", good[:len(good)/2], []mib.FailCause{mib.FailCauseSizeMismatch, mib.FailCauseBadFormat, mib.FailCauseDigestMismatch, mib.FailCauseConnectionLost}},
		{"one bit of the software flipped", flipped, []mib.FailCause{mib.FailCauseDigestMismatch, mib.FailCauseReadBackMismatch, mib.FailCauseSignatureInvalid}},
		{"one bit of the manifest flipped", early, []mib.FailCause{mib.FailCauseSignatureInvalid, mib.FailCauseBadFormat, mib.FailCauseDigestMismatch}},
		{"an empty file", []byte{}, []mib.FailCause{mib.FailCauseBadFormat, mib.FailCauseSizeMismatch}},
		{"text", bytes.Repeat([]byte("this is not software\n"), 500), []mib.FailCause{mib.FailCauseBadFormat}},
		{"zeros", make([]byte, 10_000), []mib.FailCause{mib.FailCauseBadFormat}},
	} {
		t.record(EntryNote, "%s", x.what)
		before := t.device()
		_, held := t.banks()
		t.servers.put("bad.iad", x.data, behaviour{})
		t.fail("CAUSE-IMAGE", t.fetch("bad.iad", mib.ReqOptionsForce), x.causes...)
		t.unchanged(before)
		t.otherUnbootable(&held)
	}
	t.servers.put("fw.iad", good, behaviour{})
	t.succeed("DOWNLOAD", t.fetch("fw.iad", mib.ReqOptionsForce))
}

func downloadForeign(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	t.servers.put("fw.iad", t.software.newer, behaviour{})
	t.succeed("DOWNLOAD", t.fetch("fw.iad", mib.ReqOptionsForce))
	_, held := t.banks()
	newest, err := bump(t.first.Version, 3)
	if err != nil {
		t.skip("%v", err)
	}
	older := "0.0.1"
	for _, x := range []struct {
		what  string
		data  []byte
		cause mib.FailCause
	}{
		{"signed by a stranger", t.image(spec{version: newest, key: t.stranger()}), mib.FailCauseSignerUntrusted},
		{"for other hardware", t.image(spec{version: newest, hardware: "OTHER-HARDWARE"}), mib.FailCauseIncompatibleHardware},
		{"older than the running software", t.image(spec{version: older}), mib.FailCauseDowngradeRefused},
		{"needs a later version to run", t.image(spec{version: newest, minimum: newest}), mib.FailCausePreconditionMissing},
	} {
		t.record(EntryNote, "software %s", x.what)
		t.servers.put("foreign.iad", x.data, behaviour{})
		if x.cause == mib.FailCauseSignerUntrusted && !t.first.SignatureRequired {
			continue
		}
		t.fail("CAUSE-IMAGE", t.fetch("foreign.iad"), x.cause)
		_, other := t.banks()
		t.check("BANK-KEPT", other.State == held.State && other.Version == held.Version, "software %s was refused, and bank %d changed from %v to %v", x.what, other.Number, held, other)
	}
	// With the option, the older one is accepted.
	t.servers.put("foreign.iad", t.image(spec{version: older}), behaviour{})
	op := t.execute(t.fetch("foreign.iad", mib.ReqOptionsAllowDowngrade))
	t.check("DOWNGRADE", op.State == mib.OperationStateSucceeded || op.Cause == mib.FailCauseDowngradeRefused, "with allowDowngrade %s ended as %s, %s", older, op.State, op.Cause)
}

// reasonable is the largest image that a test makes, in bytes.
const reasonable = 64 << 20

func downloadTooLarge(t *T) {
	_, other := t.banks()
	if other.Capacity > reasonable || other.Capacity == 0 {
		t.skip("iadUpgBankCapacity is %d: the device states no limit that an image of at most %d bytes could exceed", other.Capacity, reasonable)
	}
	t.useServer(t.protocol(), 5*time.Second)
	newest, err := bump(t.first.Version, 3)
	if err != nil {
		t.skip("%v", err)
	}
	t.servers.put("large.iad", t.image(spec{version: newest, size: int(other.Capacity) + 1}), behaviour{})
	before := t.device()
	t.fail("CAUSE-IMAGE", t.fetch("large.iad"), mib.FailCauseFileTooLarge, mib.FailCauseStorageFull)
	t.unchanged(before)
}

func downloadRefusedTFTP(t *T) {
	t.useServer(mib.ProtocolTftp, 2*time.Second)
	for _, x := range tftpErrors {
		t.servers.put("refused.iad", nil, behaviour{failing: true, tftp: x.code, tftpText: x.text})
		t.fail("CAUSE-TFTP", t.fetch("refused.iad", mib.ReqOptionsForce), x.causes...)
	}
	t.fail("CAUSE-TFTP", t.fetch("there-is-no-such-file", mib.ReqOptionsForce), mib.FailCauseFileNotFound)
}

func downloadRefusedFTP(t *T) {
	t.useServer(mib.ProtocolFtp, 2*time.Second)
	judge := func(what string, causes ...mib.FailCause) {
		op := t.execute(t.fetch("refused.iad", mib.ReqOptionsForce))
		t.check("CAUSE-FTP", op.State == mib.OperationStateFailed && contains(causes, op.Cause), "%s: the operation ended as %s, %s: %s; want %v", what, op.State, op.Cause, op.Text, causes)
	}
	t.servers.put("refused.iad", t.software.newer, behaviour{ftp: "550 permission denied", ftpTo: "RETR"})
	judge("550 to RETR of a file that has a size", mib.FailCauseAccessDenied)
	t.servers.reset()
	judge("550 to SIZE and RETR", mib.FailCauseFileNotFound)
	t.servers.put("refused.iad", t.software.newer, behaviour{breakAt: int64(len(t.software.newer) / 2)})
	judge("426 after half of the file", mib.FailCauseConnectionLost)
	t.servers.put("refused.iad", t.software.newer, behaviour{})
	t.setLogin("", "530 login incorrect")
	judge("530 to PASS", mib.FailCauseAuthFailed)
	t.setLogin("421 too many users", "")
	judge("421 as greeting", mib.FailCauseServerBusy)
	t.setLogin("hello, I am not an FTP server", "")
	judge("no FTP server", mib.FailCauseProtocolError)
	t.setLogin("", "")
}

func (t *T) setLogin(greeting, login string) {
	t.servers.mu.Lock()
	defer t.servers.mu.Unlock()
	t.servers.greeting, t.servers.login = greeting, login
}

func serverSilent(t *T) {
	const limit = 2 * time.Second
	t.useServer(mib.ProtocolTftp, limit)
	for _, x := range []struct {
		what   string
		b      behaviour
		causes []mib.FailCause
	}{
		{"no answer", behaviour{silent: true}, []mib.FailCause{mib.FailCauseServerUnreachable, mib.FailCauseTransferTimeout}},
		{"silence in the middle of the file", behaviour{hold: int64(len(t.software.newer) / 2)}, []mib.FailCause{mib.FailCauseTransferTimeout}},
	} {
		t.record(EntryNote, "%s", x.what)
		t.servers.put("silent.iad", t.software.newer, x.b)
		began := time.Now()
		t.fail("CAUSE-SILENCE", t.fetch("silent.iad", mib.ReqOptionsForce), x.causes...)
		took := time.Since(began)
		t.check("SRV-TIMEOUT", took >= limit-100*time.Millisecond, "after %s, the transfer was given up after %s; iadUpgServerTimeout is %s", x.what, seconds(took), seconds(limit))
		t.check("SRV-TIMEOUT", took < 4*limit+5*time.Second, "after %s, the transfer was given up only after %s; iadUpgServerTimeout is %s", x.what, seconds(took), seconds(limit))
		t.servers.reset()
	}
}

func serverUnreachable(t *T) {
	l, err := net.ListenPacket("udp", net.JoinHostPort(t.cfg.Advertise, "0"))
	if err != nil {
		t.skip("no port: %v", err)
	}
	port := l.LocalAddr().(*net.UDPAddr).Port
	l.Close()
	t.useServer(t.protocol(), 2*time.Second)
	t.write(t.v(mib.ServerPort, mib.Uint32(uint32(port)), 1))
	t.fail("CAUSE-SILENCE", t.fetch("fw.iad", mib.ReqOptionsForce), mib.FailCauseServerUnreachable)
}

func retries(t *T) {
	t.useServer(mib.ProtocolTftp, 2*time.Second)
	t.servers.put("fw.iad", t.software.newer, behaviour{failing: true, tftp: tftp.ErrNotDefined, tftpText: "too many transfers, try again", times: 1})
	r := t.fetch("fw.iad", mib.ReqOptionsForce)
	r.retries = 1
	op := t.execute(r)
	t.check("RETRIES", op.State == mib.OperationStateSucceeded && op.Attempt == 2, "a server failed once, with iadUpgReqRetries 1: %s, %s, iadUpgOpAttempt %d; want succeeded, 2", op.State, op.Cause, op.Attempt)
	t.servers.put("busy.iad", t.software.newer, behaviour{failing: true, tftp: tftp.ErrNotDefined, tftpText: "too many transfers, try again"})
	op = t.execute(t.fetch("busy.iad", mib.ReqOptionsForce))
	t.check("RETRIES", op.State == mib.OperationStateFailed && op.Attempt == 1, "with iadUpgReqRetries 0: %s, iadUpgOpAttempt %d; want failed, 1", op.State, op.Attempt)
	t.servers.put("none.iad", nil, behaviour{failing: true, tftp: tftp.ErrFileNotFound, tftpText: "file not found"})
	r = t.fetch("none.iad", mib.ReqOptionsForce)
	r.retries = 3
	op = t.execute(r)
	t.check("RETRIES", op.Attempt == 1 || op.Advice == mib.RetryAdviceRetryNow || op.Advice == mib.RetryAdviceRetryLater, "fileNotFound with iadUpgOpAdvice %s was tried %d times; want once", op.Advice, op.Attempt)
}

func timeLimit(t *T) {
	t.useServer(t.protocol(), time.Minute)
	t.servers.put("slow.iad", t.software.newer, behaviour{hold: int64(len(t.software.newer) / 2)})
	r := t.fetch("slow.iad", mib.ReqOptionsForce)
	r.limit = 10 * time.Second
	began := time.Now()
	t.fail("TIME-LIMIT", r, mib.FailCauseDeadlineExceeded)
	took := time.Since(began)
	t.check("TIME-LIMIT", took > 9*time.Second && took < 20*time.Second, "with iadUpgReqTimeLimit 10 the operation ended after %s", seconds(took))
	t.otherUnbootable(nil)
}

func abortTransfer(t *T) {
	t.useServer(t.protocol(), 30*time.Second)
	before := t.device()
	f := t.servers.put("slow.iad", t.software.newer, behaviour{hold: int64(len(t.software.newer) / 2)})
	id := t.start(t.fetch("slow.iad", mib.ReqOptionsForce))
	t.holds(f)
	// What the server has sent may still wait at the device, which has not touched the bank then.
	t.within(t.cfg.Limit, "the phase transferring", func() bool { return t.operation().Phase == mib.OperationPhaseTransferring })
	t.abort(id)
	t.otherUnbootable(nil)
	t.unchanged(before)
}

// abort aborts an operation, which has to end soon.
func (t *T) abort(id uint32) {
	began := time.Now()
	t.write(t.v(mib.ReqTargetOpId, mib.Uint32(id)), t.v(mib.ReqOwner, mib.Str(owner)), t.v(mib.ReqCommand, mib.OperationKindAbort.Value()))
	stopped := t.within(min(20*time.Second, t.cfg.Limit), "the end of the operation", func() bool { return final(t.operation().State) })
	t.must("ABORT", stopped, "an operation that was aborted is %s after %s", t.operation().State, seconds(time.Since(began)))
	op := t.awaitEnd(id)
	t.check("ABORT", op.State == mib.OperationStateAborted && op.Cause == mib.FailCauseAbortedByManager, "an operation that was aborted ended as %s, %s; want aborted, abortedByManager", op.State, op.Cause)
	if t.listener != nil {
		t.within(eventPatience, "iadUpgOpFailed", func() bool { return len(t.watch.received(mib.NotifyOpFailed)) > 0 })
		for _, n := range t.watch.received(mib.NotifyOpFailed) {
			state, _ := n.value(mib.OpState, t.watch.module)
			t.check("NOTIFY-END", state.Int == int64(mib.OperationStateAborted), "iadUpgOpFailed of an aborted operation has iadUpgOpState %s", mib.OperationState(state.Int))
		}
	}
}

func abortConnecting(t *T) {
	t.useServer(mib.ProtocolTftp, 30*time.Second)
	before := t.device()
	f := t.servers.put("silent.iad", t.software.newer, behaviour{silent: true})
	id := t.start(t.fetch("silent.iad", mib.ReqOptionsForce))
	t.until("the request for the file", func() bool { return t.servers.requested(f) > 0 })
	t.abort(id)
	t.unchanged(before)
}

func progress(t *T) {
	t.useServer(t.protocol(), 5*time.Second)
	defer func() { _ = t.client.SetPace(t.ctx, device.Pace{Step: 1}) }()
	count := func(step uint32, pause time.Duration, rate int) (int, *device.Operation) {
		t.answered(t.client.SetPace(t.ctx, device.Pace{Step: step, MinInterval: pause}))
		before := len(t.watch.received(mib.NotifyOpProgress))
		t.servers.put("fw.iad", t.software.newer, behaviour{rate: rate})
		op := t.succeed("DOWNLOAD", t.fetch("fw.iad", mib.ReqOptionsForce))
		// The end is sent after all progress.
		t.within(eventPatience, "iadUpgOpCompleted", func() bool {
			for _, n := range t.watch.received(mib.NotifyOpCompleted) {
				if n.op == op.ID {
					return true
				}
			}
			return false
		})
		return len(t.watch.received(mib.NotifyOpProgress)) - before, op
	}
	rate := len(t.software.newer) / 2 // per second
	fine, op := count(5, 0, rate)
	t.check("PROGRESS-STEP", fine >= 5, "with iadUpgNotifyStep 5 and iadUpgNotifyMinInterval 0, %d iadUpgOpProgress were received for operation %d; want 5 at least", fine, op.ID)
	rare, op := count(1, 10*time.Second, rate)
	t.check("PROGRESS-PAUSE", rare <= 2, "with iadUpgNotifyMinInterval 10, %d iadUpgOpProgress were received in a download of %v; want 2 at most", rare, op.Elapsed)
}

func notifyEnable(t *T) {
	all := t.get(mib.NotifyEnable)
	t.watch.mute()
	t.useServer(t.protocol(), 2*time.Second)
	r := request{kind: mib.OperationKindBackupConfig, files: configKinds[:1], options: []int{mib.ReqOptionsCheckOnly}}
	t.write(t.v(mib.NotifyEnable, mib.Octets(mib.Bits(mib.NotifyEnableCompleted, mib.NotifyEnableFailed))))
	before := t.number(mib.EventSeq)
	op := t.succeed("BACKUP", r)
	arrived := t.within(eventPatience, "iadUpgOpCompleted", func() bool { return len(t.watch.received(mib.NotifyOpCompleted)) > 0 })
	t.check("NOTIFY-SENT", arrived, "iadUpgOpCompleted is enabled and was not received")
	t.check("NOTIFY-ENABLE", len(t.watch.received(mib.NotifyOpAccepted)) == 0 && len(t.watch.received(mib.NotifyOpProgress)) == 0, "iadUpgOpAccepted or iadUpgOpProgress was received although it is disabled")
	t.check("EVENT-SEQ", t.number(mib.EventSeq) == before+2, "iadUpgEventSeq went from %d to %d by a start, which is disabled, and an end; want %d", before, t.number(mib.EventSeq), before+2)
	for _, n := range t.watch.received(mib.NotifyOpCompleted) {
		if n.op == op.ID {
			t.check("NOTIFY-NUMBER", int64(n.seq) == before+2, "iadUpgOpCompleted has the number %d; want %d", n.seq, before+2)
		}
	}
	t.write(t.v(mib.NotifyEnable, all))
}

// mute tells the watch that the test changes which notifications are sent.
func (w *watch) mute() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enabled = nil
}

func informRepeated(t *T) {
	t.useServer(t.protocol(), 2*time.Second)
	refused := map[uint32]int{}
	traps := false
	t.watch.mu.Lock()
	t.watch.lose = func(n notification) bool { // the listener calls it under the lock
		if !n.Inform {
			traps = true
			return false
		}
		if n.Kind != mib.NotifyOpCompleted || refused[n.seq] >= 2 {
			return false
		}
		refused[n.seq]++
		return true
	}
	t.watch.mu.Unlock()
	t.succeed("BACKUP", request{kind: mib.OperationKindBackupConfig, files: configKinds[:1], options: []int{mib.ReqOptionsCheckOnly}})
	arrived := t.within(time.Minute, "iadUpgOpCompleted", func() bool { return len(t.watch.received(mib.NotifyOpCompleted)) > 0 })
	t.watch.mu.Lock()
	defer t.watch.mu.Unlock()
	if traps {
		t.skip("the device sends traps, which nobody acknowledges")
	}
	t.check("NOTIFY-KEPT", arrived, "iadUpgOpCompleted was not acknowledged, and was not sent again within a minute")
}
