# U-Boot script that chooses the bank, together with iad (settings: restart = 'reboot', [loader] kind = 'script').
#
#   mkimage -A arm -T script -C none -d boot.cmd boot.scr
#
# The choice is kept twice, in raw blocks outside all partitions. Each copy is a U-Boot environment with a checksum,
# which "env import -c" checks, of these variables:
#
#   iad_seq       counts up with every change; of two good copies the one with the higher number counts
#   iad_next      bank to start, 1 or 2
#   iad_left      how many more starts it gets while it is on trial; not set: it is good, and its starts are not counted
#   iad_fallback  bank to start when none is left, 0 for none
#   iad_lost      set in a state that this script made because both copies were lost; iad replaces it
#
# The kernel's command line says which bank was started (iad.bank) and why (iad.why):
#
#   next       it is the next one
#   tries      the next one has used up its starts
#   load       the one that should have been started cannot be loaded
#   lost       both copies are lost, and were written anew
#   unwritten  the start of software on trial cannot be counted, so that it is not started
#   recovery   no bank can be started, and iad.bank is not set
#
# U-Boot needs env import -c, env export -c, setexpr, and reading and writing of raw blocks. Its numbers are hexadecimal.

# ---- The board: adapt this part. The commands are run later, so that their variables must stay in single quotes. ----

# Where the copies are, in blocks of 200 bytes (512): 80 is offset 0x10000, 100 is offset 0x20000. The settings of iad
# name the same places: copies = ['/dev/vda:0x10000', '/dev/vda:0x20000']. On an SD card or eMMC: mmc read, mmc write.
setenv iad_size 1000
setenv iad_blocks 8
setenv iad_block_a 80
setenv iad_block_b 100
setenv iad_read 'virtio read ${iad_at} ${iad_block} ${iad_blocks}'
setenv iad_write 'virtio write ${iad_at} ${iad_block} ${iad_blocks}'

# Memory for the copies, the kernel and the first file system. Of 64 MiB from 40000000 on, what lies above 41df3000 is
# U-Boot's. A compressed kernel for ARM unpacks itself near the start of memory, here up to 41610000, and moves itself
# behind that before: the first file system must lie above, here from 41b50000 on, or "Initramfs unpacking failed".
setenv iad_copy_a 40300000
setenv iad_copy_b 40310000
setenv iad_kernel 40800000
setenv iad_initrd 41b80000

# How the software of bank ${iad_bank} is loaded and started. Bank 1 is partition 2, bank 2 is partition 3.
setenv iad_load 'setexpr iad_part ${iad_bank} + 1; load virtio 0:${iad_part} ${iad_kernel} kernel && load virtio 0:${iad_part} ${iad_initrd} initrd'
setenv iad_start 'bootz ${iad_kernel} ${iad_initrd}:${filesize} ${fdtcontroladdr}'

# The same for a FIT image on a raw partition, made of kernel.its: remove the # of these lines. Bank 1 is partition 5, bank 2
# is partition 6, which iad knows as paths.partition1 and paths.partition2. All of the partition is read to ${iad_fit}; bootm
# checks the hashes, and puts kernel and first file system where kernel.its says. A FIT image that is damaged does not use
# up a start: the other bank is started at once. Without a device tree of its own it gets that of U-Boot.
#setenv iad_fit 41000000
#setenv iad_load 'setexpr iad_part ${iad_bank} + 4; part start virtio 0 ${iad_part} iad_first && part size virtio 0 ${iad_part} iad_count && virtio read ${iad_fit} ${iad_first} ${iad_count}'
#setenv iad_start 'bootm ${iad_fit}#bank ${iad_fit}#bank ${fdtcontroladdr}'

# What is started if no bank can be: a recovery image, here of the files kernel and initrd in partition 1, loaded to where
# iad_start expects it. Remove the # if the board has one.
#setenv iad_recover 'load virtio 0:1 ${iad_kernel} kernel && load virtio 0:1 ${iad_initrd} initrd'

# The kernel must restart the board when it panics (panic=), or software on trial that does stays down.
setenv iad_args 'console=ttyAMA0 quiet panic=1'

