#!/bin/bash
# Live games in a private Postgres, watched in the browser. Arguments go to `rowcast demo`; --help lists them.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh demo
exec cargo run --quiet --release --locked -- demo "$@"
