#!/usr/bin/env bash
# FSPEN's ablation grid: P paths (inter-frame GRUs per block) by D blocks. P adds parameters and no MACs, D adds both.
# The costs of the whole grid are counted first; then each cell is trained, enhanced and scored by fspen.sh.
#
#   bash recipes/vbd/fspen_ablation.sh --stop-stage 0          costs only, a minute
#   bash recipes/vbd/fspen_ablation.sh --root /data/VBD        the grid, one training per cell
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${VBD_ROOT:-}
paths='1 2 4 8 16 32'
blocks='1 2 3 4'
set=                           # space-separated key=value on top of the conf, for every cell
grid=                          # where all goes; default exp/vbd/fspen_ablation, or exp/mini/...
stage=0                        # 0 costs, 1 trainings
stop_stage=1
nj=2
. recipes/utils/parse_options.sh

if [[ $root ]]; then label=vbd; else label=mini; fi
grid=${grid:-exp/$label/fspen_ablation}
mkdir -p "$grid"

if ((stage <= 0)); then
    for p in $paths; do
        for d in $blocks; do
            printf 'model: fspen\nconfig: {groups: %s, dpe_blocks: %s}\nlosses: {l1: 1.0}\n' "$p" "$d" > "$grid/P${p}_D$d.yaml"
        done
    done
    se-count "$grid"/P*_D*.yaml > "$grid/cost.tsv.tmp"
    mv "$grid/cost.tsv.tmp" "$grid/cost.tsv"
    cat "$grid/cost.tsv"
fi

if ((stage <= 1 && stop_stage >= 1)); then
    for p in $paths; do
        for d in $blocks; do
            bash recipes/vbd/fspen.sh ${root:+--root "$root"} --dir "$grid/P${p}_D$d" --nj "$nj" \
                --set "config.groups=$p config.dpe_blocks=$d $set" > /dev/null
        done
    done
    grep -h 'fspen, here' "$grid"/P*_D*/RESULTS.md
fi
