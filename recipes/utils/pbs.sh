#!/usr/bin/env bash
# pbs.sh [options] [JOB=1:n] LOG PROG ARG…: run jobs as arrays of PBS (OpenPBS, PBS Pro). --help lists the options.
# SETK_QSUB holds further options of qsub, such as those of the site: SETK_QSUB="-q workq -A speech".
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck disable=SC2034  # launch.sh prints it
site_options="SETK_QSUB holds the options of a site, as in SETK_QSUB='-q workq -A speech'"
# shellcheck source=recipes/utils/launch.sh
source "$here/launch.sh"
# shellcheck source=recipes/utils/cluster.sh
source "$here/cluster.sh"

command -v qsub >/dev/null || die "no qsub on this machine; use run.sh, or log in to a node of the cluster"
empty_logs
script=$(dirname -- "$log")/q/$(basename -- "${log//"$name"/all}").$$.sh
write_script "$script" PBS_ARRAY_INDEX "$@"
read -ra request <<< "${SETK_QSUB-}"
request+=(-V -S /bin/bash -j oe -o /dev/null -N "$(basename -- "${1##*/}")")
request+=(-l "select=1:ncpus=$threads${mem:+:mem=${mem}b}$( ((${gpu:-0} == 0)) || echo ":ngpus=$gpu")")
[[ -z $time ]] || request+=(-l "walltime=$time")

ids=()
cancel() {
    ((${#ids[@]} == 0)) || qdel "${ids[@]}" >/dev/null || true
    rm -f -- "$script"
}
trap 'rm -f -- "$script"' EXIT

# An array of PBS is one range of two jobs or more; --pick may choose several.
find_spans
for span in "${spans[@]}"; do
    range=()
    [[ $span != *-* ]] || range=(-J "$span${max_jobs:+%$max_jobs}")
    # Ignores Ctrl-C: without its number, a submitted job could not be cancelled.
    one=$(trap '' INT && SETK_JOB=$span exec qsub "${request[@]}" ${range[@]+"${range[@]}"} "$script") || { cancel; die "qsub refused the job"; }
    ids+=("$one")
done
id=${ids[*]}

look() {
    local one all
    left=
    for one in "${ids[@]}"; do
        if all=$(qstat "$one" 2>&1); then
            left+=$(awk 'NR > 2 { print $1, $5 }' <<< "$all")
        elif [[ $all != *"Unknown Job"* && $all != *"has finished"* ]]; then
            left="qstat: $all"
            return 1
        fi
    done
}

held() {
    [[ ! $left =~ \ H ]] || echo "PBS holds some of job $id: see qstat -f $id; run qrls $id, or stop this"
}
await
