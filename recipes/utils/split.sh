#!/usr/bin/env bash
# split.sh LIST N OUTDIR: write OUTDIR/<name of LIST>.1 … .N, consecutive lines in their order, so that cat restores LIST.
# Their lengths differ by one at most; with fewer lines than N some parts are empty.
set -euo pipefail

die() {
    echo "split.sh: $1" >&2
    exit 2
}

[[ $# -eq 3 && ${2-} =~ ^[1-9][0-9]*$ ]] || die "usage: split.sh LIST N OUTDIR, N at least 1"
[[ -f $1 && -r $1 ]] || die "$1: no such list to read"
mkdir -p -- "$3" || exit 2

# Written elsewhere and renamed, so that a job that reads an older split does not see half of a new one.
work=$(mktemp -d -- "$3/.split.XXXXXX") || exit 2
trap 'rm -rf -- "$work"' EXIT
lines=$(awk 'END { print NR }' <"$1")
for ((part = 1; part <= $2; part++)); do
    : >"$work/$part"
done
work=$work awk -v n="$2" -v lines="$lines" '
    {
        part = int((NR - 1) * n / lines) + 1
        if (part != open) close(ENVIRON["work"] "/" open)
        print >(ENVIRON["work"] "/" (open = part))
    }' <"$1"
for ((part = 1; part <= $2; part++)); do
    mv -- "$work/$part" "$3/${1##*/}.$part"
done
