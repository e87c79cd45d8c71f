#!/usr/bin/env bash
# FSPEN's ablation grid: P paths (inter-frame GRUs per block) by D blocks. P adds parameters and no MACs; D adds both.
# The costs of all cells are counted first. Then fspen.sh trains, enhances and scores each cell.
#
#   bash recipes/vbd/fspen_ablation.sh --stop-stage 0          count the costs only: a minute
#   bash recipes/vbd/fspen_ablation.sh --root /data/VBD        run the grid: one training per cell
paths='1 2 4 8 16 32'  # values of P
blocks='1 2 3 4'  # values of D
grid=  # folder of the cells; default exp/vbd/fspen_ablation, or exp/mini/fspen_ablation
STAGES='0 count costs, 1 train'
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" vbd fspen_ablation "$@"

grid=${grid:-$dir}
mkdir -p "$grid"

if due 0; then
    configs=()
    for p in $paths; do
        for d in $blocks; do
            configs+=("$grid/P${p}_D$d.yaml")
            printf 'model: fspen\nconfig: {groups: %s, dpe_blocks: %s}\nlosses: {l1: 1.0}\n' "$p" "$d" > "${configs[-1]}"
        done
    done
    se-count "${configs[@]}" > "$grid/cost.tsv.tmp"
    mv "$grid/cost.tsv.tmp" "$grid/cost.tsv"
    cat "$grid/cost.tsv"
fi

if due 1; then
    for p in $paths; do
        for d in $blocks; do
            cell=P${p}_D$d
            bash recipes/vbd/fspen.sh ${root:+--root "$root"} --dir "$grid/$cell" --nj "$nj" \
                --set "config.groups=$p config.dpe_blocks=$d $set" > /dev/null
            grep -h 'fspen, here' "$grid/$cell/RESULTS.md" | sed "s/fspen, here/fspen $cell, $label/"
        done
    done
fi
