# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Sourced as `corpus.sh DATASET PAPER` after the options: says which corpus a recipe runs on, and how it is prepared.
# Without a root it is data/mini, which runs every stage in about two minutes and says nothing of quality.
dataset=$1
paper=$2

# Recipes run in the checkout; what the user named relative to where they stood is still meant.
if [[ $OLDPWD != "$PWD" ]]; then
    for name in root more dir data shards; do
        [[ -z ${!name-} || ${!name} == /* ]] || printf -v "$name" %s "$OLDPWD/${!name}"
    done
fi

if [[ $root ]]; then
    label=$dataset
    [[ -d $root ]] || { echo "${0##*/}: --root $root: no such directory" >&2; exit 2; }
    corpus="$dataset in $root"
    data=${data:-exp/$dataset/data}
    train=$data/train valid=$data/valid test=$data/test
    prepare() { "prepare_$dataset"; }
    train_set=()
else
    label=mini
    corpus='data/mini, as no root was given (--root, or VBD_ROOT)'
    echo "${0##*/}: NO CORPUS ROOT GIVEN: running on the embedded data/mini; its results are labelled mini and say nothing of quality" >&2
    train=data/mini/train valid=data/mini/valid test=data/mini/test
    prepare() { :; }
    # 300 short steps: enough to see every stage work.
    train_set=(batch=4 segment=1.0 steps=300 warmup=30 valid_every=100 save_every=50 workers=0 'betas=[0.9,0.99]')
    noisy_gate=false
fi
dir=${dir:-exp/$label/$paper}
shards=${shards:-exp/$label/shards}
read -ra settings <<< "$set"
train_set+=("${settings[@]}")

prepare_vbd() { se-prep vbd "$root" "$data" --jobs "$nj"; }

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
}

under() { # FOLDER LIST: the list, its paths led by FOLDER
    awk -v folder="$1/" '{ i = index($0, " "); print substr($0, 1, i) folder substr($0, i + 1) }' "$2"
}
