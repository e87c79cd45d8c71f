#!/usr/bin/env bash
# Quality against cost: a trained model is pruned to part after part of its multiply-accumulates, and trained on after each
# step, from which the next one starts. Ends with DIR/sweep.tsv and DIR/sweep.png, scored on the test set; DIR/PART/prune.tsv
# tells what each step cost before training mended it, on the validation set.
#
#   bash recipes/open/prune_sweep.sh                                                  the embedded corpus, three minutes
#   bash recipes/open/prune_sweep.sh --root CORPUS --model exp/open/fspen/best.pt     the corpus of fspen.sh beside it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

root=${OPEN_ROOT:-}
more=${OPEN_MORE:-}
dir=                           # experiment; default exp/open/prune_sweep, or exp/mini/open_prune_sweep
data=                          # data directories; default exp/open/data
shards=                        # default exp/open/shards
model=fspen                    # a checkpoint, or a model that ships
conf=fspen_open
parts='0.7 0.5 0.35'           # of the model's MACs, falling
prune='--importance taylor'    # further options of se-prune
tune='steps=2000 warmup=100 lr=5e-4 valid_every=500'   # on top of the conf, for each training
set=                           # and after these
noisy_gate=false
stage=0                        # 0 prepare, 1 shards, 3 prune and train on, 5 enhance and score, 6 count, table and picture
stop_stage=6
nj=2
. recipes/utils/parse_options.sh

[[ $OLDPWD == "$PWD" || $model == /* || ! -f $OLDPWD/$model ]] || model=$OLDPWD/$model
if [[ ! $root ]]; then tune='steps=20 warmup=2 lr=5e-4 valid_every=20'; fi
set="$tune $set"
. recipes/utils/corpus.sh open prune_sweep
init=''
part "$dir" 0 1
python=$SETK_ROOT/.venv/bin/python

mkdir -p "$dir/log" "$dir/dense"
dense=$(se-count "$model" --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["macs_per_second"])')
before=$model
for part in dense $parts; do
    at=$dir/$part
    if [[ $part != dense ]]; then
        if ((stage <= 3 && stop_stage >= 3)); then
            mkdir -p "$at/log"
            target=$(awk "BEGIN {printf \"%.0f\", $part * $dense}")
            # shellcheck disable=SC2086
            [[ -s $at/prune.tsv ]] || $cpu_cmd "$at/log/prune.log" to.sh "$at/prune.tsv" se-prune "$before" "$at/start.pt" \
                --method structured --target-macs "$target" --list "$valid/noisy.scp" --ref "$valid/clean.scp" $prune
            # shellcheck disable=SC2086
            $train_cmd "$at/log/train.log" se-train "$conf" --train "$shards" --valid "$valid" --out "$at" --init "$at/start.pt" \
                "${train_set[@]/#/--set=}" --set config=init
        fi
        before=$at/best.pt
    fi
    if ((stage <= 5 && stop_stage >= 5)); then
        se-enhance "$before" --list "$test/noisy.scp" --out "$at/enhanced" --jobs "$nj" > "$at/enhanced.scp"
        se-score --ref "$test/clean.scp" "$at/enhanced.scp" --jobs "$nj" --summary "$at/enhanced.json" > "$at/enhanced.tsv"
    fi
    if ((stage <= 6 && stop_stage >= 6)); then
        se-count "$before" --json --time > "$at/count.json"
    fi
done

if ((stage <= 6 && stop_stage >= 6)); then
    # shellcheck disable=SC2086
    "$python" -P recipes/utils/prune_sweep.py "$dir" dense $parts
    cat "$dir/sweep.tsv"
fi
