# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced by recipe.sh: the stages that all models share, as functions. A recipe may set, before it calls run_stages:
#   shown        what the result table calls the model; default NAME
#   mini_set     KEY=VALUE settings of a training on data/mini, on top of its own
#   prune, tune  stage 3 prunes best.pt with these options of se-prune, and trains dir/pruned with these KEY=VALUE settings;
#                the later stages then run for dir/pruned too

python=$SETK_ROOT/.venv/bin/python

log() { echo "$(date +%H:%M:%S) ${0##*/}: $*" >&2; }

due() { ((stage <= $1 && stop_stage >= $1)); }

# run_stages [KEY=VALUE...]: the stages that are due; the settings come before those of data/mini and of the user.
run_stages() {
    mkdir -p "$dir/log"
    ! due 2 || check_settings "$@"
    ! due 0 || prepare_stage
    ! due 1 || shard_stage
    ! due 2 || train_stage "$@"
    if [[ ${prune-} ]]; then
        ! due 3 || prune_stage "$@"
    fi
    evaluate
    if [[ ${prune-} ]]; then
        local dir=$dir/pruned shown="${shown:-$NAME}, pruned"
        mkdir -p "$dir/log"
        evaluate
    fi
}

# part DIR FIRST LAST [KEY=VALUE...]: those stages from FIRST to LAST that are due, in DIR, with these settings.
part() {
    local dir=$1 stage=$((stage > $2 ? stage : $2)) stop_stage=$((stop_stage < $3 ? stop_stage : $3)) prune=
    run_stages "${@:4}"
}

# train_first NAME CONFIG [KEY=VALUE...]: a training in dir/NAME before the last; the next one starts from its best model.
# With the user's own --init there is nothing to train first.
train_first() {
    : "${own_init=$init}"
    [[ ! $own_init ]] || return 0
    local conf=$2
    part "$dir/$1" 0 2 "${@:3}"
    init=$dir/$1/best.pt stage=$((stage > 2 ? stage : 2))
}

# unfinished DIR: whether a training in DIR was stopped before its last step.
unfinished() {
    [[ -e $1/resume.pt ]] && [[ $(tail -n 1 -- "$1/history.tsv" | cut -f 1) != $(sed -n 's/^steps: //p' -- "$1/config.yaml") ]]
}

# init_from RECIPE FOLDER: start from the best model of another recipe of this corpus, whose experiment is FOLDER; by default it
# is next to dir. The recipe runs first if it has not finished a model there yet. Sets `float` to the experiment.
init_from() {
    local places=(--shards "$shards")
    float=$2
    if [[ ! $float ]]; then
        float=$(dirname -- "$dir")/$([[ $label != mini ]] || echo "${CORPUS}_")$1
    fi
    # Without --data, the other recipe uses data/mini too. Data without a root are prepared.
    if [[ $label != mini ]]; then
        places+=(--data "$data")
        [[ $root ]] || places+=(--stage $((stage > 1 ? stage : 1)))
    fi
    if [[ ! $init ]] && due 2 && { [[ ! -e $float/best.pt ]] || unfinished "$float"; }; then
        "${bound[@]}" bash "recipes/$CORPUS/$1.sh" --root "$root" ${more:+--more "$more"} --dir "$float" "${places[@]}" \
            --nj "$nj" --train-cmd "$train_cmd" --cpu-cmd "$cpu_cmd" --stop-stage 5
    fi
    init=${init:-$float/best.pt}
}

# average_into FOLDER CKPT...: FOLDER/best.pt, from which the next training starts, is the mean of the weights of init and of each CKPT.
average_into() {
    mkdir -p "$1/log"
    # shellcheck disable=SC2086
    ! due 2 || "${bound[@]}" $cpu_cmd "$1/log/mean.log" se-train average "$1/best.pt" "$init" "${@:2}" --valid "$valid"
    init=$1/best.pt
}

# run_averaged SHARE [KEY=VALUE...]: as run_stages, and best.pt is the mean of the weights before the training, DIR/last, and SHARE times
# those after it.
run_averaged() {
    local after=() i
    for ((i = 0; i < $1; i++)); do
        after+=("$dir/last/best.pt")
    done
    part "$dir/last" 0 2 "${@:2}"
    average_into "$dir" "${after[@]}"
    evaluate
}

prepare_stage() {
    log "stage 0: prepare $described"
    prepare
    se-prep check "$train" "$valid" "$test" --rate "$RATE" --jobs "$nj" > "$dir/check.tsv" || { log "$dir/check.tsv lists the faults"; exit 1; }
}

shard_stage() {
    log "stage 1: write shards"
    # shellcheck disable=SC2086
    "${bound[@]}" $cpu_cmd JOB=1:"$nj" "$dir/log/shards.JOB.log" se-prep shards "$train" "$shards" --rate "$RATE" --part JOB/"$nj"
}

