package settings

import (
	"reflect"
	"slices"
	"strings"
)

// Settings is iad.toml. File names in it are relative to the root directory.
//
// The tags of its fields are the only list of settings, from which the file that
// iad init writes, the reference and the errors are made: doc is the meaning, is what
// a value must be, default what holds without one, and example a value in TOML.
type Settings struct {
	DeviceID  string   `toml:"device_id" doc:"Identity of the device, such as its serial number. It is part of every notification. @FILE stands for the first line of a file, |PROGRAM for the first line that a program prints; both work for model and hardware too." is:"a text of 1 to 32 bytes" default:"none, it is required" example:"'IAD-0001'"`
	Model     string   `toml:"model" doc:"Model that the device reports." is:"a text" default:"empty" example:"'IAD-4FXS rev. B'"`
	Hardware  string   `toml:"hardware" doc:"Hardware model. Only images that name it are installed." is:"a text" default:"empty (no image is installed)" example:"'IAD-4FXS'"`
	Trust     []string `toml:"trust" doc:"Public keys (minisign) that images must be signed with; one of them is enough. A trust chain, which iadms image trust makes, holds in place of keys. So does the newer one of an image that was installed." is:"a list of file names" default:"empty (no image is installed)" example:"['keys/1-maker.pub']"`
	ImageKeys []string `toml:"image_keys" doc:"Private keys (age, as age-keygen writes them) that decrypt encrypted images. Several are tried in turn, for the time of a change." is:"a list of file names" default:"empty (encrypted images are not installed)" example:"['keys/model.key']"`
	Restart   string   `toml:"restart" doc:"How a reset restarts the device: exec starts the agent again, reboot restarts the board at once, the path of a program runs that program, which has to restart the system. With a boot loader, exec is not possible." is:"exec, reboot or an absolute path" default:"exec" example:"'reboot'"`
	BankSize  int64    `toml:"bank_size" doc:"Capacity of a bank." is:"a number of bytes" default:"0 (the size of its partition)" example:"16777216"`
	Protocols []string `toml:"protocols" doc:"Protocols that the device may use to reach a file server." is:"a list of tftp, ftp or ftps" default:"tftp and ftp" example:"['tftp', 'ftp', 'ftps']"`
	MIBRoot   string   `toml:"mib_root" doc:"Place of IAD-UPGRADE-MIB in the tree of object identifiers. iadms needs the same (--root-oid)." is:"an object identifier" default:"1.3.6.1.4.1.8072.9999.9999" example:"'1.3.6.1.4.1.32473.1'"`

	PlainPasswords bool  `toml:"plain_passwords" doc:"Accept passwords of file servers in SNMP requests without privacy, which anybody on the network path can read." is:"true or false" default:"false" example:"true"`
	RateLimit      int   `toml:"rate_limit" doc:"Maximum rate of file transfers." is:"a number of bytes per second" default:"0 (no limit)" example:"500000"`
	MaxConfigFile  int64 `toml:"max_config_file" doc:"Maximum size of a configuration file." is:"a number of bytes" default:"0 (1 MiB)" example:"4194304"`

	AgentX        string `toml:"agentx" doc:"AgentX master agent to register with." is:"unix:PATH or tcp:HOST:PORT, with a HOST on the loopback interface" default:"empty (no AgentX)" example:"'unix:/var/agentx/master'"`
	AgentXPrivate bool   `toml:"agentx_private" doc:"The master agent accepts SET requests with privacy only, so that passwords may arrive through it. Needs a Unix socket." is:"true or false" default:"false" example:"true"`

	Backup   Backup   `toml:"backup" doc:"Encryption of backups of the configuration data, in the format of age (age-encryption.org)."`
	FTPS     FTPS     `toml:"ftps" doc:"How FTPS servers are authenticated. Without either setting, a server needs a certificate that the system trusts."`
	Paths    Paths    `toml:"paths" doc:"Where the parts of the device are if not in its root directory. On a board, the banks are usually mount points."`
	Programs Programs `toml:"programs" doc:"Programs of this board, with absolute paths. A program that is not set is not called."`
	Loader   Loader   `toml:"loader" doc:"The boot loader of a board, if it chooses the bank that starts."`
	SNMP     SNMP     `toml:"snmp" doc:"The embedded SNMP engine."`

	badKeys error // keys and certificates that cannot be used
	// text is the content of file. damage says why it is the copy's, doubt why it
	// must not replace the copy.
	file          string
	text          []byte
	damage, doubt string
}

