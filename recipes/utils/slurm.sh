#!/usr/bin/env bash
# slurm.sh [options] [JOB=1:n] LOG PROG ARG…: run jobs as one Slurm array. --help lists the options.
# Options of a site are set by sbatch's own variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_QOS …
set -euo pipefail
# shellcheck source=recipes/utils/cluster.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/cluster.sh"

command -v sbatch >/dev/null || die "no sbatch on this machine; use run.sh, or log in to a node of the cluster"
[[ $log != *\\* ]] || die "$log: Slurm cannot write a log whose name has a backslash"
empty_logs

output=${log//%/%%}
request=(--parsable --export=ALL --open-mode=append --input=/dev/null --cpus-per-task="$threads" --ntasks="${nodes:-1}")
if [[ $name ]]; then
    output=${output//"$name"/%a}
    find_spans
    request+=(--array="$(IFS=, && echo "${spans[*]}")${max_jobs:+%$max_jobs}")
fi
request+=(--job-name="$(basename -- "${1##*/}")" --output="$output")
# Not for one node: srun would not run several tasks there.
((${nodes:-1} == 1)) || request+=(--nodes="$nodes" --ntasks-per-node=1)
[[ -z $mem ]] || request+=(--mem="$mem")
[[ -z $time ]] || request+=(--time="$time")
# job.sh gets it in place of the program: USR1 has it queue the job again.
seconds=${signal#*@}
if [[ $requeue ]]; then
    request+=(--requeue --signal="B:USR1@${seconds:-90}")
elif [[ $signal ]]; then
    request+=(--signal="B:USR2@$seconds")
fi
((${gpu:-0} == 0)) || request+=(--gres=gpu:"$gpu")

id=
# shellcheck disable=SC2317  # launch.sh calls it
cancel() {
    [[ -z $id ]] || scancel -- "$id" || true
}

look() {
    left=$(squeue --noheader --format='%i %r' --jobs="$id" 2>&1) && return
    # Slurm forgets a job that ended long ago.
    [[ $left != *"Invalid job id"* ]] || { left='' && return; }
    left="squeue: $left"
    return 1
}

held() {
    [[ ! $left =~ [Hh]eld|NeverSatisfied ]] ||
        echo "Slurm holds some of job $id: see squeue -j $id; run scontrol release $id, or stop this"
}

# Ignores Ctrl-C: without its number, a submitted job could not be cancelled.
id=$(trap '' INT && exec sbatch "${request[@]}" "$here/job.sh" "$threads" "$name" @SLURM_ARRAY_TASK_ID "$@") || die "sbatch refused the job"
id=${id%%;*}
await