# train_in DIR LOG INIT [KEY=VALUE...]: one training, on SETK_RANKS processes on each of SETK_NODES nodes.
train_in() {
    local trainer=(se-train)
    if ((${SETK_NODES:-1} > 1)); then
        trainer=(nodes.sh "${SETK_RANKS:-1}" "$python" -m setk train)
    elif ((${SETK_RANKS:-1} > 1)); then
        trainer=("$python" -P -m torch.distributed.run --standalone --nproc-per-node "$SETK_RANKS" -m setk train)
    fi
    # shellcheck disable=SC2086
    "${bound[@]}" $train_cmd "$2" "${trainer[@]}" "$conf" --train "$shards" --valid "$valid" --out "$1" ${3:+--init "$3"} "${@:4}" || {
        local code=$?
        ! grep -qs 'was begun with another value of' "$2" || log "a recipe has no --out and no --fresh; use another --dir"
        exit "$code"
    }
}

# training_settings [KEY=VALUE...]: sets `settings` to --set options: these, then those of data/mini, then the user's.
training_settings() {
    local mini=() user
    if [[ $label == mini ]]; then
        # 300 short steps: enough to see every stage work.
        read -ra mini <<< "batch=4 segment=1.0 steps=300 warmup=30 valid_every=100 save_every=50 workers=0 betas=[0.9,0.99] ${mini_set-}"
    fi
    read -ra user <<< "$set"
    settings=("$@" "${mini[@]}" "${user[@]}")
    settings=("${settings[@]/#/--set=}")
}

# A setting that does not exist stops the recipe here, and not after hours of stages 0 and 1.
check_settings() {
    local settings
    # data/mini takes seconds, and the training checks its settings itself.
    [[ $root && $stage -lt 2 ]] || return 0
    training_settings "$@"
    "$python" -P recipes/utils/resolved.py "$conf" "$init" "${settings[@]#--set=}" > /dev/null
}

train_stage() {
    local settings
    training_settings "$@"
    log "stage 2: train (progress in $dir/log/train.log; $dir/curves.png)"
    train_in "$dir" "$dir/log/train.log" "$init" "${settings[@]}"
}

# pruned_before FOLDER TRAINED MODEL WORD...: whether FOLDER/prune.tsv is there, of MODEL as it is now and by these options. Ends the
# recipe if it is of others and the training in TRAINED has begun from it.
pruned_before() {
    local how model=$3
    [[ -f $model ]] || model=setk/pretrained/$model.pt
    how="$(sha256sum < "$model" | cut -c 1-16) ${*:4}"
    if [[ -s $1/prune.tsv ]]; then
        [[ -e $1/prune.how && $(< "$1/prune.how") != "$how" ]] || return 0
        if [[ -e $2/resume.pt ]]; then
            log "$2: its training began from another model or other options of se-prune than ${*:3}; use another --dir"
            exit 2
        fi
    fi
    echo "$how" > "$1/prune.how"
    return 1
}

prune_stage() {
    local settings last
    log "stage 3: prune ($dir/prune.tsv) and train the pruned model (progress in $dir/log/tune.log)"
    # shellcheck disable=SC2086
    if ! pruned_before "$dir" "$dir/pruned" "$dir/best.pt" $prune; then
        head -n 32 "$valid/noisy.scp" > "$dir/prune.scp"
        # shellcheck disable=SC2086
        "${bound[@]}" $cpu_cmd "$dir/log/prune.log" to.sh "$dir/prune.tsv" se-prune "$dir/best.pt" "$dir/pruned.pt" \
            --list "$dir/prune.scp" --ref "$valid/clean.scp" $prune
    fi
    training_settings "$@"
    read -ra last <<< "${tune-} config=init"
    train_in "$dir/pruned" "$dir/log/tune.log" "$dir/pruned.pt" "${settings[@]}" "${last[@]/#/--set=}"
}

# Stages 4 to 6 for the model in dir.
evaluate() {
    ! due 4 || enhance_stage
    ! due 5 || score_stage
    ! due 6 || result_stage
}

# Whether the model in dir computes in 8 bits.
quantized() { [[ -e $dir/config.yaml ]] && ! grep -q '^quantization: null' "$dir/config.yaml"; }

# The file that runs: dir/NAME.onnx and, of a quantized model, dir/NAME.ts. A quantized model is compared with its file on speech. A few
# steps on data/mini leave ranges that fit few signals, so there is no limit there.
export_model() {
    local compared=()
    if quantized; then
        head -n 8 "$valid/noisy.scp" > "$dir/few.scp"
        compared=(--list "$dir/few.scp")
        [[ $label != mini ]] || compared+=(--min-snr -100)
        se-quant export "$dir/best.pt" "$dir/$NAME.ts" "${compared[@]}" 2>&1 | tee "$dir/log/torchscript.log" >&2
    fi
    se-quant export "$dir/best.pt" "$dir/$NAME.onnx" "${compared[@]}" 2>&1 | tee "$dir/log/export.log" >&2
}

