SUMMARY = "Upgrade agent of an integrated access device"
DESCRIPTION = "Two banks of software, operated over SNMP by IAD-UPGRADE-MIB; power may fail at any time."
HOMEPAGE = "https://example.com/iad"
# No licence has been granted for iad itself; ask its authors.
LICENSE = "Proprietary & @LICENSES@"
LIC_FILES_CHKSUM = "file://LICENSES.txt;sha256=@LICENSES_SHA256@"

SRC_URI = "https://example.com/iad/releases/v${PV}/iad-${PV}.tar.gz"
SRC_URI[sha256sum] = "@SHA256@"

inherit goarch systemd useradd

# The program is static and contains no C: Go for the build machine is enough.
DEPENDS = "go-native"
# Without "ftps" the program is 1.7 MiB smaller.
PACKAGECONFIG ??= "ftps"
PACKAGECONFIG[ftps] = ""

# The source has the modules that it needs: nothing is downloaded while it is built.
do_compile() {
	export GOROOT="${STAGING_LIBDIR_NATIVE}/go"
	export GOARCH="${TARGET_GOARCH}" GOARM="${TARGET_GOARM}" GOMIPS="${TARGET_GOMIPS}"
	export GOCACHE="${B}/.cache" GOMODCACHE="${B}/.modules" GOFLAGS="-modcacherw -buildvcs=false"
	export GOPROXY="file://${S}/modules" GOSUMDB=off GOTOOLCHAIN=local
	VERSION="${PV}" "${S}/deploy/build" ${@bb.utils.contains('PACKAGECONFIG', 'ftps', '', '-noftps', d)} -o "${B}/iad"
}

do_install() {
	install -D -m 0755 "${B}/iad" "${D}${bindir}/iad"
	install -D -m 0600 "${S}/deploy/packages/etc/iad/init.conf" "${D}${sysconfdir}/iad/init.conf"
	install -D -m 0644 "${S}/deploy/systemd/iad.service" "${D}${systemd_system_unitdir}/iad.service"
	install -D -m 0644 "${S}/deploy/systemd/iad-init.service" "${D}${systemd_system_unitdir}/iad-init.service"
}

CONFFILES:${PN} = "${sysconfdir}/iad/init.conf"
FILES:${PN} += "${systemd_system_unitdir}/iad-init.service"
SYSTEMD_SERVICE:${PN} = "iad.service"

USERADD_PACKAGES = "${PN}"
USERADD_PARAM:${PN} = "--system --user-group --no-create-home --home-dir /var/lib/iad --shell /sbin/nologin iad"

# The linker has removed the symbols, and a static program of Go has no hash table for a dynamic linker.
INSANE_SKIP:${PN} = "already-stripped ldflags"
