# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Sourced as `corpus.sh DATASET PAPER` after the options: says which corpus a recipe runs on, and how it is prepared.
# Without a root it is data/mini, which runs every stage in about two minutes and says nothing of quality; a prepare.sh
# has a small tree of the corpus's layout made instead, so that its preparation runs as well.
dataset=$1
paper=$2

# Recipes run in the checkout; what the user named relative to where they stood is still meant.
if [[ $OLDPWD != "$PWD" ]]; then
    for name in root more dir data shards clean noise out table float; do
        [[ -z ${!name-} || ${!name} == /* ]] || printf -v "$name" %s "$OLDPWD/${!name}"
    done
fi

if [[ ! $root && $paper == prepare ]]; then
    label=mini
    corpus="a generated tree, as no root was given (--root, or ${dataset^^}_ROOT)"
    echo "${0##*/}: NO CORPUS ROOT GIVEN: preparing a small generated tree of $dataset's layout; it says nothing of quality" >&2
    dir=${dir:-exp/mini/prepare_$dataset}
    root=$dir/tree
    data=${data:-$dir/data} shards=${shards:-$dir/shards}
    train=$data/train valid=$data/valid test=$data/test
    prepare() {
        bin/setup
        .venv/bin/python -P data/mini/trees.py "$dataset" "$root"
        clean=$root/sources/clean noise=$root/sources/noise clips=4,2,2 "prepare_$dataset"
    }
elif [[ $root ]]; then
    label=$dataset
    [[ -d $root || ${clean-} ]] || { echo "${0##*/}: --root $root: no such directory" >&2; exit 2; }
    corpus="$dataset in $root"
    data=${data:-exp/$dataset/data}
    train=$data/train valid=$data/valid test=$data/test
    prepare() { "prepare_$dataset"; }
    train_set=()
else
    label=mini
    corpus="data/mini, as no root was given (--root, or ${dataset^^}_ROOT)"
    echo "${0##*/}: NO CORPUS ROOT GIVEN: running on the embedded data/mini; its results are labelled mini and say nothing of quality" >&2
    train=data/mini/train valid=data/mini/valid test=data/mini/test
    prepare() { :; }
    # 300 short steps: enough to see every stage work. The recipe of a slow model sets mini_steps before this is sourced.
    train_set=(batch=4 segment=1.0 steps="${mini_steps:-300}" warmup=30 valid_every=100 save_every=50 workers=0 'betas=[0.9,0.99]')
    noisy_gate=false
    # A paper on several corpora has a conf for each, and all of them run here.
    [[ $dataset == vbd ]] || dir=${dir:-exp/mini/${dataset}_$paper}
fi
dir=${dir:-exp/$label/$paper}
shards=${shards:-exp/$label/shards}
read -ra settings <<< "$set"
train_set+=("${settings[@]}")

# part DIR FIRST LAST [KEY=VALUE...]: those stages among FIRST ... LAST that are due, in DIR, with these settings before the user's.
part() {
    local dir=$1 stage=$((stage > $2 ? stage : $2)) stop_stage=$((stop_stage < $3 ? stop_stage : $3))
    local -a train_set=("${@:4}" ${train_set[@]+"${train_set[@]}"})
    . recipes/utils/stages.sh
}

prepare_vbd() { by_jobs se-prep vbd "$root" "$data"; }

# Of a tree of wavs; or of LibriSpeech, wham_noise and metadata/Libri2Mix, whose mixtures are then made as they are read.
prepare_librimix() {
    if [[ -d $root/LibriSpeech ]]; then
        se-prep librimix "$root/metadata/Libri2Mix" "$data" --librispeech "$root/LibriSpeech" --wham "$root/wham_noise" --jobs "$nj"
    else
        se-prep librimix "$root" "$data" --jobs "$nj"
    fi
}

# Of a tree, which is made first where the recipe has set clean, noise and clips.
prepare_ndns() {
    if [[ ${clean-} ]]; then
        local made=(se-prep ndns "$root" "$data" --clean "$clean" --noise "$noise" --clips)
        # The sources are shared out once, before many jobs would each look at all of them.
        "${made[@]}" 0,0,0 --shard 1/1
        by_jobs "${made[@]}" "$clips"
    else
        se-prep ndns "$root" "$data" --jobs "$nj"
    fi
}

# The wavs by nj jobs, then the lists by one.
by_jobs() { # PROG ARG…
    # shellcheck disable=SC2086
    $cpu_cmd JOB=1:"$nj" "$dir/log/prepare.JOB.log" "$@" --shard JOB/"$nj"
    "$@" --jobs "$nj"
}

# The lists of an open corpus, relative to its folder, as data directories with paths that hold from here.
prepare_open() {
    local part kind folder
    for part in valid test; do
        mkdir -p "$data/$part"
        for kind in noisy clean; do
            under "$root" "$root/lists/${part}_$kind.scp" > "$data/$part/$kind.scp"
        done
    done
    mkdir -p "$data/train"
    # Ids of two sources may meet: each gets its source's mark.
    {
        under "$root" "$root/lists/speech_train.scp" | sed 's/^/a_/'
        [[ ! $more ]] || under "$more" "$more/lists/speech_train.scp" | sed 's/^/b_/'
    } | sort > "$data/train/speech.scp"
    folder=${more:-$root}
    under "$folder" "$folder/lists/noise_train.scp" | sort > "$data/train/noise.scp"
    # Kinds and rooms, where the corpus has them.
    [[ ! -e $folder/lists/noise2kind ]] || sort "$folder/lists/noise2kind" > "$data/train/noise2kind"
    [[ ! -s $root/lists/rir_train.scp ]] || under "$root" "$root/lists/rir_train.scp" | sort > "$data/train/rir.scp"
}

under() { # FOLDER LIST: the list, its paths led by FOLDER
    awk -v folder="$1/" '{ i = index($0, " "); print substr($0, 1, i) folder substr($0, i + 1) }' "$2"
}
