# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154
# Sourced after corpus.sh by a recipe whose model is trained in several parts.
given=$init

# earlier NAME CONF [KEY=VALUE...]: a training before the last, in dir/NAME; what follows begins from its best. With an init of
# the user's own there is nothing earlier.
earlier() {
    [[ ! $given ]] || return 0
    local conf=$2
    part "$dir/$1" 0 2 "${@:3}"
    init=$dir/$1/best.pt stage=$((stage > 2 ? stage : 2))
}