# enhance_list MODEL DIR [OPTION...]: the noisy test set in DIR/enhanced, its list in DIR/enhanced.scp.
enhance_list() {
    # shellcheck disable=SC2086
    "${bound[@]}" $cpu_cmd JOB=1:"$nj" "$2/log/enhance.JOB.log" merge.sh JOB/"$nj" "$2/enhanced.scp" \
        se-enhance "$1" --list "$test/noisy.scp" --out "$2/enhanced" --part JOB/"$nj" "${@:3}"
    rm -f -- "$2"/enhanced.scp.*
}

enhance_stage() {
    log "stage 4: export and enhance"
    export_model
    if quantized; then
        # What is scored is what runs: the integer file, not its simulation.
        enhance_list "$dir/$NAME.onnx" "$dir"
        mkdir -p "$dir/torchscript/log"
        enhance_list "$dir/$NAME.ts" "$dir/torchscript" --trust
    else
        enhance_list "$dir/best.pt" "$dir"
    fi
}

# score_list LIST BASE [OPTION...]: BASE.tsv and BASE.json, the scores of LIST and their means; with --metrics, other ones.
# PESQ is defined at 16 kHz.
score_list() {
    local options=("${@:3}")
    [[ ! $at_rate ]] || options+=(--rate 16000)
    [[ " $* " == *' --metrics '* ]] || options+=(--metrics "$(paper_metrics)")
    [[ "${options[*]}" != *sdri* ]] || options+=(--noisy "$test/noisy.scp")
    se-score --ref "$test/clean.scp" "$1" --jobs "$nj" --summary "$2.json" "${options[@]}" > "$2.tsv"
}

score_stage() {
    log "stage 5: score, the noisy input first"
    local gate=()
    if [[ $noisy_gate == true ]]; then
        gate=(--expect "$(noisy_means)")
    fi
    score_list "$test/noisy.scp" "$dir/noisy" "${gate[@]}" || {
        [[ $noisy_gate != true ]] || log "noisy_gate: the noisy test set does not score as published; is $root complete?" \
            "--noisy-gate false continues without this check"
        exit 1
    }
    score_list "$dir/enhanced.scp" "$dir/enhanced"
    ! quantized || score_list "$dir/torchscript/enhanced.scp" "$dir/torchscript/enhanced"
}

result_stage() {
    log "stage 6: count and write RESULTS.md"
    count_model
    ! quantized || check_integers
    result_table > "$dir/RESULTS.md.tmp"
    mv "$dir/RESULTS.md.tmp" "$dir/RESULTS.md"
    log "wrote $dir/RESULTS.md"
    cat "$dir/RESULTS.md"
}

# Costs: of the network, with synaptic operations as measured on the noisy test set, and the bytes of the files that run.
count_model() {
    [[ -e $dir/$NAME.onnx ]] || export_model
    se-count "$dir/best.pt" --json --list "$test/noisy.scp" > "$dir/count.json"
    se-count "$dir/best.pt" --json --convention ptflops > "$dir/count.ptflops.json"
    se-count "$dir/$NAME.onnx" --json > "$dir/export.json"
    ! quantized || se-count "$dir/$NAME.ts" --json > "$dir/torchscript/export.json"
}

# The integer file in integer arithmetic alone against the checkpoint, on a few signals: dir/integers.tsv.
check_integers() {
    local limit=()
    [[ $label != mini ]] || limit=(--min-snr -100)
    se-quant check "$dir/best.pt" "$dir/$NAME.onnx" --list "$dir/few.scp" --ref "$valid/clean.scp" --metrics si_sdr --integer \
        "${limit[@]}" 2> "$dir/integers.log" > "$dir/integers.tsv" || { cat "$dir/integers.log" >&2; exit 1; }
}

# The published rows for this recipe, for se-score --published; empty for a corpus without them.
published_rows() {
    [[ ! -e recipes/$CORPUS/published.tsv ]] || awk -F '\t' -v name="$NAME" '
        NR == 1 || $1 == "all" || index("," $1 ",", "," name ",") { sub(/[^\t]*\t/, ""); print }' "recipes/$CORPUS/published.tsv"
}

# The metrics of a score table, with commas.
metrics_of() { # SCORES.tsv
    head -n 1 "$1" | tr '\t' , | sed 's/^utt,//; s/,error$//'
}

