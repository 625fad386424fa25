package manager

// SoftwareText is a device's software version as shown to people; in rescue mode there is
// none.
func SoftwareText(version string) string {
	if version == "" {
		return "none (rescue mode)"
	}
	return version
}

// RunsText is "runs 2.0.0", or says that the device is in rescue mode.
func RunsText(version string) string {
	if version == "" {
		return "is in rescue mode"
	}
	return "runs " + version
}

// beganInRescue reports whether the device was in rescue mode at the start, so that there
// is no old software to restore.
func (u *upgrade) beganInRescue() bool { return u.result.OldVersion == "" }
