#!/usr/bin/env bash
# The open corpus from clones of the public repositories that its recordings come from: what the recipes beside this call CORPUS.
#
#   bash recipes/open/prepare.sh --list true                         the repositories and what each is used for
#   bash recipes/open/prepare.sh --sources DIR --out CORPUS --nj 4 the corpus; clone each repository to DIR/OWNER/NAME before
#   bash recipes/open/fspen.sh --root CORPUS                       a training on it
#
# sources.tsv names each recording: set, repository, path, licence, speaker or kind of noise, cut, level, and the SHA-256 of the
# file that the included models were trained or tested with. Where `start` is empty the cut is not recorded: the recording then
# begins at its first sound, and is near that file, not equal to it. The included models also had 44 mixtures of training speech as
# babble, which come from no repository.
set -euo pipefail
# shellcheck source=recipes/path.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/../path.sh"

sources=${OPEN_SOURCES:-}      # holds OWNER/NAME for each repository, or as much of it as sources.tsv names
out=                           # default exp/open/corpus
table=                         # default recipes/open/sources.tsv
pairs=                         # default recipes/open/pairs.tsv
list=false                     # true: print the repositories, recordings of each and licences, and end
nj=2
. "$SETK_ROOT/recipes/utils/parse_options.sh"

CDPATH='' cd -- "$SETK_ROOT"
. recipes/utils/user_paths.sh
user_paths sources out table pairs
table=${table:-$SETK_ROOT/recipes/open/sources.tsv} pairs=${pairs:-$SETK_ROOT/recipes/open/pairs.tsv}

if [[ $list == true ]]; then
    awk -F '\t' 'NR > 1 { count[$4]++; sub(/ [(].*/, "", $6); if (!seen[$4, $6]++) licences[$4] = licences[$4] (licences[$4] ? "; " : "") $6 }
        END { for (name in count) print name "\t" count[name] "\t" licences[name] }' "$table" | sort
    exit
fi
[[ $sources ]] || { echo "prepare.sh: --sources DIR is missing: the folder that holds the clones (--list true names them)" >&2; exit 2; }
[[ -d $sources ]] || { echo "prepare.sh: --sources $sources: no such directory" >&2; exit 2; }
"$SETK_ROOT/.venv/bin/python" -P recipes/open/from_sources.py "$table" "$pairs" "$sources" "${out:-exp/open/corpus}" "$nj"
