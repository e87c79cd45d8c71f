#!/usr/bin/env bash
# What each mechanism of the included models contributes: a table of scores with one part taken out at a time, the neurons that never
# fire, and the pitch classes of dpcrn_cf against the pitch of the clean speech. Parts are taken out of the trained model, and
# nothing is trained again. With a corpus its validation set is used, otherwise the pairs of data/pairs.
#
#   bash recipes/open/parts.sh
#   bash recipes/open/parts.sh --root CORPUS --models 'dpcrn_cf exp/mine/best.pt'
models=  # space-separated names or files; default all included models
out=  # default DIR/parts.md
STAGES='1 score and write the table'
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open parts "$@"

pairs=data/pairs
if [[ $root ]]; then
    prepare
    pairs=$valid
fi
out=${out:-$dir/parts.md}
mkdir -p "$(dirname "$out")"
read -ra names <<< "$models"
"$python" -P recipes/open/parts.py "$pairs/noisy.scp" "$pairs/clean.scp" ${names[@]+"${names[@]}"} > "$out.tmp"
mv "$out.tmp" "$out"
cat "$out"