// Backup says to whom backups are encrypted.
type Backup struct {
	Recipients  []string `toml:"recipients" doc:"Public keys of those who can decrypt backups, besides the device itself. With at least one, configuration files are sent encrypted, and only accepted if they are encrypted to this device." is:"a list of age recipients, which begin with age1" default:"empty (backups are plain text)" example:"['age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p']"`
	AcceptPlain bool     `toml:"accept_plain" doc:"Accept configuration files that are not encrypted although backups are." is:"true or false" default:"false" example:"true"`
}

// FTPS says how FTPS servers are authenticated.
type FTPS struct {
	CA  string `toml:"ca" doc:"Certificates (PEM) of the authorities that may sign the certificate of a server." is:"a file name" default:"the system's certificates" example:"'keys/ca.pem'"`
	Pin string `toml:"pin" doc:"SHA-256 digest of the only certificate that is accepted; nothing else about a server is checked then." is:"a SHA-256 digest in hexadecimal" default:"empty (no pin)" example:"'9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08'"`
}

// Paths are the paths of a device's parts.
type Paths struct {
	Bank1      string `toml:"bank1" doc:"Directory of bank 1." is:"a directory" default:"bank1" example:"'/mnt/bank1'"`
	Bank2      string `toml:"bank2" doc:"Directory of bank 2." is:"a directory" default:"bank2" example:"'/mnt/bank2'"`
	Partition1 string `toml:"partition1" doc:"Raw partition of bank 1, for the payload that a boot loader reads; the other files of the software are in bank1. It is a block device, an MTD device or a UBI volume. Only with it and partition2 is software for raw partitions accepted." is:"a device file" default:"empty (none)" example:"'/dev/mmcblk0p2'"`
	Partition2 string `toml:"partition2" doc:"Raw partition of bank 2." is:"a device file" default:"empty (none)" example:"'/dev/mmcblk0p3'"`
	State      string `toml:"state" doc:"Boot record, journal and other state." is:"a directory" default:"state" example:"'/var/lib/iad/state'"`
	Config     string `toml:"config" doc:"Generations of configuration data." is:"a directory" default:"config" example:"'/var/lib/iad/config'"`
	Work       string `toml:"work" doc:"Temporary files, such as those of a conversion. They may be in memory." is:"a directory" default:"work" example:"'/tmp/iad'"`
	Applied    string `toml:"applied" doc:"Configuration files in force, for the software and for programs.apply_config." is:"a directory" default:"applied" example:"'/run/iad/config'"`
	Watchdog   string `toml:"watchdog" doc:"Hardware watchdog, which restarts the device if the agent hangs." is:"a device file" default:"empty (none)" example:"'/dev/watchdog'"`
}

// Programs are the programs of a board.
type Programs struct {
	SelfTest string `toml:"self_test" doc:"Self-test for software that comes without one." is:"an absolute path" default:"empty (none)" example:"'/usr/lib/iad/selftest'"`
	Convert  string `toml:"convert" doc:"Converter of configuration data for software that comes without one." is:"an absolute path" default:"empty (none)" example:"'/usr/lib/iad/convert'"`
	Check    string `toml:"check_config" doc:"Checks configuration data before they are put in force." is:"an absolute path" default:"empty (none)" example:"'/usr/lib/iad/check'"`
	Apply    string `toml:"apply_config" doc:"Puts configuration data to use." is:"an absolute path" default:"empty (none)" example:"'/usr/lib/iad/apply'"`
	Calls    string `toml:"calls" doc:"Prints the number of calls in progress." is:"an absolute path" default:"empty (none)" example:"'/usr/lib/iad/calls'"`
	Limit    string `toml:"limit" doc:"Time limit of a program, except for calls (two seconds)." is:"a duration such as 90s or 2m" default:"1m" example:"'90s'"`
	UID      uint32 `toml:"uid" doc:"User ID that self-tests and converters run as." is:"a number from 0 to 4294967295" default:"0 (the agent's user and group)" example:"65534"`
	GID      uint32 `toml:"gid" doc:"Group ID that self-tests and converters run as, if uid is set." is:"a number from 0 to 4294967295" default:"0" example:"65534"`
	NoReset  bool   `toml:"no_reset" doc:"The board can change to other software without a reset." is:"true or false" default:"false" example:"true"`
}

