#!/usr/bin/env bash
# Quality against cost: a trained model is pruned in steps to smaller parts of its multiply-accumulates, and trained after each
# step; the next step starts from that model. The results are DIR/sweep.tsv and DIR/sweep.png, scored on the test set.
# DIR/PART/prune.tsv has the cost of each step before training, on the validation set. fspen.sh describes the corpus.
#
#   bash recipes/open/prune_sweep.sh                                                  the embedded corpus: three minutes
#   bash recipes/open/prune_sweep.sh --root CORPUS --model exp/open/fspen/best.pt
conf=fspen_open
model=fspen  # a checkpoint or an included model
parts='0.7 0.5 0.35'  # parts of the model's MACs to keep, falling
prune='--importance taylor'  # further options of se-prune
tune='steps=2000 warmup=100 lr=5e-4 valid_every=500'  # settings of each training, on top of the config
STAGES='0 prepare, 1 shards, 3 prune and train, 5 enhance and score, 6 count, table and picture'
# shellcheck source=recipes/utils/recipe.sh
. "$(dirname "$0")/../utils/recipe.sh" open prune_sweep "$@"

if [[ $label == mini ]]; then tune='steps=20 warmup=2 lr=5e-4 valid_every=20'; fi
set="$tune $set"
part "$dir" 0 1
training_settings config=init

dense=$(se-count "$model" --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["macs_per_second"])')
before=$model
for part in dense $parts; do
    at=$dir/$part
    mkdir -p "$at/log"
    if [[ $part != dense ]]; then
        if due 3; then
            target=$(awk "BEGIN {printf \"%.0f\", $part * $dense}")
            # shellcheck disable=SC2086
            pruned_before "$at" "$at" "$before" "$target" $prune || "${bound[@]}" $cpu_cmd "$at/log/prune.log" to.sh "$at/prune.tsv" \
                se-prune "$before" "$at/start.pt" --method structured --target-macs "$target" \
                --list "$valid/noisy.scp" --ref "$valid/clean.scp" $prune
            train_in "$at" "$at/log/train.log" "$at/start.pt" "${settings[@]}"
        fi
        before=$at/best.pt
    fi
    if due 5; then
        enhance_list "$before" "$at"
        score_list "$at/enhanced.scp" "$at/enhanced"
    fi
    ! due 6 || se-count "$before" --json --time > "$at/count.json"
done

if due 6; then
    systems=()
    for part in dense $parts; do
        systems+=("$part=$dir/$part/enhanced.tsv,$dir/$part/count.json")
    done
    to.sh "$dir/sweep.tsv" se-score --table tsv --metrics pesq_wb,stoi,si_sdr --png "$dir/sweep.png" "${systems[@]}"
    cat "$dir/sweep.tsv"
fi
