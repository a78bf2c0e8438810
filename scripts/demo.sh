#!/bin/bash
# Live games in a private Postgres, watched in the browser. Arguments go to `rowcast demo`; --help lists them.
# The debug build: it shares its dependencies with the tests and is there in a third of the time.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh demo
exec cargo run --locked -- demo "$@"
