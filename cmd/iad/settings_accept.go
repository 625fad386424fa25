package main

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
)

func settingsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "settings",
		Short: "Manage the copy of the settings that the device falls back on",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(settingsAcceptCommand())
	return cmd
}

func settingsAcceptCommand() *cobra.Command {
	var root, file string
	cmd := &cobra.Command{
		Use:   "accept --root DIR",
		Short: "Accept the settings as they are now, although they have less than before",
		Long: `accept makes ROOT/iad.toml the settings that count: they replace the copy of the
last good start, ROOT/iad.toml.good, although they have less than it. Without it,
a file that may have been cut off by a loss of power never replaces the copy. A
file whose last line is "# end" is complete and needs no consent.

Banks, state and configuration data are accepted where they are now, also those
that were on a mount or behind a link before and are not any longer.

The agent uses the settings from its next start on.`,
		Example: "  iad settings accept --root /var/lib/iad",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file := cmp.Or(file, filepath.Join(root, settingsName))
			return acceptSettings(cmd, root, file)
		},
	}
	f := cmd.Flags()
	f.StringVar(&root, "root", "", "folder of the device")
	f.StringVar(&file, "config", "", "settings (default: ROOT/iad.toml)")
	_ = cmd.MarkFlagRequired("root")
	return cmd
}

func acceptSettings(cmd *cobra.Command, root, file string) error {
	text, err := readSettings(file)
	if err != nil {
		return err
	}
	s, err := parseSettings(file, text)
	if err != nil {
		return err
	}
	if s.DeviceID == "" {
		return fmt.Errorf("%s has no device_id: it cannot be accepted", file)
	}
	if !s.serves() {
		return fmt.Errorf("%s has neither snmp.listen nor agentx: nobody could reach the device", file)
	}
	if _, _, err := s.config(root); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	lost := ""
	if good := readGood(root); good.of(root, file) && good.text != nil {
		lost = lostSettings(good.text, text)
	}
	if err := writeGood(root, file, text); err != nil {
		return err
	}
	parts, err := s.root(root)
	if err == nil {
		err = parts.KeepPlaces(true)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s is accepted\n", file)
	if lost != "" {
		fmt.Fprintln(cmd.OutOrStdout(), "no longer set:", lost)
	}
	return nil
}

// lostSettings names the settings of before that after does not have, "" if there
// are none or either text is not TOML. No value is named.
func lostSettings(before, after []byte) string {
	var old, now map[string]any
	if toml.Unmarshal(bytes.TrimPrefix(before, byteOrderMark), &old) != nil || toml.Unmarshal(bytes.TrimPrefix(after, byteOrderMark), &now) != nil {
		return ""
	}
	var lost []string
	lostIn("", old, now, &lost)
	const most = 8
	if len(lost) > most {
		lost = append(lost[:most], fmt.Sprintf("%d more", len(lost)-most))
	}
	return strings.Join(lost, ", ")
}

func lostIn(prefix string, old, now map[string]any, lost *[]string) {
	for _, key := range slices.Sorted(maps.Keys(old)) {
		name := prefix + key
		is, ok := now[key]
		if !ok {
			*lost = append(*lost, name)
			continue
		}
		switch was := old[key].(type) {
		case map[string]any:
			sub, _ := is.(map[string]any)
			lostIn(name+".", was, sub, lost)
		case []any:
			list, _ := is.([]any)
			lostOf(name, was, list, lost)
		}
	}
}

// lostOf compares lists: of tables with names by these, of others by their number.
func lostOf(name string, old, now []any, lost *[]string) {
	find := func(list []any, name string) (map[string]any, bool) {
		for _, e := range list {
			if table, ok := e.(map[string]any); ok && table["name"] == name {
				return table, true
			}
		}
		return nil, false
	}
	named := false
	for _, e := range old {
		table, _ := e.(map[string]any)
		id, ok := table["name"].(string)
		if !ok {
			continue
		}
		named = true
		entry := fmt.Sprintf("%s %q", name, id)
		if is, ok := find(now, id); ok {
			lostIn(entry+" ", table, is, lost)
		} else {
			*lost = append(*lost, entry)
		}
	}
	if !named && len(now) < len(old) {
		*lost = append(*lost, fmt.Sprintf("%d of %d %s", len(old)-len(now), len(old), name))
	}
}
