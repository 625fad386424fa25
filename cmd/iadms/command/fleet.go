package command

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/iad/fleet"
	"example.com/iad/fleet/client"
	"example.com/iad/fleet/operations"
	"example.com/iad/internal/cli"
	"example.com/iad/internal/durable"
)

// fleetFlags are the flags of all commands of the fleet service.
type fleetFlags struct {
	*globals
	api       string
	tokenFile string
	ca        string
}

func newFleet(g *globals) *cobra.Command {
	f := &fleetFlags{globals: g}
	c := &cobra.Command{
		Use:   "fleet",
		Short: "Run campaigns on the fleet service iadmsd",
		Long: `These commands use the API of iadmsd, the fleet service, which upgrades any number of
devices in campaigns. "iadms fleet login" stores a token, which the other commands send;
IADMS_TOKEN takes precedence over it. The same can be done on the service's web pages.`,
		Example: `  export IADMS_API=https://noc.example:8443
  iadms fleet login
  iadms fleet import devices.csv
  iadms fleet add-image fw-2.0.0.iad
  iadms fleet create spring.json --submit
  iadms fleet watch spring`,
	}
	flags := c.PersistentFlags()
	flags.StringVar(&f.api, "api", "", "`URL` of the fleet service, such as https://noc.example:8443")
	flags.StringVar(&f.tokenFile, "token-file", defaultTokenFile(), "`file` with the token")
	flags.StringVar(&f.ca, "ca", "", "PEM `file` with the certificate to trust, if the system does not trust the service's")
	c.AddCommand(
		f.login(), f.status(), f.credentials(), f.devices(), f.device(), f.importDevices(), f.discoverDevices(), f.exportDevices(), f.campaigns(), f.campaign(), f.create(), f.undo(),
		f.command("submit", "Submit the draft of a campaign: it waits for its approval, or for its time", (*client.Client).SubmitCampaign),
		f.approve(),
		f.command("pause", "Start no further devices of a campaign", (*client.Client).PauseCampaign),
		f.command("resume", "Continue a paused campaign", (*client.Client).ResumeCampaign),
		f.command("stop", "End a campaign; devices in progress are finished", (*client.Client).StopCampaign),
		f.runs(), f.watch(), f.questions(), f.answer(), f.images(), f.addImage(), f.backups(), f.backup(), f.workers(), f.audit(),
	)
	c.AddCommand(f.settings()...)
	return c
}

func defaultTokenFile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "iadms", "fleet-token")
}

// connect returns a client without a token.
func (f *fleetFlags) connect(token string) (*client.Client, error) {
	if f.api == "" {
		return nil, cli.Usage(errors.New("which service? Give --api URL, or set IADMS_API"))
	}
	var trusted *tls.Config
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, cli.Usage(err)
		}
		trusted = &tls.Config{RootCAs: x509.NewCertPool()}
		if !trusted.RootCAs.AppendCertsFromPEM(text) {
			return nil, cli.Usage(fmt.Errorf("%s contains no certificate in PEM", f.ca))
		}
	}
	c, err := client.New(f.api, token, trusted)
	if err != nil {
		return nil, cli.Usage(err)
	}
	return c, nil
}

// client returns a client with the user's token.
func (f *fleetFlags) client() (*client.Client, error) {
	token := os.Getenv("IADMS_TOKEN")
	if token == "" && f.tokenFile != "" {
		text, err := os.ReadFile(f.tokenFile)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, cli.Usage(err)
		}
		token = strings.TrimSpace(string(text))
	}
	if token == "" && f.api != "" {
		return nil, cli.Usage(errors.New("there is no token; run iadms fleet login, or set IADMS_TOKEN"))
	}
	return f.connect(token)
}

// print prints an object as JSON, or calls text.
func (f *fleetFlags) print(cmd *cobra.Command, object any, text func(io.Writer)) error {
	if f.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(object)
	}
	text(cmd.OutOrStdout())
	return nil
}

// with runs a command that needs the service.
func (f *fleetFlags) with(use, short string, args int, run func(cmd *cobra.Command, c *client.Client, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: exactly(args), Example: "  iadms fleet " + strings.ReplaceAll(exampleOf(use), "[flags]", ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := f.client()
			if err != nil {
				return err
			}
			return run(cmd, c, args)
		},
	}
}

// exampleOf replaces the arguments of a usage line by examples.
func exampleOf(use string) string {
	return strings.NewReplacer("CAMPAIGN", "spring", "DEVICE", "gw-001", "SPECIFICATION", "spring.json", "IMAGE", "fw-2.0.0.iad", "INVENTORY", "devices.csv",
		"BACKUP", "20260301T013000Z-2", "KIND", "userData", "SITE", "berlin", "GROUP", "old", "FILTER", `'version < "2.0.0"'`, "SCHEDULE", "nightly", "FILE", "nightly.json",
		"USER", "anna", "PLACE", "run", "KEY", "spring.gw-001", "REVISION", "4711").Replace(use)
}

