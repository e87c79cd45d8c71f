#!/usr/bin/env bash
# to.sh FILE PROG ARGS...: write the standard output of PROG to FILE, which appears when PROG has ended with code 0.
# Launchers write a job's output to its log; this writes its data to another file.
set -euo pipefail
(($# >= 2)) || { echo "usage: to.sh FILE PROG ARGS..." >&2; exit 2; }
file=$1
shift
trap 'rm -f "$file.$$.tmp"' EXIT
"$@" > "$file.$$.tmp"
mv "$file.$$.tmp" "$file"
