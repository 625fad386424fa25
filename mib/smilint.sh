#!/bin/sh
# Checks IAD-UPGRADE-MIB.txt with smilint against the base modules in .peers/
# ("make peers"). smilint exits with 0 whatever it finds, so any output fails.
set -eu
cd "$(dirname "$0")"
config=../.peers/smi.conf
if [ ! -f "$config" ]; then
  echo "mib/smilint.sh: $config not found: run make peers" >&2
  exit 1
fi
smilint=../.peers/bin/smilint
if [ ! -x "$smilint" ]; then
  smilint=smilint
fi
findings=$("$smilint" -c "$config" -m -s -l 6 ./IAD-UPGRADE-MIB.txt 2>&1) || findings="$findings
smilint failed"
if [ -n "$findings" ]; then
  printf '%s\n' "$findings" >&2
  exit 1
fi
