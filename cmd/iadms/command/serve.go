package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/spf13/afero"
	"github.com/spf13/cobra"

	"example.com/iad/cmd/iadms/report"
	"example.com/iad/internal/cli"
	"example.com/iad/manager/device"
	"example.com/iad/manager/files"
	"example.com/iad/manager/trap"
)

func newServe(g *globals) *cobra.Command {
	var host, tftp, ftp, notifications, advertise, rateLimit, passive string
	var singlePort bool
	var devices, images []string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the file servers and the notification listener until interrupted",
		Long: `Run the TFTP and the FTP server on the store, and print notifications as they come,
until interrupted. Each --device may store one backup; for FTP each gets a user and a
password, which are printed. Every device may read the images.`,
		Example: "  iadms serve --tftp :6969 --ftp :2121 --notifications :1162 \\\n    --device IAD-0001 --image fw-2.0.0.iad",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.logger()
			if err != nil {
				return err
			}
			cmd.SetOut(report.Lasting(cmd.OutOrStdout()))
			s, err := g.loadSettings()
			if err != nil {
				return err
			}
			rate, err := parseRate(rateLimit)
			if err != nil {
				return cli.Usage(err)
			}
			ports, err := parsePorts(passive)
			if err != nil {
				return cli.Usage(err)
			}
			local, err := net.ResolveIPAddr("ip", host)
			if err != nil {
				return cli.Usage(fmt.Errorf("--listen %q: %w", host, err))
			}
			if err := os.MkdirAll(g.store, 0o700); err != nil {
				return err
			}
			servers, err := files.StartServers(files.ServersConfig{
				Files: afero.NewBasePathFs(afero.NewOsFs(), g.store), TFTP: onHost(host, tftp), FTP: onHost(host, ftp),
				Advertise: advertisedHost(advertise, local.IP), Bandwidth: rate, PassivePorts: ports, SinglePort: singlePort, Log: log,
			})
			if err != nil {
				return err
			}
			defer servers.Close()
			if err := offer(cmd.OutOrStdout(), servers, devices, images, g.json); err != nil {
				return err
			}
			t, err := g.target(s, "localhost") // for the root OID
			if err != nil {
				return err
			}
			l, err := trap.Listen(listenerConfig(onHost(host, notifications), s, t.Root, g.store, log))
			if err != nil {
				return err
			}
			defer l.Close()
			if err := printServed(cmd.OutOrStdout(), g.json, servedReport{Kind: "listener", Address: l.Addr().String()}); err != nil {
				return err
			}
			return printNotifications(cmd.Context(), cmd.OutOrStdout(), l.Subscribe(trap.Filter{}, 1024), g.json)
		},
	}
	f := cmd.Flags()
	f.StringVar(&host, "listen", "", "`host` to listen on (default: all addresses)")
	f.StringVar(&tftp, "tftp", ":69", "`port` of the TFTP server, or HOST:PORT; empty: none")
	f.StringVar(&ftp, "ftp", ":21", "`port` of the FTP server, or HOST:PORT; empty: none")
	f.StringVar(&notifications, "notifications", ":162", "`port` for notifications, or HOST:PORT")
	f.StringVar(&advertise, "advertise", "", "`host` that devices connect to (default: that of --listen)")
	f.StringVar(&passive, "passive-ports", "", "range of ports for FTP data, `FIRST-LAST` (default: any free port)")
	f.BoolVar(&singlePort, "single-port", false, singlePortUsage)
	f.StringVar(&rateLimit, "rate-limit", "", "limit all transfers together to `RATE` bytes per second, with k or M")
	f.StringSliceVar(&devices, "device", nil, "`identity` of a device that may store a backup")
	f.StringSliceVar(&images, "image", nil, "image `file` to offer")
	cli.Group(f, "Addresses", "listen", "tftp", "ftp", "notifications", "advertise", "passive-ports", "single-port")
	cli.Group(f, "Files", "device", "image", "rate-limit")
	return cmd
}

// onHost adds the host to an address that has none.
func onHost(host, address string) string {
	if address == "" {
		return ""
	}
	if strings.HasPrefix(address, ":") {
		return net.JoinHostPort(host, address[1:])
	}
	if !strings.Contains(address, ":") {
		return net.JoinHostPort(host, address)
	}
	return address
}

// servedReport is what serve offers, printed before the notifications.
type servedReport struct {
	Kind        string `json:"kind"` // server, backup, image or listener
	Protocol    string `json:"protocol,omitempty"`
	Address     string `json:"address,omitempty"`
	Certificate string `json:"certificate_sha256,omitempty"`
	Device      string `json:"device,omitempty"`
	Directory   string `json:"directory,omitempty"`
	Name        string `json:"name,omitempty"`
	User        string `json:"user,omitempty"`
	Password    string `json:"password,omitempty"`
}

func (r servedReport) String() string {
	switch r.Kind {
	case "server":
		text := fmt.Sprintf("%s: %s", r.Protocol, r.Address)
		if r.Certificate != "" {
			text += "\n  certificate's SHA-256: " + r.Certificate
		}
		return text
	case "backup":
		text := fmt.Sprintf("  %s: %s, directory %s", r.Device, r.Address, r.Directory)
		if r.User != "" {
			text += fmt.Sprintf(", user %s, password %s", r.User, r.Password)
		}
		return text
	case "image":
		return fmt.Sprintf("image: directory %s, name %s", r.Directory, r.Name)
	}
	return "notifications: " + r.Address
}

func printServed(w io.Writer, asJSON bool, r servedReport) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	_, err := fmt.Fprintln(w, r)
	return err
}

// offer opens directories and publishes images, and prints where they are.
func offer(w io.Writer, servers *files.Servers, devices, images []string, asJSON bool) error {
	for _, p := range []device.Protocol{device.TFTP, device.FTP, device.FTPS} {
		addr := servers.Addr(p)
		if addr == nil {
			continue
		}
		server := servedReport{Kind: "server", Protocol: p.String(), Address: addr.String()}
		if p == device.FTPS {
			server.Certificate = fmt.Sprintf("%x", servers.Fingerprint())
		}
		if err := printServed(w, asJSON, server); err != nil {
			return err
		}
		for _, deviceID := range devices {
			session, err := servers.Open(p, deviceID, addr.String())
			if err != nil {
				return err
			}
			dir, _, err := session.NewBackup(files.ConfigKinds)
			if err != nil {
				return err
			}
			a := session.Address()
			if err := printServed(w, asJSON, servedReport{Kind: "backup", Protocol: p.String(), Address: a.String(), Device: deviceID, Directory: dir, User: a.User, Password: a.Password}); err != nil {
				return err
			}
		}
	}
	for _, name := range images {
		img, err := files.OpenImage(afero.NewOsFs(), name)
		if err != nil {
			return cli.Usage(err)
		}
		if err := printServed(w, asJSON, servedReport{Kind: "image", Directory: servers.Publish(img), Name: img.FileName()}); err != nil {
			return err
		}
	}
	return nil
}
