#!/usr/bin/env bash
# What the parts of a model are worth: variants of it, each trained alike from nothing on the corpus of fspen.sh beside it. They
# are scored on the validation set, since no choice should rest on the test set; ends with DIR/ablation.md.
#
#   bash recipes/open/ablation.sh --root CORPUS --more CORPUS_MORE                            FSPEN: P paths by D blocks, Muon or not
#   bash recipes/open/ablation.sh --root CORPUS --more CORPUS_MORE --paper effifusion_gan     without one part after another
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}
paper=fspen                    # or effifusion_gan
dir=                           # experiment; default exp/open/ablation/PAPER, or exp/mini/open_ablation/PAPER
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards
only=                          # space-separated names of variants; default all
set=                           # for all trainings
noisy_gate=false
stage=0
stop_stage=6
nj=2
. recipes/utils/parse_options.sh

case $paper in
    fspen)
        conf=fspen_open_perceptual
        base=P8_D3
        variants=('AdamW optimizer=adamw')
        for d in 1 3; do
            for p in 1 2 8 32; do
                variants+=("P${p}_D$d config.groups=$p config.dpe_blocks=$d")
            done
        done
        alike='ema=0 lr=2.0e-3 steps=400 valid_every=200'
        mini_steps=10
        ;;
    effifusion_gan)
        conf=effifusion_gan_open
        base=whole
        variants=(
            whole
            'one_width config.kernels=[3]'
            'standard_convs config.kernels=[3] config.separable=false'
            'one_norm config.second_norm=false'
            'no_discriminator discriminator=null'
            'pruned_30% pruning.amount=0.3 pruning.every=20 pruning.layers=conv'
        )
        alike='steps=200 valid_every=200'
        mini_steps=2
        ;;
    *)
        echo "ablation.sh: --paper $paper: fspen or effifusion_gan" >&2
        exit 2
        ;;
esac
. recipes/utils/corpus.sh open "ablation/$paper"
init=''
part "$dir" 0 1

trained=()
for variant in "${variants[@]}"; do
    read -ra words <<< "$variant"
    name=${words[0]}
    [[ ! $only || " $only " == *" $name "* ]] || continue
    # What is said for all comes before the steps of data/mini and the user's own.
    # shellcheck disable=SC2086
    test=$valid part "$dir/$name" 2 5 $alike "${words[@]:1}"
    trained+=("$name")
done
if ((stop_stage >= 6)); then
    for name in "${trained[@]}"; do
        se-count "$dir/$name/best.pt" --json > "$dir/$name/count.json"
    done
    "$SETK_ROOT/.venv/bin/python" recipes/utils/ablation.py "$dir" "$base" "${trained[@]}" > "$dir/ablation.md.tmp"
    mv "$dir/ablation.md.tmp" "$dir/ablation.md"
    cat "$dir/ablation.md"
fi