// Loader is the boot loader of a board.
type Loader struct {
	Kind      string   `toml:"kind" doc:"Where the boot loader keeps the choice of the bank: in two copies of its own (script), in the environment of U-Boot (uboot), in the variables of RAUC (rauc), or in the variables of U-Boot's boot counter (bootcount)." is:"script, uboot, rauc or bootcount" default:"empty (the agent chooses the bank)" example:"'script'"`
	Copies    []string `toml:"copies" doc:"Places of the two copies, with kind script." is:"a list of two DEVICE:OFFSET" default:"none, script requires it" example:"['/dev/mmcblk0:0x10000', '/dev/mmcblk0:0x20000']"`
	Size      int64    `toml:"size" doc:"Size of each copy, with kind script." is:"a number of bytes from 64 to 1048576" default:"0 (4096)" example:"8192"`
	Verified  bool     `toml:"verified" doc:"Every file and partition of a bank is verified before or while it is used, by the boot loader or by dm-verity: a start does not hash again the software that was started." is:"true or false" default:"false" example:"true"`
	Config    string   `toml:"config" doc:"File that says where the environment of U-Boot is, as fw_printenv reads it; for every kind but script." is:"a file name" default:"/etc/fw_env.config" example:"'/etc/fw_env.config'"`
	ByteOrder string   `toml:"byte_order" doc:"Byte order of the checksums." is:"little or big" default:"that of the processor" example:"'big'"`
	Banks     []string `toml:"banks" doc:"Values that stand for bank 1 and bank 2 in the variables, with kind rauc or bootcount." is:"a list of two names" default:"A and B (rauc); none, bootcount requires it" example:"['A', 'B']"`
	Variable  string   `toml:"variable" doc:"Variable that names the bank, with kind bootcount." is:"the name of a variable" default:"none, bootcount requires it" example:"'mender_boot_part'"`
	Cmdline   string   `toml:"cmdline" doc:"File with the command line of the kernel, which says which bank was started." is:"a file name" default:"/proc/cmdline" example:"'/run/started'"`
	Parameter string   `toml:"parameter" doc:"Parameter of the command line that names the bank that was started." is:"the name of a parameter" default:"iad.bank, or rauc.slot with kind rauc" example:"'root'"`
	Started   []string `toml:"started" doc:"Values of the parameter for bank 1 and bank 2." is:"a list of two values" default:"1 and 2, or those of banks with kind rauc" example:"['/dev/mmcblk0p2', '/dev/mmcblk0p3']"`
}

// SNMP is the embedded SNMP engine.
type SNMP struct {
	Listen         string   `toml:"listen" doc:"UDP address that requests are answered on." is:"HOST:PORT" default:"empty (no requests are answered)" example:"'192.0.2.10:161'"`
	ReadCommunity  string   `toml:"read_community" doc:"Community that may read, by SNMPv1 and v2c." is:"a text" default:"empty (none)" example:"'public'"`
	WriteCommunity string   `toml:"write_community" doc:"Community that may read and write, by SNMPv1 and v2c." is:"a text" default:"empty (none)" example:"'private'"`
	Sources        []string `toml:"sources" doc:"Networks from which the communities may be used." is:"a list of addresses or networks such as 192.0.2.0/24" default:"empty (all)" example:"['192.0.2.0/24']"`
	WeakCrypto     bool     `toml:"weak_crypto" doc:"Permit users with MD5 or DES." is:"true or false" default:"false" example:"true"`
	Contact        string   `toml:"contact" doc:"Value of sysContact." is:"a text of at most 255 bytes" default:"empty" example:"'noc@example.com'"`
	Location       string   `toml:"location" doc:"Value of sysLocation." is:"a text of at most 255 bytes" default:"empty" example:"'Rack 12'"`

	Users []User `toml:"users" doc:"An SNMPv3 user. Repeat this section for each user."`
	Sinks []Sink `toml:"sinks" doc:"A receiver of notifications. Repeat this section for each receiver."`
}

