#!/usr/bin/env bash
# pbs.sh [options] [JOB=1:n] LOG PROG ARG…: run jobs as arrays of PBS (OpenPBS, PBS Pro). --help lists the options.
# SETK_QSUB holds further options of qsub, such as those of the site: SETK_QSUB="-q workq -A speech".
set -euo pipefail
# shellcheck source=recipes/utils/cluster.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/cluster.sh"

request=(-j oe -l "select=1:ncpus=$threads${mem:+:mem=${mem}b}$( ((${gpu:-0} == 0)) || echo ":ngpus=$gpu")")
[[ -z $time ]] || request+=(-l "walltime=$time")

# shellcheck disable=SC2317,SC2034  # cluster.sh calls these
{
    # An array of PBS is one range of two jobs or more; --pick may choose several, and single jobs.
    array_option() {
        range=()
        [[ $1 != *-* ]] || range=(-J "$1${max_jobs:+%$max_jobs}")
    }

    cancel() { cancel_qsub; }

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
        [[ ! $left =~ \ H ]] || echo "PBS holds some of job ${ids[*]}: see qstat -f; run qrls, or stop this"
    }
}
qsub_jobs PBS_ARRAY_INDEX "$@"
await