func (f *fleetFlags) login() *cobra.Command {
	var user, name string
	var life time.Duration
	host, err := os.Hostname()
	if err != nil {
		host = "iadms"
	}
	c := &cobra.Command{
		Use: "login", Short: "Make a token with your password and store it", Args: exactly(0),
		Long: `login asks for your password, makes a token and stores it in the file --token-file, readable
only by you. Without a terminal it reads the password from standard input. The page
Access of the service shows your tokens and revokes them.`,
		Example: "  iadms fleet login --api https://noc.example:8443 --account anna",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.tokenFile == "" {
				return cli.Usage(errors.New("where is the token to be stored? Give --token-file FILE"))
			}
			c, err := f.connect("")
			if err != nil {
				return err
			}
			password, err := passwordOf(cmd, user)
			if err != nil {
				return err
			}
			token, err := c.Login(cmd.Context(), user, password, name, life)
			if err != nil {
				return err
			}
			if err := os.MkdirAll(filepath.Dir(f.tokenFile), 0o700); err != nil {
				return err
			}
			if err := durable.ReplaceFile(afero.NewOsFs(), f.tokenFile, []byte(token+"\n"), 0o600); err != nil {
				return err
			}
			return f.print(cmd, map[string]string{"token_file": f.tokenFile}, func(w io.Writer) { fmt.Fprintln(w, "The token is in", f.tokenFile) })
		},
	}
	c.Flags().StringVar(&user, "account", os.Getenv("USER"), "`name` of the user of the service")
	c.Flags().StringVar(&name, "token-name", fleet.NameFor(host), "`name` of the token, for people")
	c.Flags().DurationVar(&life, "life", 30*24*time.Hour, "how `long` the token is valid")
	return c
}

// passwordOf asks for a password, or reads it from a pipe.
func passwordOf(cmd *cobra.Command, user string) (string, error) {
	if term.IsTerminal(int(os.Stdin.Fd())) {
		return readPassword("Password of " + user)
	}
	text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
	return strings.TrimRight(string(text), "\r\n"), err
}

func (f *fleetFlags) status() *cobra.Command {
	return f.with("status", "Show the state of the fleet", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		o, err := c.Overview(cmd.Context())
		if err != nil {
			return err
		}
		return f.print(cmd, o, func(w io.Writer) {
			fmt.Fprintf(w, "devices         %d, of which %d do not answer\n", o.Devices, o.Unreachable)
			fmt.Fprintf(w, "open campaigns  %d\nopen questions  %d\nworkers         %d\n", o.Campaigns, o.Questions, o.Workers)
			for _, v := range o.Versions {
				fmt.Fprintf(w, "software        %s: %d\n", manualText(v.Value), v.Count)
			}
		})
	})
}

