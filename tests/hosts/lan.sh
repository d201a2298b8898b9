#!/bin/bash
# The network that throw-away hosts hang on: a bridge in a network namespace of its own.
#
# Usage: unshare --net lan.sh DIRECTORY       (called by tests::fast_host::Lan)
# DIRECTORY/records: lines "ADDRESS NAME" for dnsmasq; without the file there is no name server.
# Writes DIRECTORY/ready when the bridge is up. Lives until standard input ends, so that the death of the test process,
# however it comes, takes the network with it: the namespace has no name and vanishes with its last process.

set -eu
directory=$1

ip link set lo up
ip link add br0 type bridge stp_state 0 forward_delay 0
ip address add 10.77.0.1/24 dev br0
ip link set br0 up
dns=
if [ -f "$directory/records" ]; then
    dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --addn-hosts="$directory/records" \
        --listen-address=10.77.0.1 --bind-interfaces --pid-file= --user=root --log-facility="$directory/dnsmasq.log" </dev/null &
    dns=$!
fi
: >"$directory/ready"
cat >/dev/null
if [ -n "$dns" ]; then kill "$dns"; fi
