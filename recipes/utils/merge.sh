#!/usr/bin/env bash
# merge.sh K/N FILE PROG ARGS...: write the standard output of PROG, the list of part K of N, to FILE.K. The job that finds all parts
# written sorts them into FILE, so that no job waits for the others.
set -euo pipefail
[[ $# -ge 3 && $1 =~ ^([1-9][0-9]*)/([1-9][0-9]*)$ ]] || { echo "usage: merge.sh K/N FILE PROG ARGS..." >&2; exit 2; }
part=${BASH_REMATCH[1]} parts=${BASH_REMATCH[2]} file=$2
shift 2
# Of an earlier run; the last job of this one writes it again.
rm -f -- "$file" "$file.$part"
"$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/to.sh" "$file.$part" "$@"
names=()
for ((i = 1; i <= parts; i++)); do
    [[ -e $file.$i ]] || exit 0
    names+=("$file.$i")
done
# Two jobs that end at the same time both do this, with the same result.
tmp=$file.$HOSTNAME.$$.tmp
LC_ALL=C sort -- "${names[@]}" > "$tmp"
mv -- "$tmp" "$file"
