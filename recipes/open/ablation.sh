#!/usr/bin/env bash
# What the parts of a model contribute: variants of it, each trained from scratch with the same settings. They are scored on the
# validation set, since no choice may rest on the test set. The last stage writes DIR/ablation.md. fspen.sh describes the corpus.
#
#   bash recipes/open/ablation.sh --root CORPUS --more CORPUS_MORE                           FSPEN: P paths by D blocks; AdamW
#   bash recipes/open/ablation.sh --root CORPUS --more CORPUS_MORE --paper effifusion_gan    without one part after another
conf=
paper=fspen  # model to vary: fspen or effifusion_gan
only=  # space-separated names of variants; default all
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open ablation "$@"

case $paper in
    fspen)
        conf=${conf:-fspen_open_perceptual}
        base=P8_D3
        variants=('AdamW optimizer=adamw')
        for d in 1 3; do
            for p in 1 2 8 32; do
                variants+=("P${p}_D$d config.groups=$p config.dpe_blocks=$d")
            done
        done
        shared='ema=0 lr=2.0e-3 steps=400 valid_every=200'
        mini_set='steps=10'
        ;;
    effifusion_gan)
        conf=${conf:-effifusion_gan_open}
        base=whole
        variants=(
            whole
            'one_width config.kernels=[3]'
            'standard_convs config.kernels=[3] config.separable=false'
            'one_norm config.second_norm=false'
            'no_discriminator discriminator=null'
            'pruned_30% pruning.amount=0.3 pruning.every=20 pruning.layers=conv'
        )
        shared='steps=200 valid_every=200'
        mini_set='steps=2'
        ;;
    *)
        echo "ablation.sh: --paper $paper: choose fspen or effifusion_gan" >&2
        exit 2
        ;;
esac
[[ $dir != exp/open/ablation && $dir != exp/mini/open_ablation ]] || dir+=/$paper
part "$dir" 0 1

read -ra shared_settings <<< "$shared"
trained=()
for variant in "${variants[@]}"; do
    read -ra words <<< "$variant"
    name=${words[0]}
    [[ ! $only || " $only " == *" $name "* ]] || continue
    test=$valid part "$dir/$name" 2 5 "${shared_settings[@]}" "${words[@]:1}"
    trained+=("$name")
done

if due 6; then
    systems=()
    # A base that an earlier run has trained is compared with, too.
    if [[ " ${trained[*]} " != *" $base "* && -e $dir/$base/enhanced.tsv ]]; then
        trained=("$base" "${trained[@]}")
    fi
    for name in "${trained[@]}"; do
        se-count "$dir/$name/best.pt" --json > "$dir/$name/count.json"
        systems+=("$name=$dir/$name/enhanced.tsv,$dir/$name/count.json")
    done
    [[ " ${trained[*]} " != *" $base "* ]] || systems+=(--against "$base")
    to.sh "$dir/ablation.md" se-score --table md --metrics pesq_wb,stoi,si_sdr "${systems[@]}"
    cat "$dir/ablation.md"
fi
