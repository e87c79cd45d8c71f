# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Sourced after corpus.sh by a recipe whose model is trained in several parts.

# earlier NAME CONF [KEY=VALUE...]: a training before the last, in dir/NAME; what follows begins from its best. With an init of
# the user's own there is nothing earlier.
earlier() {
    [[ ! $init || $init == "$dir"/*/best.pt ]] || return 0
    local name=$1 conf=$2
    local -a last=("${train_set[@]+"${train_set[@]}"}")
    shift 2
    train_set=("$@" ${last[@]+"${last[@]}"})
    _train_part "$dir/$name"
    train_set=(${last[@]+"${last[@]}"})
    init=$dir/$name/best.pt stage=$((stage > 2 ? stage : 2))
}

_train_part() {
    local dir=$1 stop_stage=$((stop_stage < 2 ? stop_stage : 2))
    . recipes/utils/stages.sh
}
