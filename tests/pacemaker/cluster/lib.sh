# shellcheck shell=bash
# Names and paths for every script of the cluster. They are the same inside the nodes.

rig=/run/rig
# Shared by all nodes, as a power switch's network is.
power=$rig/power
export rig power

readonly nodes=(1 2 3)
# Node N has the address NET.N, in a network that only the nodes see.
readonly net=10.89.77
# The time from power-on to corosync, except at the first boot. It must be longer than the others'
# corosync needs to drop the node (token and consensus: 2.65 s + 3.18 s): a node that comes back
# sooner receives the report of its own fence, and stays down.
readonly post_s=7
export nodes net post_s

die() {
    echo "${0##*/}: $1" >&2
    exit 1
}

# The number in "3" or "node3".
node_number() {
    local number=${1#node}
    [[ " ${nodes[*]} " == *" $number "* ]] || die "there is no node '$1'"
    echo "$number"
}

# The first process of a running node.
node_pid() {
    local pid
    pid=$(cat "$rig/node$1/pid" 2>/dev/null) || return 1
    [[ -n $pid && /proc/$pid/ns/net -ef /run/netns/node$1 ]] && echo "$pid"
}
