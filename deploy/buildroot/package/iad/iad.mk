################################################################################
#
# iad
#
################################################################################

IAD_VERSION = @VERSION@
IAD_SITE = https://example.com/iad/releases/v$(IAD_VERSION)
IAD_SOURCE = iad-$(IAD_VERSION).tar.gz
# No licence has been granted for iad itself; ask its authors.
IAD_LICENSE = PROPRIETARY (iad), @LICENSES@
IAD_LICENSE_FILES = LICENSES.txt
IAD_REDISTRIBUTE = NO
IAD_DEPENDENCIES = host-go

# The source has the modules that it needs: nothing is downloaded while it is built.
IAD_GO_ENV = \
	$(HOST_GO_TARGET_ENV) \
	GOFLAGS="-modcacherw -buildvcs=false" \
	GOMODCACHE=$(@D)/.modules \
	GOPROXY=file://$(@D)/modules \
	GOSUMDB=off \
	GOTOOLCHAIN=local \
	VERSION=$(IAD_VERSION)

define IAD_BUILD_CMDS
	cd $(@D) && $(IAD_GO_ENV) deploy/build $(if $(BR2_PACKAGE_IAD_FTPS),,-noftps) -o $(@D)/iad
endef

define IAD_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/iad $(TARGET_DIR)/usr/bin/iad
	$(INSTALL) -D -m 0600 $(@D)/deploy/packages/etc/iad/init.conf $(TARGET_DIR)/etc/iad/init.conf
endef

define IAD_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(IAD_PKGDIR)/S60iad $(TARGET_DIR)/etc/init.d/S60iad
endef

define IAD_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(@D)/deploy/systemd/iad.service $(TARGET_DIR)/usr/lib/systemd/system/iad.service
	$(INSTALL) -D -m 0644 $(@D)/deploy/systemd/iad-init.service $(TARGET_DIR)/usr/lib/systemd/system/iad-init.service
endef

define IAD_USERS
	iad -1 iad -1 * /var/lib/iad - - Upgrade agent
endef

$(eval $(generic-package))
