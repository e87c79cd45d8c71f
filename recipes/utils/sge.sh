#!/usr/bin/env bash
# sge.sh [options] [JOB=1:n] LOG PROG ARG…: run jobs as arrays of Grid Engine. --help lists the options.
# SETK_QSUB holds further options of qsub, such as those of the site: SETK_QSUB="-q all.q -P speech".
set -euo pipefail
# shellcheck source=recipes/utils/cluster.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/cluster.sh"

request=(-terse -cwd -j y)
((threads == 1)) || request+=(-pe smp "$threads")
[[ -z $mem ]] || request+=(-l "mem_free=$mem,h_vmem=$mem")
[[ -z $time ]] || request+=(-l "h_rt=$time")
((${gpu:-0} == 0)) || request+=(-l "gpu=$gpu")
[[ -z $max_jobs || -z $name ]] || request+=(-tc "$max_jobs")

# shellcheck disable=SC2317,SC2034  # cluster.sh calls these
{
    # An array of Grid Engine is one range of jobs; --pick may choose several.
    array_option() {
        range=()
        [[ -z $name ]] || range=(-t "$1")
    }

    cancel() {
        ids=("${ids[@]%%.*}")
        cancel_qsub
    }

    look() {
        local all one
        all=$(qstat 2>&1) || { left="qstat: $all" && return 1; }
        left=
        for one in "${ids[@]}"; do
            left+=$(awk -v id="${one%%.*}" '$1 == id { print $1, $5 }' <<< "$all")
        done
    }

    held() {
        [[ ! $left =~ \ [a-zA-Z]*[hE] ]] || echo "Grid Engine holds some of job ${ids[*]}: see qstat -j; run qmod -cj or qrls, or stop this"
    }
}
qsub_jobs SGE_TASK_ID "$@"
await
