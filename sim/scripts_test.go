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
	{"backupConfig", []command{{kind: procedure.BackupConfig, version: "1.0.0", data: "old"}}},
	{"downloadSoftware", []command{{kind: procedure.DownloadSoftware, file: "2.0.0", version: "1.0.0", data: "old"}}},
	{"recoverConfig", []command{{kind: procedure.RecoverConfig, format: 1, who: "new", version: "1.0.0", data: "new"}}},
	{"reset", []command{{kind: procedure.Reset, version: "1.0.0", data: "old"}}},
	{"activate and convertConfig", []command{
		{kind: procedure.DownloadSoftware, file: "2.0.0", version: "1.0.0", data: "old"},
		{kind: procedure.Activate, options: procedure.ThenReset, version: "2.0.0"},
		{kind: procedure.ConvertConfig, version: "2.0.0", data: "old"},
	}},
	{"software that fails its self-test", []command{
		{kind: procedure.DownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "3.0.0", version: "1.0.0", data: "old", cause: mib.FailCauseSelfTestFailed},
	}},
	{"import, import, update, import, back", []command{
		{kind: procedure.RecoverConfig, format: 1, who: "second", version: "1.0.0", data: "second"},
		{kind: procedure.RecoverConfig, format: 1, who: "third", version: "1.0.0", data: "third"},
		{kind: procedure.DownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0"},
		{kind: procedure.RecoverConfig, format: 2, who: "fourth", version: "2.0.0", data: "fourth"},
		{kind: procedure.RecoverConfig, format: 2, who: "fifth", version: "2.0.0", data: "fifth"},
		{kind: procedure.RestoreOldSoftware, version: "1.0.0", data: "third"},
	}},
	{"download after an activation without reset", []command{
		{kind: procedure.DownloadSoftware, file: "2.0.0", version: "1.0.0", data: "old"},
		{kind: procedure.Activate, version: "1.0.0", data: "old", orVersion: "2.0.0"},
		{kind: procedure.DownloadSoftware, options: procedure.Force, file: "2.0.0", version: "1.0.0", data: "old", orVersion: "2.0.0"},
	}},
	{"back by command after going back by itself", []command{
		{kind: procedure.DownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "3.0.0", version: "1.0.0", data: "old", cause: mib.FailCauseSelfTestFailed},
		{kind: procedure.RestoreOldSoftware, version: "1.0.0", data: "old"},
		{kind: procedure.RestoreOldSoftware, version: "1.0.0", data: "old"},
	}},
	{"confirm window over in the middle of a recovery", []command{
		{kind: procedure.DownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0", window: lateWindow},
		{kind: procedure.RecoverConfig, format: 2, who: "fourth", version: "1.0.0", data: "old", cause: mib.FailCauseConfirmTimeout},
		{kind: procedure.RecoverConfig, format: 1, who: "second", version: "1.0.0", data: "second"},
	}},
	{"software of the same format and back", []command{
		{kind: procedure.DownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "1.1.0", version: "1.1.0", data: "old"},
		{kind: procedure.RecoverConfig, format: 1, who: "new", version: "1.1.0", data: "new"},
		{kind: procedure.RestoreOldSoftware, version: "1.0.0", data: "old"},
	}},
	{"the same software once more", []command{
		{kind: procedure.DownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "1.1.0", version: "1.1.0", data: "old"},
		{kind: procedure.RecoverConfig, options: procedure.ThenReset, format: 1, who: "new", version: "1.1.0", data: "new"},
		{kind: procedure.Activate, options: procedure.AllowDowngrade | procedure.ThenReset, version: "1.0.0", data: "old"},
		{kind: procedure.RestoreOldSoftware, version: "1.1.0", data: "new"},
		{kind: procedure.RestoreOldSoftware, version: "1.1.0", data: "new"},
		{kind: procedure.Activate, options: procedure.AllowDowngrade | procedure.ThenReset, version: "1.0.0", data: "old"},
		{kind: procedure.DownloadSoftware, options: procedure.Force | procedure.ThenActivate | procedure.ThenReset, file: "1.1.0", version: "1.1.0", data: "old"},
	}},
	{"without a reset", []command{
		{takesOver: true, kind: procedure.DownloadSoftware, options: procedure.ThenActivate, file: "1.1.0", version: "1.1.0", data: "old"},
		{kind: procedure.RecoverConfig, format: 1, who: "new", version: "1.1.0", data: "new"},
		{kind: procedure.RestoreOldSoftware, version: "1.0.0", data: "old"},
	}},
	{"without a reset, software that fails", []command{
		{takesOver: true, kind: procedure.DownloadSoftware, options: procedure.ThenActivate, file: "3.0.0", version: "1.0.0", data: "old", cause: mib.FailCauseSelfTestFailed},
		{kind: procedure.DownloadSoftware, options: procedure.ThenActivate, file: "2.0.0", version: "2.0.0"},
	}},
	{"the whole procedure and back", []command{
		{kind: procedure.BackupConfig, version: "1.0.0", data: "old"},
		{kind: procedure.DownloadSoftware, options: procedure.ThenActivate | procedure.ThenReset, file: "2.0.0", version: "2.0.0"},
		{kind: procedure.RecoverConfig, options: procedure.ConvertFirst, format: 1, who: "old", version: "2.0.0", data: "old"},
		{kind: procedure.RecoverConfig, format: 2, who: "newer", version: "2.0.0", data: "newer"},
		{kind: procedure.RestoreOldSoftware, version: "1.0.0", data: "old"},
		{kind: procedure.RestoreOldSoftware, version: "1.0.0", data: "old"},
	}},
}
