#!/usr/bin/env bash
# Set up (quick when that is done) and run the tests; arguments go to pytest, as in: bash tests/run.sh -k score
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin/setup
# Tests start processes of their own, one compute thread each; two at a time keep two cores busy.
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest -n "${NJ:-2}" --dist worksteal "$@"
