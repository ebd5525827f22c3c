#!/usr/bin/env bash
# Runs all tests of the workspace: sets the machine up, builds the binaries, then unit, model and end-to-end tests.
# Arguments go to `cargo test`, e.g. `tests/run.sh -p fellbeck-tests --test e2e flow`; without any, all of the workspace runs.
set -euo pipefail
cd "$(dirname "$0")/.."

bash tests/setup.sh
# The end-to-end tests start the binaries, which `cargo test` alone does not build. With all targets at once, nothing is built twice.
cargo build --workspace --all-targets --locked
case "$*" in
'' | *gateway*) bash tests/gateway.sh build ;;
esac
if [ $# -eq 0 ]; then
    set -- --workspace
fi
cargo test --locked --no-fail-fast "$@"
