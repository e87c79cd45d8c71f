#!/usr/bin/env bash
# Build data/mini: espeak-ng speaks the sentences, make.py adds the noise.
# usage: make.sh           rebuild the corpus in place
#        make.sh --check   rebuild elsewhere; exit 1 and name the files that differ from those here
set -euo pipefail
export LC_ALL=C

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
parts=(train valid test utterances.tsv)

case "$#:${1-}" in
  0:) check=false; work=$(mktemp -d "$here/.build.XXXXXX") ;;  # beside the old one, so that the swap is a rename
  1:--check) check=true; work=$(mktemp -d) ;;
  *) echo "usage: ${0##*/} [--check]" >&2; exit 2 ;;
esac
trap 'rm -rf "$work"' EXIT

# Speakers take the sentences in turn, so a new line in the middle of either file changes all that follows.
exec 3<"$here/sentences.txt"
while IFS=$'\t' read -r split role name voice pitch speed count; do
  [[ $split == '#'* ]] && continue
  dir=$work/speech/$split/$role
  mkdir -p "$dir"
  for ((i = 1; i <= count; i++)); do
    read -r sentence <&3
    [[ $role == target ]] && id=$(printf '%s_%04d' "$name" "$i") || id=$voice-$i
    # -a 60: at the default amplitude some voices clip.
    espeak-ng -a 60 -v "$voice" -p "$pitch" -s "$speed" -w "$dir/$id.wav" "$sentence"
  done
done <"$here/speakers.tsv"

"$python" "$here/make.py" "$work/speech" "$work/mini"

if $check; then
  status=0
  for part in "${parts[@]}"; do
    diff -rq "$work/mini/$part" "$here/$part" || status=1
  done
  exit $status
fi
for part in "${parts[@]}"; do
  rm -rf "${here:?}/$part"
  mv "$work/mini/$part" "$here/$part"
done
