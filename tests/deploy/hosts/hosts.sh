#!/bin/bash
# Hosts with a real systemd, for the playbooks to be run on: each has a root file system of its own
# (an overlay over one shared base), namespaces for processes, mounts and network, and an address.
# They reach the package archive through this machine; nothing outside reaches them.
#
#   tests/deploy/hosts/hosts.sh up NAME…       build the base when it is missing, boot hosts, wait for ssh
#   tests/deploy/hosts/hosts.sh start NAME     boot a host again; its file system is as it was left
#   tests/deploy/hosts/hosts.sh stop NAME      power off in order
#   tests/deploy/hosts/hosts.sh crash NAME     pull the power cord
#   tests/deploy/hosts/hosts.sh ssh NAME CMD   run a command as root
#   tests/deploy/hosts/hosts.sh address NAME   the host's address
#   tests/deploy/hosts/hosts.sh down           end all hosts, remove namespaces, bridge, rule and file systems
#
# HOSTS_DIR holds everything, HOSTS_BASE the base, which `down` leaves for the next run. Root, and
# Debian's mmdebstrap, systemd-container, iproute2, iptables and openssh-client are needed.
set -euo pipefail

DIR=${HOSTS_DIR:?names the folder for the hosts}
BASE=${HOSTS_BASE:-$DIR/base}
NET=${HOSTS_NET:-10.83.0}          # .1 is this machine, the hosts have .11 and up
SUITE=${HOSTS_SUITE:-bookworm}
BRIDGE=hosts${NET//./}
KEY=$DIR/key
# What a bare server of the distribution has: whatever else the playbook needs it has to install.
PACKAGES=systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,python3,sudo,iproute2,procps,ca-certificates
WAIT=300                           # tenths of a second for a boot or an end

fail() { echo "$*" >&2; exit 1; }

archive() { # the Debian archive this machine installs from
  # shellcheck disable=SC2016
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sed 's,/$,,' | grep -m1 '/debian$' ||
    fail "No Debian archive is among this machine's apt sources."
}

base() {
  [ -e "$BASE/.ready" ] && return
  local from
  from=$(archive)
  rm -rf "$BASE"
  mkdir -p "$(dirname "$BASE")"
  mmdebstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$BASE" "$from" >"$DIR/base.log" 2>&1 ||
    fail "mmdebstrap failed; see $DIR/base.log"
  printf 'deb %s %s main\n' "$from" "$SUITE" "$from" "$SUITE-updates" "$from-security" "$SUITE-security" \
    >"$BASE/etc/apt/sources.list"
  # The machine may reach its registries through a proxy with a certificate of its own.
  cp -r /usr/local/share/ca-certificates/. "$BASE/usr/local/share/ca-certificates/" 2>/dev/null || true
  chroot "$BASE" update-ca-certificates >/dev/null 2>&1 || true
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' >"$BASE/etc/pip.conf"
  chroot "$BASE" systemctl -q mask systemd-networkd-wait-online.service console-getty.service \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service 2>/dev/null || true
  : >"$BASE/etc/machine-id"
  touch "$BASE/.ready"
}

network() {
  ip link show "$BRIDGE" >/dev/null 2>&1 && return
  ip link add "$BRIDGE" type bridge
  ip addr add "$NET.1/24" dev "$BRIDGE"
  ip link set "$BRIDGE" up
  cat /proc/sys/net/ipv4/ip_forward >"$DIR/ip_forward"
  echo 1 >/proc/sys/net/ipv4/ip_forward
  iptables -t nat -A POSTROUTING -s "$NET.0/24" ! -d "$NET.0/24" -j MASQUERADE -m comment --comment "$BRIDGE"
}

number() { # a host's number, given at its first start and kept
  touch "$DIR/names"
  grep -qx "$1" "$DIR/names" || echo "$1" >>"$DIR/names"
  grep -nx "$1" "$DIR/names" | cut -d: -f1
}

address() { echo "$NET.$((10 + $(number "$1")))"; }

space() { echo "$BRIDGE-$1"; } # a host's network namespace, and its cgroups

wire() { # give a host its address, from outside, so that nothing inside has to
  local name=$1 ns link
  ns=$(space "$name")
  link=$BRIDGE-$(number "$name")
  ip netns list | grep -qw "$ns" && return
  ip netns add "$ns"
  ip link add "$link" type veth peer name eth0 netns "$ns"
  ip link set "$link" master "$BRIDGE" up
  ip -n "$ns" link set lo up
  ip -n "$ns" addr add "$(address "$name")/24" dev eth0
  ip -n "$ns" link set eth0 mtu "$(cat /sys/class/net/eth0/mtu 2>/dev/null || echo 1400)" up
  ip -n "$ns" route add default via "$NET.1"
}

# Run by a shell of its own for each host: enter the host's cgroups, or all inits would share one,
# and boot; nspawn says 133 when the host asked to be booted again.
# shellcheck disable=SC2016
BOOT='
group=$1; shift
for place in systemd unified .; do
  file=/sys/fs/cgroup/$place/$group/cgroup.procs
  [ -f "$file" ] && echo $$ >"$file"
done
while :; do
  "$@" &
  child=$!
  trap "kill -TERM $child" TERM
  wait $child; code=$?
  [ -d /proc/$child ] && { wait $child; code=$?; }
  [ $code = 133 ] || exit $code
done'

start() {
  local name=$1 root=$DIR/$1/root ns place
  ns=$(space "$name")
  wire "$name"
  mkdir -p "$DIR/$name"/{upper,work,root}
  mountpoint -q "$root" ||
    mount -t overlay "$ns" -o "lowerdir=$BASE,upperdir=$DIR/$name/upper,workdir=$DIR/$name/work" "$root"
  echo "$name" >"$root/etc/hostname"
  printf '127.0.0.1 localhost\n%s %s\n' "$(address "$name")" "$name" >"$root/etc/hosts"
  install -d -m 700 "$root/root/.ssh"
  install -m 600 "$KEY.pub" "$root/root/.ssh/authorized_keys"
  for place in systemd unified; do
    [ -d /sys/fs/cgroup/$place ] && mkdir -p "/sys/fs/cgroup/$place/$ns"
  done
  [ -f /sys/fs/cgroup/cgroup.procs ] && mkdir -p "/sys/fs/cgroup/$ns"
  SYSTEMD_NSPAWN_API_VFS_WRITABLE=network SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 \
    setsid bash -c "$BOOT" host "$ns" \
    systemd-nspawn -q -D "$root" -M "$name" --hostname="$name" --register=no --keep-unit \
    --capability=CAP_NET_ADMIN,CAP_NET_RAW --network-namespace-path="/run/netns/$ns" \
    --resolv-conf=copy-host --console=pipe --kill-signal=SIGRTMIN+4 -b systemd.log_target=journal \
    </dev/null >>"$DIR/$name.console" 2>&1 &
  echo $! >"$DIR/$name.pid"
}

remote() { # run a command on a host
  local name=$1
  shift
  ssh -i "$KEY" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
    -o ConnectTimeout=1 "root@$(address "$name")" "$@"
}

await() {
  local _
  for _ in $(seq "$WAIT"); do
    remote "$1" true 2>/dev/null && return
    sleep 0.1
  done
  fail "$1 did not come up; see $DIR/$1.console"
}

init() { # a host's PID 1, by the number this machine knows it by
  local child grandchild
  # shellcheck disable=SC2013
  for child in $(cat /proc/"$(cat "$DIR/$1.pid")"/task/*/children 2>/dev/null); do
    for grandchild in $(cat "/proc/$child"/task/*/children 2>/dev/null); do
      if [ "$(awk '/^NSpid/ { print $NF }' "/proc/$grandchild/status")" = 1 ]; then
        echo "$grandchild"
        return
      fi
    done
  done
  return 1
}

gone() { # wait until a host has ended
  local pid _
  pid=$(cat "$DIR/$1.pid")
  for _ in $(seq "$WAIT"); do
    [ -d "/proc/$pid" ] || return 0
    sleep 0.1
  done
  return 1
}

crash() {
  local pid
  # Nothing it still sends, not even a farewell, gets out.
  ip -n "$(space "$1")" link set eth0 down 2>/dev/null || true
  if pid=$(init "$1"); then kill -9 "$pid"; fi
  gone "$1" || fail "$1 does not end"
}

remove() { # a host and all that was made for it
  local name=$1 ns place
  ns=$(space "$name")
  [ -f "$DIR/$name.pid" ] && { crash "$name" || true; }
  ip netns del "$ns" 2>/dev/null || true
  ip link del "$BRIDGE-$(number "$name")" 2>/dev/null || true
  umount "$DIR/$name/root" 2>/dev/null || true
  rm -rf "${DIR:?}/$name" "$DIR/$name.pid"
  for place in systemd unified .; do
    [ -d "/sys/fs/cgroup/$place/$ns" ] &&
      find "/sys/fs/cgroup/$place/$ns" -depth -type d -exec rmdir {} \; 2>/dev/null || true
  done
}

down() {
  local name
  if [ -f "$DIR/names" ]; then
    while read -r name <&3; do remove "$name"; done 3<"$DIR/names"
    rm "$DIR/names"
  fi
  iptables -t nat -D POSTROUTING -s "$NET.0/24" ! -d "$NET.0/24" -j MASQUERADE -m comment --comment "$BRIDGE" 2>/dev/null || true
  ip link del "$BRIDGE" 2>/dev/null || true
  if [ -f "$DIR/ip_forward" ]; then
    cat "$DIR/ip_forward" >/proc/sys/net/ipv4/ip_forward
    rm "$DIR/ip_forward"
  fi
}

mkdir -p "$DIR"
what=${1:-}
[ $# -gt 0 ] && shift
case $what in
  up)
    [ -f "$KEY" ] || ssh-keygen -q -t ed25519 -N '' -f "$KEY"
    base
    network
    for name in "$@"; do start "$name"; done
    for name in "$@"; do await "$name"; done ;;
  start)
    ip -n "$(space "$1")" link set eth0 up 2>/dev/null || true
    ip -n "$(space "$1")" route replace default via "$NET.1"
    start "$1"
    await "$1" ;;
  stop)
    kill -TERM "$(cat "$DIR/$1.pid")" 2>/dev/null || true
    gone "$1" || crash "$1" ;;
  crash) crash "$1" ;;
  ssh) remote "$@" ;;
  address) address "$1" ;;
  down) down ;;
  *) sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//' >&2; exit 2 ;;
esac
