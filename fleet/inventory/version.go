package inventory

import (
	"fmt"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// VersionKey returns a text whose byte order is semver's order of versions, so that a
// database can sort by it. Texts that are not versions come before all versions, and the
// empty text comes first.
func VersionKey(version string) string {
	if version == "" {
		return ""
	}
	v, err := semver.StrictNewVersion(version)
	if err != nil {
		return "0" + version
	}
	var key strings.Builder
	fmt.Fprintf(&key, "1%020d%020d%020d", v.Major(), v.Minor(), v.Patch())
	if v.Prerelease() == "" {
		return key.String() + "~" // after every pre-release
	}
	for part := range strings.SplitSeq(v.Prerelease(), ".") {
		if strings.Trim(part, "0123456789") == "" {
			fmt.Fprintf(&key, "0%03d%s\x01", len(part), part) // numbers come before words
		} else {
			key.WriteString("1" + part + "\x01")
		}
	}
	return key.String()
}
