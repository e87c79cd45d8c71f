# shellcheck shell=bash
# shellcheck disable=SC2034
# Sourced by a recipe as `recipe.sh CORPUS NAME "$@"`: reads its options, finds its folders, and defines run_stages.
#
# Every lower-case variable set before parse_options.sh is an option, those that the recipe sets first included. A line
# `name=value  # meaning` is also the option's line of --help. STAGES lists the stages of a recipe that has others than these.
set -euo pipefail
CORPUS=$1 NAME=$2 RECIPE=$(readlink -f -- "$0")
shift 2
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
. recipes/path.sh
. recipes/cmd.sh

if [[ $NAME == prepare ]]; then
    STAGES='0 prepare, 1 shards'
else
    STAGES=${STAGES:-0 prepare, 1 shards, 2 train, 4 enhance, 5 score, 6 count and RESULTS.md}
fi

RATE=16000
[[ $NAME != *_48k ]] || RATE=48000
ROOT=${CORPUS^^}_ROOT
root=${!ROOT:-}                # folder of the corpus; empty: a small embedded or generated one
if [[ $CORPUS == open ]]; then
    more=${OPEN_MORE:-}        # second corpus: adds its speech; its noises, which are longer, replace those of the root
fi
dir=                           # experiment: models, scores and logs; default exp/CORPUS/NAME, or exp/mini/...
data=                          # data directories; default exp/CORPUS/data
shards=                        # shards; default exp/CORPUS/shards, which the recipes of a corpus share
if [[ -v conf ]]; then
    conf=${conf:-}             # config of the training
    init=                      # checkpoint or included model to start from
    noisy_gate=false           # stop unless the noisy test set scores as published
    [[ $CORPUS != vbd ]] || noisy_gate=true
fi
set=                           # space-separated KEY=VALUE, on top of the config
stage=${STAGES%% *}            # first stage to run
stop_stage=${STAGES##*, }      # last stage to run
stop_stage=${stop_stage%% *}
nj=2                           # parallel jobs of every stage but training

# The comment at the head of the recipe, and a line for each option.
describe_recipe() {
    local line name seen=' '
    sed -n '2,/^[^#]/ { /shellcheck/d; s/^# \{0,1\}//p; }' "$RECIPE"
    echo
    echo 'Options and their values; --config FILE, a shell file of such settings, is read first:'
    while IFS= read -r line; do
        [[ $line =~ ^[[:space:]]*([a-z_]+)=.*[[:space:]]'# '(.*)$ ]] || continue
        name=${BASH_REMATCH[1]}
        [[ -v $name && $seen != *" $name "* ]] || continue
        seen+="$name "
        printf '  %-32s %s\n' "--${name//_/-} ${!name@Q}" "${BASH_REMATCH[2]}"
    done < <(cat -- "$RECIPE" recipes/utils/recipe.sh recipes/cmd.sh)
    printf '\nStages: %s.\n' "$STAGES"
}
for _word; do
    [[ $_word != --help && $_word != -h ]] || help_message=$(describe_recipe)
done
# The path of --config is relative to the folder where the user started, as others are.
cd -- "$OLDPWD"
. "$SETK_ROOT/recipes/utils/parse_options.sh"
cd -- "$SETK_ROOT"
(($# == 0)) || { echo "${0##*/}: $1 is not an option; did you mean --root $1?" >&2; exit 2; }
for word in stage stop_stage nj; do
    [[ ${!word} =~ ^[0-9]+$ ]] || { echo "${0##*/}: --${word/_/-} ${!word}: must be a whole number" >&2; exit 2; }
done
nj=$((10#$nj)) stage=$((10#$stage)) stop_stage=$((10#$stop_stage))
((nj > 0)) || { echo "${0##*/}: --nj 0: must be at least 1" >&2; exit 2; }
((stage <= stop_stage)) || { echo "${0##*/}: --stage $stage comes after --stop-stage $stop_stage; the stages are $STAGES" >&2; exit 2; }

((stop_stage > stage)) || [[ ", $STAGES" == *", $stage "* ]] ||
    { echo "${0##*/}: --stage $stage: there is no such stage; the stages are $STAGES" >&2; exit 2; }

train_cmd=${cmd:-$train_cmd} cpu_cmd=${cmd:-$cpu_cmd}
for word in train_cmd cpu_cmd; do
    read -r launcher _ <<< "${!word}"
    command -v -- "$launcher" > /dev/null ||
        { [[ ! $cmd ]] || word=cmd; echo "${0##*/}: --${word/_/-} ${!word}: no such launcher; give one such as run.sh or slurm.sh" >&2; exit 2; }
done
# Launchers end with the recipe, also where a signal ends it alone: bash would leave them running.
bound=()
! setpriv --pdeathsig TERM true 2>/dev/null || bound=(setpriv --pdeathsig TERM)

# In a config, lists of words may have line breaks.
for word in set tune prune models; do
    [[ ! -v $word ]] || printf -v "$word" %s "${!word//$'\n'/ }"
done

. recipes/utils/user_paths.sh
user_paths root more dir data shards clean noise out table float grid
user_files conf init model variants
user_words models
user_teacher set tune prune
# Launchers replace JOB, by which the jobs of a stage differ, wherever it is.
for word in root more dir data shards; do
    [[ ${!word-} != *JOB* ]] || { echo "${0##*/}: --$word ${!word}: a path with JOB in it cannot be used; rename it" >&2; exit 2; }
done
for word in clean noise; do
    [[ ! ${!word-} || $root ]] || { echo "${0##*/}: --$word needs --root, the folder to write" >&2; exit 2; }
done

# Without a root: data/mini, which runs all stages in about two minutes; prepare.sh, and recipes at another rate than data/mini, get
# a small generated tree of the corpus.
label=$CORPUS
at_rate=
((RATE == 16000)) || at_rate=_$((RATE / 1000))k
described="$CORPUS in $root"
mini_note="NO CORPUS ROOT GIVEN (--root, or $ROOT):"
if [[ $root || ( $data && $NAME != prepare && ! $at_rate ) ]]; then
    ((stage > 0)) || [[ $root ]] ||
        { echo "${0##*/}: --data $data: stage 0 prepares it from --root, which is missing; data that are prepared begin at --stage 1" >&2; exit 2; }
    [[ ! $root || -d $root || ${clean-} ]] || { echo "${0##*/}: --root $root: no such directory" >&2; exit 2; }
    data=${data:-exp/$CORPUS/data${at_rate}}
    shards=${shards:-exp/$CORPUS/shards${at_rate}}
elif [[ $NAME == prepare || $at_rate ]]; then
    label=mini
    described="a generated tree, as no root was given (--root, or $ROOT)"
    echo "${0##*/}: $mini_note preparing a small generated tree of $CORPUS's layout; it says nothing about quality" >&2
    dir=${dir:-exp/mini/${NAME}_$CORPUS}
    noisy_gate=false
    data=${data:-$dir/data} shards=${shards:-$dir/shards}
else
    label=mini
    described="data/mini, as no root was given (--root, or $ROOT)"
    [[ ! -v conf ]] || echo "${0##*/}: $mini_note running on the embedded data/mini; its results are labelled mini and say nothing about quality" >&2
    # A model that is trained on several corpora has a config for each, and all of them run here.
    [[ $CORPUS == vbd ]] || dir=${dir:-exp/mini/${CORPUS}_$NAME}
    noisy_gate=false
    data=data/mini
fi
dir=${dir:-exp/$label/$NAME}
shards=${shards:-exp/$label/shards}
train=$data/train valid=$data/valid test=$data/test

. recipes/utils/corpus.sh
. recipes/utils/stages.sh