// manualText makes a text that devices report safe for a terminal.
func manualText(s string) string {
	if s == "" {
		return "none"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

func (f *fleetFlags) devices() *cobra.Command {
	var q operations.DeviceQuery
	c := f.with("devices", "List devices of the inventory", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		var all []fleet.Device
		for {
			q.Offset, q.Limit = len(all), operations.MaxPage
			page, err := c.Devices(cmd.Context(), q)
			if err != nil {
				return err
			}
			all = append(all, page.Devices...)
			if len(page.Devices) == 0 || len(all) >= page.Total {
				break
			}
		}
		return printRows(cmd.OutOrStdout(), f.json, "NAME ADDRESS SITE MODEL SOFTWARE CONTACT", all, func(d fleet.Device) []any {
			var facts fleet.Facts
			if d.Facts != nil {
				facts = *d.Facts
			}
			contact := timeText(d.Contact.Time)
			if d.Contact.Problem != "" {
				contact = "no answer: " + manualText(d.Contact.Problem)
			}
			return []any{d.Name, d.Address, d.Site, manualText(facts.Model), manualText(facts.Version), contact}
		}, func(d fleet.Device) any { return d })
	})
	c.Flags().StringVar(&q.Filter, "filter", "", "`expression` such as 'site == \"berlin\"'")
	c.Flags().StringVar(&q.Text, "text", "", "part of a `name`, an address or a device ID")
	return c
}

func (f *fleetFlags) device() *cobra.Command {
	return f.with("device DEVICE", "Show a device and its campaigns", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		d, err := c.Device(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if f.json {
			return f.print(cmd, d, nil)
		}
		w := cmd.OutOrStdout()
		fmt.Fprintf(w, "%s at %s\n", d.Device.Name, d.Device.Address)
		if facts := d.Device.Facts; facts != nil {
			fmt.Fprintf(w, "%s, software %s, configuration data generation %d, format %d\n", manualText(facts.Model), manualText(facts.Version), facts.Generation, facts.ConfigFormat)
		}
		if d.Device.Contact.Problem != "" {
			fmt.Fprintln(w, "does not answer:", manualText(d.Device.Contact.Problem))
		}
		if names := d.Device.SecretNames(); len(names) > 1 {
			fmt.Fprintf(w, "credentials %s; previous ones kept: %s\n", names[0], strings.Join(names[1:], ", "))
		}
		if accepted := d.Device.Contact.Credentials; accepted != "" {
			fmt.Fprintf(w, "accepted the previous credentials %s when it was last reached; if that stays so, change its passphrases again\n", accepted)
		}
		return printRuns(cmd, false, d.Runs)
	})
}

func (f *fleetFlags) discoverDevices() *cobra.Command {
	var d operations.Discovery
	c := f.with("discover RANGE", "Look for devices in a network", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		d.Range = args[0]
		found, err := c.Discover(cmd.Context(), d)
		if err != nil {
			return err
		}
		return f.print(cmd, found, func(w io.Writer) {
			for _, one := range found.Devices {
				note := cmp.Or(one.Problem, one.Known)
				if one.Known != "" {
					note = "known as " + one.Known
				}
				fmt.Fprintf(w, "%-21s  %-32s  %s\n", one.Device.Address, manualText(one.Device.Name), manualText(note))
			}
			fmt.Fprintf(w, "%d addresses asked, %d devices found, %d added\n", found.Asked, len(found.Devices), found.Added)
		})
	})
	c.Long = `Ask all addresses of a range for devices, and list those that answer. The range
is an address, FIRST-LAST or a network, inside the networks that --discover of
iadmsd allows.`
	c.Example = `  iadms fleet discover 192.0.2.0/24
  iadms fleet discover 192.0.2.10-192.0.2.99 --secret new,old --add --site north`
	flags := c.Flags()
	flags.Uint16Var(&d.Port, "port", 0, "`port` of the SNMP agents (default: 161)")
	flags.StringSliceVar(&d.Secrets, "secret", nil, "try the credentials with these `names` (default: default)")
	flags.BoolVar(&d.Add, "add", false, "add devices that are not in the inventory")
	flags.StringVar(&d.Site, "site", "", "`site` of the devices that are added")
	flags.StringVar(&d.Pool, "pool", "", "`pool` of the devices that are added")
	flags.StringSliceVar(&d.Tags, "tag", nil, "`tags` of the devices that are added")
	return c
}

// credentials takes credentials from where the other commands of iadms take them.
func (f *fleetFlags) credentials() *cobra.Command {
	c := f.with("store-credentials NAME", "Store your SNMP credentials on the service, sealed", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		s, err := f.loadSettings()
		if err != nil {
			return err
		}
		if s.Access.Empty() {
			return cli.Usage(errors.New("no SNMP credentials: put them into a file for --credentials (see iadms help credentials) or set IADMS_WRITE_COMMUNITY or IADMS_USER"))
		}
		a := access(s.Access)
		secret := fleet.Secret{Name: args[0], ReadCommunity: a.Read, WriteCommunity: a.Write}
		if u := a.User; u != nil {
			secret.User = &fleet.SNMPUser{Name: u.Name, Auth: u.Auth, AuthPassphrase: u.AuthPassphrase, Priv: u.Priv, PrivPassphrase: u.PrivPassphrase, Context: u.Context}
		}
		if err := c.PutSecret(cmd.Context(), secret); err != nil {
			return err
		}
		return f.print(cmd, map[string]string{"stored": args[0]}, func(w io.Writer) { fmt.Fprintln(w, "stored", args[0]) })
	})
	c.Long = `store-credentials takes SNMP credentials from --credentials, --config or the environment (see iadms help
credentials) and stores them on the service, encrypted. NAME "default" is for devices for which the
inventory names no other.`
	c.Example = "  iadms fleet store-credentials default --credentials credentials.toml"
	return c
}

func (f *fleetFlags) importDevices() *cobra.Command {
	var dryRun bool
	c := f.with("import INVENTORY", "Add and change the devices of a file, all or none", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		format := operations.Format(strings.TrimPrefix(strings.ToLower(filepath.Ext(args[0])), "."))
		if format != operations.CSV && format != operations.JSON && format != operations.TOML {
			return cli.Usage(fmt.Errorf("%s: the name of the file must end with .csv, .json or .toml", args[0]))
		}
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		r, err := c.Import(cmd.Context(), format, file, dryRun)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return f.print(cmd, r, func(w io.Writer) {
			verb := ""
			if dryRun {
				verb = "would be "
			}
			fmt.Fprintf(w, "%d devices %sadded, %d %schanged, %d unchanged\n", r.Added, verb, r.Changed, verb, r.Unchanged)
		})
	})
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would change")
	return c
}

