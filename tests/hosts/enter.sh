#!/bin/sh
# Usage: enter.sh DIRECTORY COMMAND...        Runs the command in the cgroups of the host that lies in DIRECTORY.
#
# Both the boot of a host and each command that is run in it come through here: what runs in a host counts as the host's.
set -eu
while read -r group; do echo $$ >"$group/cgroup.procs"; done <"$1/cgroups"
shift
# The clock, modules, raw devices and the kernel log belong to the machine: no command of a host can reach them.
exec setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog "$@"
