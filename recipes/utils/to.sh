#!/usr/bin/env bash
# to.sh FILE PROG ARGS...: the standard output of PROG in FILE, which appears when PROG has ended well.
# Launchers send a job's output to its log; this keeps its data apart.
set -euo pipefail
(($# >= 2)) || { echo "usage: to.sh FILE PROG ARGS..." >&2; exit 2; }
file=$1
shift
trap 'rm -f "$file.$$.tmp"' EXIT
"$@" > "$file.$$.tmp"
mv "$file.$$.tmp" "$file"