// User is an SNMPv3 user.
type User struct {
	Name           string   `toml:"name" doc:"Name of the user." is:"a text of 1 to 32 bytes" default:"none, it is required" example:"'operator'"`
	Auth           string   `toml:"auth" doc:"Authentication protocol. MD5 needs weak_crypto." is:"none, SHA, SHA-224, SHA-256, SHA-384, SHA-512 or MD5" default:"none" example:"'SHA-256'"`
	AuthPassphrase string   `toml:"auth_passphrase" doc:"Passphrase for authentication." is:"a text of at least 8 bytes" default:"empty" example:"'change this passphrase'"`
	Priv           string   `toml:"priv" doc:"Privacy protocol. DES needs weak_crypto." is:"none, AES, AES-192, AES-256 or DES" default:"none" example:"'AES'"`
	PrivPassphrase string   `toml:"priv_passphrase" doc:"Passphrase for privacy." is:"a text of at least 8 bytes" default:"empty" example:"'change this one too'"`
	Write          bool     `toml:"write" doc:"Whether the user may write, and not only read." is:"true or false" default:"false" example:"true"`
	Level          string   `toml:"level" doc:"Lowest security level at which the user is accepted." is:"noAuthNoPriv, authNoPriv or authPriv" default:"the highest that the user has protocols for" example:"'authPriv'"`
	Sources        []string `toml:"sources" doc:"Networks from which the user is accepted." is:"a list of addresses or networks such as 192.0.2.0/24" default:"empty (all)" example:"['192.0.2.0/24', '198.51.100.7']"`
	ReadView       []string `toml:"read_view" doc:"Subtrees that the user may read." is:"a list of object identifiers, with ! before those that are excluded" default:"empty (everything)" example:"['1.3.6.1.2.1', '1.3.6.1.4.1']"`
	WriteView      []string `toml:"write_view" doc:"Subtrees that the user may write, if write is true; its own keys are always among them. The keys of other users are if a subtree such as 1.3.6.1 is listed." is:"a list of object identifiers, with ! before those that are excluded" default:"empty (everything but the keys of other users)" example:"['1.3.6.1.4.1']"`
	NotifyView     []string `toml:"notify_view" doc:"Subtrees that notifications to the user may contain." is:"a list of object identifiers, with ! before those that are excluded" default:"empty (everything)" example:"['!1.3.6.1.6.3']"`
}

// Sink is a receiver of notifications.
type Sink struct {
	Address   string `toml:"address" doc:"Address of the receiver." is:"HOST or HOST:PORT" default:"none, it is required" example:"'192.0.2.1:162'"`
	Community string `toml:"community" doc:"Community for SNMPv2c traps, if user is not set." is:"a text" default:"empty" example:"'public'"`
	User      string `toml:"user" doc:"SNMPv3 user to send as, one of snmp.users." is:"the name of a user" default:"empty (SNMPv2c)" example:"'operator'"`
	Inform    bool   `toml:"inform" doc:"Send informs, which are repeated until the receiver acknowledges them, instead of traps." is:"true or false" default:"false" example:"true"`
}

// table is a section of the file.
type table struct {
	name, doc string // name is "" for the settings before the first section
	list      bool   // it may be repeated
	index     []int  // where it is in Settings, for reflect.Value.FieldByIndex
	settings  []reflect.StructField
}

// tables returns the sections in the order in which they have to be in a file.
func tables() []table { return tablesOf(reflect.TypeFor[Settings](), table{}) }

func tablesOf(t reflect.Type, self table) []table {
	var below []table
	for i := range t.NumField() {
		f := t.Field(i)
		sub := table{
			name: strings.TrimPrefix(self.name+"."+f.Tag.Get("toml"), "."), doc: f.Tag.Get("doc"),
			index: append(slices.Clone(self.index), i),
		}
		switch {
		case !f.IsExported():
		case f.Type.Kind() == reflect.Struct:
			below = append(below, tablesOf(f.Type, sub)...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct:
			sub.list = true
			below = append(below, tablesOf(f.Type.Elem(), sub)...)
		default:
			self.settings = append(self.settings, f)
		}
	}
	return append([]table{self}, below...)
}

// header is the line that begins the section.
func (t *table) header() string {
	if t.list {
		return "[[" + t.name + "]]"
	}
	return "[" + t.name + "]"
}

// expected says what the value of a setting must be.
func expected(key string) string {
	for _, t := range tables() {
		if t.name == key && key != "" {
			return "a section that begins with the line " + t.header()
		}
		for _, f := range t.settings {
			if strings.TrimPrefix(t.name+"."+f.Tag.Get("toml"), ".") == key {
				return f.Tag.Get("is")
			}
		}
	}
	return "a value of another type"
}
