#!/usr/bin/env bash
# sge.sh [options] [JOB=1:n] LOG PROG ARG…: run jobs as arrays of Grid Engine. --help lists the options.
# SETK_QSUB holds further options of qsub, such as those of the site: SETK_QSUB="-q all.q -P speech".
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck disable=SC2034  # launch.sh prints it
site_options="SETK_QSUB holds the options of a site, as in SETK_QSUB='-q all.q -P speech'"
# shellcheck source=recipes/utils/launch.sh
source "$here/launch.sh"
# shellcheck source=recipes/utils/cluster.sh
source "$here/cluster.sh"

command -v qsub >/dev/null || die "no qsub on this machine; use run.sh, or log in to a node of the cluster"
empty_logs
script=$(dirname -- "$log")/q/$(basename -- "${log//"$name"/all}").$$.sh
write_script "$script" SGE_TASK_ID "$@"
read -ra request <<< "${SETK_QSUB-}"
request+=(-terse -V -cwd -S /bin/bash -j y -o /dev/null -N "$(basename -- "${1##*/}")")
((threads == 1)) || request+=(-pe smp "$threads")
[[ -z $mem ]] || request+=(-l "mem_free=$mem,h_vmem=$mem")
[[ -z $time ]] || request+=(-l "h_rt=$time")
((${gpu:-0} == 0)) || request+=(-l "gpu=$gpu")
[[ -z $max_jobs || -z $name ]] || request+=(-tc "$max_jobs")

ids=()
cancel() {
    ((${#ids[@]} == 0)) || qdel "${ids[@]}" >/dev/null || true
    rm -f -- "$script"
}
trap 'rm -f -- "$script"' EXIT

# An array of Grid Engine is one range; --pick may choose several.
find_spans
for span in "${spans[@]}"; do
    range=()
    [[ -z $name ]] || range=(-t "$span")
    # Ignores Ctrl-C: without its number, a submitted job could not be cancelled.
    one=$(trap '' INT && exec qsub "${request[@]}" ${range[@]+"${range[@]}"} "$script") || { cancel; die "qsub refused the job"; }
    ids+=("${one%%.*}")
done
id=${ids[*]}

look() {
    local all one
    all=$(qstat 2>&1) || { left="qstat: $all" && return 1; }
    left=
    for one in "${ids[@]}"; do
        left+=$(awk -v id="$one" '$1 == id { print $1, $5 }' <<< "$all")
    done
}

held() {
    [[ ! $left =~ \ [a-zA-Z]*[hE] ]] || echo "Grid Engine holds some of job $id: see qstat -j $id; run qmod -cj or qrls, or stop this"
}
await
