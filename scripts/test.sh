#!/bin/bash
# All tests, against private servers they start themselves. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh tests
exec cargo test --locked "$@"