func (f *fleetFlags) exportDevices() *cobra.Command {
	var filter, format string
	c := f.with("export", "Print devices as a file", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		return c.Export(cmd.Context(), operations.Format(format), filter, cmd.OutOrStdout())
	})
	c.Flags().StringVar(&filter, "filter", "", "`expression`; empty: all devices")
	c.Flags().StringVar(&format, "format", "csv", "`csv` or json")
	return c
}

func (f *fleetFlags) images() *cobra.Command {
	return f.with("images", "List the images that campaigns can install", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Images(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "DIGEST VERSION HARDWARE SIZE FILE ADDED", list, func(i fleet.Image) []any {
			return []any{i.Digest, i.Version, strings.Join(i.Hardware, ","), i.Size, i.File, timeText(i.Added)}
		}, func(i fleet.Image) any { return i })
	})
}

func (f *fleetFlags) addImage() *cobra.Command {
	return f.with("add-image IMAGE", "Store a signed image on the service", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		file, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		i, err := c.AddImage(cmd.Context(), filepath.Base(args[0]), file)
		if err != nil {
			return fmt.Errorf("%s: %w", args[0], err)
		}
		return f.print(cmd, i, func(w io.Writer) { fmt.Fprintf(w, "%s  version %s\n", i.Digest, i.Version) })
	})
}

func (f *fleetFlags) backups() *cobra.Command {
	return f.with("backups DEVICE", "List the backups of a device", 1, func(cmd *cobra.Command, c *client.Client, args []string) error {
		list, err := c.Backups(cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "BACKUP MADE SOFTWARE FORMAT GOOD FILES", list, func(b fleet.Backup) []any {
			var kinds []string
			for _, file := range b.Files {
				kinds = append(kinds, file.Kind)
			}
			return []any{b.ID, timeText(b.Time), manualText(b.Version), b.Format, b.Good, strings.Join(kinds, ",")}
		}, func(b fleet.Backup) any { return b })
	})
}

func (f *fleetFlags) backup() *cobra.Command {
	return f.with("backup DEVICE BACKUP KIND", "Print a file of a backup", 3, func(cmd *cobra.Command, c *client.Client, args []string) error {
		content, err := c.BackupFile(cmd.Context(), args[0], args[1], args[2])
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(content)
		return err
	})
}

func (f *fleetFlags) workers() *cobra.Command {
	return f.with("workers", "List the workers of the service", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Workers(cmd.Context())
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "WORKER HOST POOL RUNNING SLOTS DRAIN SEEN", list, func(w fleet.Worker) []any {
			return []any{w.ID, w.Host, w.Pool, w.Running, w.Slots, w.Drain, timeText(w.Seen)}
		}, func(w fleet.Worker) any { return w })
	})
}

func (f *fleetFlags) audit() *cobra.Command {
	var q operations.AuditQuery
	c := f.with("audit", "List who did what, the newest first", 0, func(cmd *cobra.Command, c *client.Client, _ []string) error {
		list, err := c.Audit(cmd.Context(), q)
		if err != nil {
			return err
		}
		return printRows(cmd.OutOrStdout(), f.json, "NUMBER TIME WHO FROM ACTION OBJECT DENIED", list, func(e fleet.AuditEntry) []any {
			return []any{e.Seq, timeText(e.Time), e.Actor, e.From, e.Action, manualText(e.Object), e.Denied}
		}, func(e fleet.AuditEntry) any { return e })
	})
	c.Flags().StringVar(&q.Actor, "actor", "", "only entries whose actor begins with `this`")
	c.Flags().StringVar(&q.Action, "action", "", "only entries whose action begins with `this`, such as campaign")
	c.Flags().StringVar(&q.Object, "object", "", "only entries whose object begins with `this`, such as device/attic")
	c.Flags().IntVar(&q.Limit, "limit", 50, "`number` of entries, up to 1000")
	return c
}

// fleetError is the exit status of an error of the service.
func fleetError(err error) (status int, ok bool) {
	var failure *client.Error
	switch {
	case !errors.As(err, &failure):
		return 0, false
	case failure.Status == 401:
		return exitCredentials, true
	case failure.Status == 403 || failure.Status == 409:
		return exitRefused, true
	case failure.Status == 400 || failure.Status == 422:
		return exitUsage, true
	}
	return exitError, true
}

// commandOf is a method of the client that changes the state of a campaign.
type commandOf func(*client.Client, context.Context, string) (fleet.Campaign, error)