# ---- The rules: nothing of the board from here on. ----

# Reads one copy, and forgets what was in the variables before: what a copy does not have is not set.
setenv iad_import 'setenv iad_seq 0; setenv iad_next; setenv iad_left; setenv iad_fallback; setenv iad_lost; env import -c ${iad_at} ${iad_size} iad_seq iad_next iad_left iad_fallback iad_lost'

# Writes the copy that is not in use, and reads it back.
setenv iad_save 'setexpr iad_seq ${iad_seq} + 1; setenv iad_want ${iad_seq}/${iad_next}/${iad_left}/${iad_fallback}; env export -c -s ${iad_size} ${iad_at} iad_seq iad_next iad_left iad_fallback iad_lost; run iad_write && run iad_read && run iad_import && test "${iad_seq}/${iad_next}/${iad_left}/${iad_fallback}" = "${iad_want}"'

# The newer good copy.
setenv iad_found none
setenv iad_at ${iad_copy_a}
setenv iad_block ${iad_block_a}
if run iad_read && run iad_import; then
  setenv iad_found a
  setenv iad_seq_a ${iad_seq}
fi
setenv iad_at ${iad_copy_b}
setenv iad_block ${iad_block_b}
if run iad_read && run iad_import; then
  if test ${iad_found} = none || test 0x${iad_seq} -gt 0x${iad_seq_a}; then
    setenv iad_found b
  fi
fi

# From here on iad_at and iad_block are the memory and the place of the other copy, which is written next.
if test ${iad_found} = a; then
  setenv iad_at ${iad_copy_a}
  run iad_import
  setenv iad_at ${iad_copy_b}
elif test ${iad_found} = b; then
  run iad_import
  setenv iad_at ${iad_copy_a}
  setenv iad_block ${iad_block_a}
else
  setenv iad_seq 0
  setenv iad_next
fi

# A choice that makes no sense is a lost one. It is written anew before anything is started, so that bank 1, should it
# not come up, is started only once.
setenv iad_why next
if test "${iad_next}" != 1 && test "${iad_next}" != 2; then setenv iad_why lost; fi
if test "${iad_fallback}" != 0 && test "${iad_fallback}" != 1 && test "${iad_fallback}" != 2; then setenv iad_why lost; fi
if test ${iad_why} = lost; then
  setenv iad_next 1
  setenv iad_left 1
  setenv iad_fallback 2
  setenv iad_lost 1
fi
echo "iad: copy ${iad_found} number ${iad_seq}: next ${iad_next}, starts left ${iad_left}, fallback ${iad_fallback} (${iad_why})"

# Software on trial is started only if the start has been counted.
setenv iad_bank ${iad_next}
if test -n "${iad_left}"; then
  if test 0x${iad_left} -gt 0; then
    setexpr iad_left ${iad_left} - 1
    if run iad_save; then
      true
    elif test ${iad_why} = next; then
      setenv iad_why unwritten
      if test "${iad_fallback}" = 1 || test "${iad_fallback}" = 2; then setenv iad_bank ${iad_fallback}; fi
    fi
  elif test ${iad_fallback} != 0; then
    setenv iad_bank ${iad_fallback}
    setenv iad_why tries
  fi
fi

# That bank, or else the other one.
setenv iad_other 1
if test ${iad_bank} = 1; then setenv iad_other 2; fi
for iad_n in ${iad_bank} ${iad_other}; do
  if test ${iad_n} != ${iad_bank}; then setenv iad_why load; fi
  setenv iad_bank ${iad_n}
  setenv bootargs "${iad_args} iad.bank=${iad_bank} iad.why=${iad_why}"
  echo "iad: starting bank ${iad_bank} (${iad_why})"
  if run iad_load; then run iad_start; fi
  echo "iad: bank ${iad_bank} cannot be started"
done
echo "iad: no bank can be started"
if test -n "${iad_recover}"; then
  setenv bootargs "${iad_args} iad.why=recovery"
  if run iad_recover; then run iad_start; fi
  echo "iad: the recovery image cannot be started"
fi
sleep 5
reset
