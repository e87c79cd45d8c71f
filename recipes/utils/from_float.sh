# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced after corpus.sh by a recipe whose training begins from Conv-TasNet in floating point: has
# recipes/DATASET/conv_tasnet.sh train and score that first, if `float`, its experiment, has no model yet, and sets init.
#   dataset, label, dir, root, more, data, shards, nj, init, float, stage, stop_stage
if [[ ! $float ]]; then
    [[ $label == mini ]] && float=$(dirname "$dir")/${dataset}_conv_tasnet || float=$(dirname "$dir")/conv_tasnet
fi
if [[ ! $init && ! -e $float/best.pt ]] && ((stage <= 2 && stop_stage >= 2)); then
    bash "recipes/$dataset/conv_tasnet.sh" --root "$root" ${more:+--more "$more"} --dir "$float" ${data:+--data "$data"} \
        --shards "$shards" --nj "$nj" --stop-stage 5
fi
init=${init:-$float/best.pt}
