package sim

import (
	"example.com/iad/agent/procedure"
	"example.com/iad/mib"
)

// lateWindow is the confirm window of the software that is not confirmed, in seconds.
const lateWindow = 60

// scripts are what is swept, by name.
var scripts = []struct {
	name   string
	script []command
}{
	{"backupConfig", []command{{kind: mib.OperationKindBackupConfig, version: "1.0.0", data: "old"}}},
	{"downloadSoftware", []command{{kind: mib.OperationKindDownloadSoftware, file: "2.0.0", version: "1.0.0", data: "old"}}},
	{"recoverConfig", []command{{kind: mib.OperationKindRecoverConfig, format: 1, who: "new", version: "1.0.0", data: "new"}}},
	{"encrypted downloadSoftware", []command{{kind: mib.OperationKindDownloadSoftware, file: "1.2.0", version: "1.0.0", data: "old"}}},
	{"difference", []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "1.3.0", version: "1.3.0", data: "old", encodings: " app.d-1.0.0"},
	}},
	{"encrypted difference", []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "1.4.0", version: "1.4.0", data: "old", encodings: " app.d-1.0.0"},
	}},
	{"difference from a base that reads wrong", []command{
		{badBase: true, kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "1.3.0", version: "1.3.0", data: "old", encodings: " app.d-1.0.0 app.xz"},
	}},
	{"encrypted backupConfig and recoverConfig", []command{
		{kind: mib.OperationKindBackupConfig, encrypts: true, version: "1.0.0", data: "old"},
		{kind: mib.OperationKindRecoverConfig, format: 1, who: "new", version: "1.0.0", data: "new"},
	}},
	{"encrypted recoverConfig, converted", []command{
		{kind: mib.OperationKindDownloadSoftware, encrypts: true, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0"},
		{kind: mib.OperationKindRecoverConfig, options: procedure.ConvertFirst, format: 1, who: "new", version: "2.0.0", data: "new"},
	}},
	{"reset", []command{{kind: mib.OperationKindReset, version: "1.0.0", data: "old"}}},
	{"activate and convertConfig", []command{
		{kind: mib.OperationKindDownloadSoftware, file: "2.0.0", version: "1.0.0", data: "old"},
		{kind: mib.OperationKindActivate, options: procedure.ThenReset, version: "2.0.0"},
		{kind: mib.OperationKindConvertConfig, version: "2.0.0", data: "old"},
	}},
	{"software that fails its self-test", []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "3.0.0", version: "1.0.0", data: "old", cause: mib.FailCauseSelfTestFailed},
	}},
	{"import, import, update, import, back", []command{
		{kind: mib.OperationKindRecoverConfig, format: 1, who: "second", version: "1.0.0", data: "second"},
		{kind: mib.OperationKindRecoverConfig, format: 1, who: "third", version: "1.0.0", data: "third"},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0"},
		{kind: mib.OperationKindRecoverConfig, format: 2, who: "fourth", version: "2.0.0", data: "fourth"},
		{kind: mib.OperationKindRecoverConfig, format: 2, who: "fifth", version: "2.0.0", data: "fifth"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.0.0", data: "third"},
	}},
	{"download after an activation without reset", []command{
		{kind: mib.OperationKindDownloadSoftware, file: "2.0.0", version: "1.0.0", data: "old"},
		{kind: mib.OperationKindActivate, version: "1.0.0", data: "old", orVersion: "2.0.0"},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.Force, file: "2.0.0", version: "1.0.0", data: "old", orVersion: "2.0.0"},
	}},
	{"back by command after going back by itself", []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "3.0.0", version: "1.0.0", data: "old", cause: mib.FailCauseSelfTestFailed},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.0.0", data: "old"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.0.0", data: "old"},
	}},
	{"confirm window over in the middle of a recovery", []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0", window: lateWindow},
		{kind: mib.OperationKindRecoverConfig, format: 2, who: "fourth", version: "1.0.0", data: "old", cause: mib.FailCauseConfirmTimeout},
		{kind: mib.OperationKindRecoverConfig, format: 1, who: "second", version: "1.0.0", data: "second"},
	}},
	{"software of the same format and back", []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "1.1.0", version: "1.1.0", data: "old"},
		{kind: mib.OperationKindRecoverConfig, format: 1, who: "new", version: "1.1.0", data: "new"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.0.0", data: "old"},
	}},
	{"the same software once more", []command{
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "1.1.0", version: "1.1.0", data: "old"},
		{kind: mib.OperationKindRecoverConfig, options: procedure.ThenReset, format: 1, who: "new", version: "1.1.0", data: "new"},
		{kind: mib.OperationKindActivate, options: procedure.AllowDowngrade | procedure.ThenReset, version: "1.0.0", data: "old"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.1.0", data: "new"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.1.0", data: "new"},
		{kind: mib.OperationKindActivate, options: procedure.AllowDowngrade | procedure.ThenReset, version: "1.0.0", data: "old"},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.Force | procedure.ThenActivate | procedure.ThenReset, file: "1.1.0", version: "1.1.0", data: "old"},
	}},
	{"without a reset", []command{
		{takesOver: true, kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate, file: "1.1.0", version: "1.1.0", data: "old"},
		{kind: mib.OperationKindRecoverConfig, format: 1, who: "new", version: "1.1.0", data: "new"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.0.0", data: "old"},
	}},
	{"without a reset, software that fails", []command{
		{takesOver: true, kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate, file: "3.0.0", version: "1.0.0", data: "old", cause: mib.FailCauseSelfTestFailed},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate, file: "2.0.0", version: "2.0.0"},
	}},
	{"the whole procedure and back", []command{
		{kind: mib.OperationKindBackupConfig, version: "1.0.0", data: "old"},
		{kind: mib.OperationKindDownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0"},
		{kind: mib.OperationKindRecoverConfig, options: procedure.ConvertFirst, format: 1, who: "old", version: "2.0.0", data: "old"},
		{kind: mib.OperationKindRecoverConfig, format: 2, who: "newer", version: "2.0.0", data: "newer"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.0.0", data: "old"},
		{kind: mib.OperationKindRestoreOldSoftware, version: "1.0.0", data: "old"},
	}},
}
