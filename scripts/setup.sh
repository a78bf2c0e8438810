#!/bin/bash
# Installs what the demo and the tests need and this machine lacks. Safe to run again: what is there is left alone.
#
#   scripts/setup.sh          a PostgreSQL server, and a linker for cargo
#   scripts/setup.sh tests    also pgbench and the contrib modules, a browser with its driver, Schemathesis, which
#                             tests the HTTP side against its OpenAPI document, in target/schemathesis, and the
#                             WebSocket client of npm, in target/node
#
# On Debian and Ubuntu it uses apt (with sudo when not root). Elsewhere it says what to install and fails.
set -euo pipefail

wanted=${1:-demo}
case $wanted in demo | tests) ;; *) echo "usage: $0 [demo|tests]" >&2; exit 2 ;; esac

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" > /dev/null 2>&1; }

# The same places as src/localpg/binaries.rs looks at, save for the copy `rowcast demo --fetch` keeps.
have_server() {
  local dir
  for dir in "${ROWCAST_PG_BIN:-}" ${PATH//:/ } "$(pg_config --bindir 2> /dev/null || true)" \
    /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin /usr/local/opt/postgresql@*/bin \
    /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin /Applications/Postgres.app/Contents/Versions/*/bin; do
    if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
      [ "$("$dir/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')" -ge 14 ] && return 0
    fi
  done
  return 1
}

have_pgbench() {
  have pgbench || compgen -G '/usr/lib/postgresql/*/bin/pgbench' > /dev/null
}

# Schemathesis needs Python 3.10; Debian keeps what makes virtual environments in a package of its own.
have_python() {
  have python3 && python3 -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2> /dev/null
}

# Once, and again when the pinned versions change: the test plays the same requests everywhere.
schemathesis() {
  local pins=${0%/*}/schemathesis.txt home=${CARGO_TARGET_DIR:-${0%/*}/../target}/schemathesis
  cmp -s "$pins" "$home/pins.txt" && [ -x "$home/bin/schemathesis" ] && return 0
  have_python || { say 'Schemathesis needs python3, version 3.10 or newer, with venv (Debian: python3-venv)'; exit 1; }
  say "installing: schemathesis, into $home"
  rm -rf "$home"
  mkdir -p "${home%/*}"
  python3 -m venv "$home" >&2
  "$home/bin/pip" --disable-pip-version-check --quiet install --only-binary :all: -r "$pins" >&2
  cp "$pins" "$home/pins.txt"
}

# Once, and again when the pinned version changes.
node_client() {
  local pins=${0%/*}/node home=${CARGO_TARGET_DIR:-${0%/*}/../target}/node
  cmp -s "$pins/package-lock.json" "$home/package-lock.json" && [ -d "$home/node_modules/ws" ] && return 0
  { have node && have npm; } || { say 'the WebSocket client of npm needs node and npm'; exit 1; }
  say "installing: ws, into $home"
  rm -rf "$home"
  mkdir -p "$home"
  cp "$pins/package.json" "$pins/package-lock.json" "$home"
  # nothing of it runs; npm puts the modules there when all of them came
  npm ci --prefix "$home" --ignore-scripts --no-audit --no-fund --silent >&2
}

if ! have cargo; then
  say 'cargo is missing: install Rust 1.89 or newer (https://rustup.rs), then run this again'
  exit 1
fi

# `postgresql` brings the newest server of the distribution, pgbench and the contrib modules.
missing=()
have cc || missing+=(gcc libc6-dev)
have_server || missing+=(postgresql)
if [ "$wanted" = tests ]; then
  have_pgbench || missing+=(postgresql postgresql-contrib)
  have chromium || have chromium-browser || have google-chrome || missing+=(chromium)
  have chromedriver || missing+=(chromium-driver)
  have_python || missing+=(python3 python3-venv)
  { have node && have npm; } || missing+=(nodejs npm)
fi
if [ ${#missing[@]} -eq 0 ]; then
  [ "$wanted" = demo ] || { schemathesis; node_client; }
  exit 0
fi

if ! have apt-get; then
  say "missing: ${missing[*]} (Debian's names); this script installs with apt only"
  say '  macOS:  brew install postgresql@17   and for the tests: brew install node; brew install --cask chromium chromedriver'
  say '  Fedora: sudo dnf install postgresql-server postgresql-contrib gcc   and for the tests: chromium chromedriver nodejs npm'
  say '  Arch:   sudo pacman -S postgresql gcc   and for the tests: chromium nodejs npm'
  exit 1
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  have sudo || { say "not root and no sudo: have somebody run: apt-get install ${missing[*]}"; exit 1; }
  as_root=(sudo)
fi
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 "$@" < /dev/null >&2; }

say "installing: ${missing[*]}"
apt update

# Only the programs are wanted: Debian would otherwise make a cluster and start it.
conf=/etc/postgresql-common/createcluster.d/rowcast-setup.conf
if ! have pg_lsclusters; then
  "${as_root[@]}" mkdir -p "${conf%/*}"
  echo 'create_main_cluster = false' | "${as_root[@]}" tee "$conf" > /dev/null
  trap '"${as_root[@]}" rm -f "$conf"' EXIT
fi

required=() optional=()
for package in "${missing[@]}"; do
  case $package in chromium*) optional+=("$package") ;; *) required+=("$package") ;; esac
done
[ ${#required[@]} -eq 0 ] || apt install --no-install-recommends "${required[@]}"
# Ubuntu has no such packages, only a snap; the tests that need a browser say so and are left out without one.
[ ${#optional[@]} -eq 0 ] || apt install --no-install-recommends "${optional[@]}" || say "no ${optional[*]} here: browser tests will be left out"

have_server || { say 'there is still no PostgreSQL server of version 14 or newer; "rowcast demo" names other ways'; exit 1; }
[ "$wanted" = demo ] || { schemathesis; node_client; }
