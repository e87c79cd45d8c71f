# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced by a recipe after its options are parsed: the stages that all papers share. The recipe has set
#   paper, conf, corpus, dir, train, valid, test, shards   names, and where things are
#   prepare                                        a function: corpus on disk -> those data directories
#   train_set                                      array of key=value on top of the conf
#   noisy_gate                                     true: the noisy test set must read as VoiceBank+DEMAND's does
#   paper_rows                                     the papers' own figures, lines of RESULTS.md's table
#   shown                                          optional: what the table calls the model
#   prune, tune                                    optional: stage 3 prunes best.pt by these options of se-prune, and trains on in
#                                                  dir/pruned with these key=value; what comes after is done for that too
#   init, stage, stop_stage, nj, label, train_cmd, cpu_cmd

python=$SETK_ROOT/.venv/bin/python

log() { echo "$(date +%H:%M:%S) ${0##*/}: $*" >&2; }

due() { ((stage <= $1 && stop_stage >= $1)); }

mkdir -p "$dir/log"

if due 0; then
    log "stage 0: prepare $corpus"
    prepare
    se-prep check "$train" "$valid" "$test" --jobs "$nj" > "$dir/check.tsv" || { log "faults are listed in $dir/check.tsv"; exit 1; }
fi

if due 1; then
    log "stage 1: shards"
    # shellcheck disable=SC2086
    $cpu_cmd JOB=1:"$nj" "$dir/log/shards.JOB.log" se-prep shards "$train" "$shards" --shard JOB/"$nj"
fi

trainer=(se-train)
if ((${SETK_RANKS:-1} > 1)); then
    trainer=("$python" -P -m torch.distributed.run --standalone --nproc-per-node "$SETK_RANKS" -m setk train)
fi

if due 2; then
    log "stage 2: train (progress in $dir/log/train.log; $dir/curves.png)"
    # shellcheck disable=SC2086
    $train_cmd "$dir/log/train.log" "${trainer[@]}" "$conf" --train "$shards" --valid "$valid" --out "$dir" \
        ${init:+--init "$init"} "${train_set[@]/#/--set=}"
fi

if due 3 && [[ ${prune-} ]]; then
    log "stage 3: prune ($dir/prune.tsv) and train on (progress in $dir/log/tune.log)"
    if [[ ! $dir/prune.tsv -nt $dir/best.pt ]]; then
        head -n 32 "$valid/noisy.scp" > "$dir/prune.scp"
        # shellcheck disable=SC2086
        $cpu_cmd "$dir/log/prune.log" to.sh "$dir/prune.tsv" se-prune "$dir/best.pt" "$dir/pruned.pt" \
            --list "$dir/prune.scp" --ref "$valid/clean.scp" $prune
    fi
    read -ra tune_set <<< "${tune-}"
    # shellcheck disable=SC2086
    $train_cmd "$dir/log/tune.log" "${trainer[@]}" "$conf" --train "$shards" --valid "$valid" --out "$dir/pruned" \
        --init "$dir/pruned.pt" "${train_set[@]/#/--set=}" "${tune_set[@]/#/--set=}" --set config=init
fi

if due 4; then
    log "stage 4: enhance"
    mkdir -p "$dir/scp"
    rm -f "$dir"/scp/enhanced.*.scp  # of a run with more jobs
    # shellcheck disable=SC2086
    $cpu_cmd JOB=1:"$nj" "$dir/log/enhance.JOB.log" recipes/utils/to.sh "$dir/scp/enhanced.JOB.scp" \
        se-enhance "$dir/best.pt" --list "$test/noisy.scp" --out "$dir/enhanced" --shard JOB/"$nj"
    sort "$dir"/scp/enhanced.*.scp > "$dir/enhanced.scp"
fi

if due 5; then
    log "stage 5: score, the noisy input first"
    se-score --ref "$test/clean.scp" "$test/noisy.scp" --jobs "$nj" --summary "$dir/noisy.json" > "$dir/noisy.tsv"
    if [[ $noisy_gate == true ]]; then
        "$python" recipes/utils/noisy_gate.py "$dir/noisy.json"
    fi
    se-score --ref "$test/clean.scp" "$dir/enhanced.scp" --jobs "$nj" --summary "$dir/enhanced.json" > "$dir/enhanced.tsv"
fi

if due 6; then
    log "stage 6: count and write RESULTS.md"
    se-count "$dir/best.pt" --json > "$dir/count.json"
    se-count "$dir/best.pt" --json --convention ptflops > "$dir/count.ptflops.json"
    "$python" recipes/utils/results.py "$dir" "${shown:-$paper}" "$label" "$test" "$paper_rows" > "$dir/RESULTS.md.tmp"
    mv "$dir/RESULTS.md.tmp" "$dir/RESULTS.md"
    log "wrote $dir/RESULTS.md"
    cat "$dir/RESULTS.md"
fi

also_pruned() {
    local dir=$dir/pruned shown="${shown:-$paper}, pruned" stage=$((stage > 4 ? stage : 4)) prune=
    . recipes/utils/stages.sh
}

if [[ ${prune-} ]] && ((stop_stage >= 4)); then
    also_pruned
fi
