package manager

// SoftwareText is the version of a device's software for people; in rescue mode there is
// none.
func SoftwareText(version string) string {
	if version == "" {
		return "none (rescue mode)"
	}
	return version
}

// RunsText says what a device runs: "runs 2.0.0", or that it is in rescue mode.
func RunsText(version string) string {
	if version == "" {
		return "is in rescue mode"
	}
	return "runs " + version
}

// beganInRescue reports whether the procedure began with a device in rescue mode: then there is
// no old software to go back to.
func (u *upgrade) beganInRescue() bool { return u.result.OldVersion == "" }