# The table of the noisy input, the model and the published rows, and the commands that compute each number.
result_table() {
    local about scored failed stft metrics systems clean noisy model onnx runs published=()
    clean=$(as_word "$test/clean.scp") noisy=$(as_word "$test/noisy.scp")
    model=$(as_word "$dir/best.pt") onnx=$(as_word "$dir/$NAME.onnx")
    runs=$model
    ! quantized || runs=$onnx
    metrics=$(metrics_of "$dir/noisy.tsv")
    [[ $metrics != *sdri* ]] || metrics+=" --noisy $noisy"
    about=$("$python" recipes/utils/figures.py "$dir")
    IFS=$'\t' read -r scored failed stft <<< "$about"
    systems=("noisy=$dir/noisy.tsv" "**${shown:-$NAME}, here**=$dir/enhanced.tsv,$dir/count.json,$dir/count.ptflops.json,$dir/export.json")
    ! quantized || systems+=("the same, $NAME.ts=$dir/torchscript/enhanced.tsv,$dir/count.json,$dir/count.ptflops.json,$dir/torchscript/export.json")
    published_rows > "$dir/published.tsv"
    [[ ! -s $dir/published.tsv ]] || published=(--published "$dir/published.tsv")
    echo "# ${shown:-$NAME} on $label"
    echo
    if [[ $label == mini ]]; then
        echo '**These are results on the embedded corpus (label mini): synthetic voices, a few minutes, a few steps of training.'
        echo 'They show that all stages run, and say nothing about the quality of the model.**'
        echo
    fi
    se-score --table md "${systems[@]}" "${published[@]}"
    cat <<END

$scored utterances of $label; means with their 95 % bootstrap interval over utterances. Bytes are those of the file that runs,
$NAME.onnx. The STFT takes another $stft. Rows without intervals are figures of their papers.
END
    ! quantized || cat <<END

The scores of "here" are those of the integer file: every convolution of $NAME.onnx computes from int8 weights and activations.
$NAME.ts simulates the same in float. By integer arithmetic alone, on $(wc -l < "$dir/few.scp") validation signals, against the checkpoint:

$(sed -n 's/^se-quant: \(.* over .*\)/    \1/p' "$dir/integers.log")
END
    ((failed == 0)) || printf '\n**%d utterances failed.**\n' "$failed"
    cat <<END

These commands compute each number:

    se-score --ref $clean $noisy --metrics $metrics --summary noisy.json
    se-enhance $runs --list $noisy --out enhanced | se-score --ref $clean - --metrics $metrics --summary enhanced.json
    se-count $model --json --list $noisy
    se-count $onnx --json
    se-count $model --json --convention ptflops
END
}

# As a shell reads it: quoted only where it must be.
as_word() {
    if [[ $1 =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]]; then
        echo "$1"
    else
        echo "${1@Q}"
    fi
}

# by_snr SYSTEM=SCORES.tsv...: a section of RESULTS.md: output SI-SDR by that of the input. Systems without scores are left out.
by_snr() {
    due 6 || return 0
    local system systems=("noisy=$dir/noisy.tsv")
    for system; do
        [[ ! -e ${system#*=} ]] || systems+=("$system")
    done
    {
        printf '\n## Output SI-SDR in dB, by that of the input\n\n'
        se-score --table md --metrics si_sdr --by "$dir/noisy.tsv:si_sdr" --bins -6,0,6,12,18 "${systems[@]}"
    } | tee -a "$dir/RESULTS.md"
}

# A section of RESULTS.md: synaptic operations as measured on the noisy test set, and published rows.
operations() {
    due 6 || return 0
    "$python" recipes/utils/operations.py "$(cat recipes/ndns/operations.md)" < "$dir/count.json" | tee -a "$dir/RESULTS.md"
}

# suppression_curve: a section of RESULTS.md: quality against synaptic operations, as the threshold of the readout rises.
suppression_curve() {
    due 6 || return 0
    local threshold at systems=()
    for threshold in 0 0.25 0.5 0.75 1; do
        at=$dir/suppression/$threshold
        mkdir -p "$at"
        se-enhance "$dir/best.pt" --set suppression=$threshold --list "$test/noisy.scp" --out "$at/enhanced" --jobs "$nj" > "$at/enhanced.scp"
        score_list "$at/enhanced.scp" "$at/scores"
        se-count "$dir/best.pt" --set suppression=$threshold --list "$test/noisy.scp" --json > "$at/count.json"
        systems+=("$threshold=$at/scores.tsv,$at/count.json")
    done
    {
        printf '\n## Quality against synaptic operations, by the threshold of the readout\n\n'
        se-score --table md --metrics pesq_wb,stoi,si_sdr "${systems[@]}"
    } | tee -a "$dir/RESULTS.md"
}
