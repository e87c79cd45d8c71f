#!/usr/bin/env bash
# Set up (quick when that is done) and run the tests of the default lane: at most four minutes on two cores.
# bash tests/run.sh --all runs the full lane too, with a random seed. Other options go to pytest, as in: bash tests/run.sh -k score
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
bin/setup
# Two workers, one compute thread each (see tests/conftest.py); NJ sets another number of workers.
exec .venv/bin/python -m pytest -n "${NJ:-2}" --dist worksteal "$@"
