#!/usr/bin/env bash
# slurm.sh [options] [JOB=1:n] LOG PROG ARG…: run jobs as one Slurm array. --help lists the options.
# Options of a site are set by sbatch's own variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_QOS …
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck disable=SC2034
site_options="SBATCH_PARTITION, SBATCH_ACCOUNT and the other variables of sbatch set the options of a site"
# shellcheck source=recipes/utils/launch.sh
source "$here/launch.sh"

command -v sbatch >/dev/null || die "no sbatch on this machine; use run.sh, or log in to a node of the cluster"
[[ $log != *\\* ]] || die "$log: Slurm cannot write a log whose name has a backslash"
empty_logs

output=${log//%/%%}
request=(--parsable --export=ALL --open-mode=append --input=/dev/null --cpus-per-task="$threads" --ntasks=1)
if [[ $name ]]; then
    output=${output//"$name"/%a}
    # 1-4,7: Slurm refuses a long list of single numbers.
    spans=()
    for i in "${jobs[@]}"; do
        if ((${#spans[@]} > 0)) && ((i == ${spans[-1]#*-} + 1)); then
            spans[-1]=${spans[-1]%-*}-$i
        else
            spans+=("$i")
        fi
    done
    request+=(--array="$(IFS=, && echo "${spans[*]}")${max_jobs:+%$max_jobs}")
fi
request+=(--job-name="$(basename -- "${1##*/}")" --output="$output")
[[ -z $mem ]] || request+=(--mem="$mem")
[[ -z $time ]] || request+=(--time="$time")
((${gpu:-0} == 0)) || request+=(--gres=gpu:"$gpu")

id=
# shellcheck disable=SC2317  # launch.sh calls it
cancel() {
    [[ -z $id ]] || scancel -- "$id" || true
}

# Ignores Ctrl-C: without its number, a submitted job could not be cancelled.
id=$(trap '' INT && exec sbatch "${request[@]}" "$here/job.sh" "$threads" "$name" @SLURM_ARRAY_TASK_ID "$@") || die "sbatch refused the job"
id=${id%%;*}

all_ended() {
    for i in "${jobs[@]}"; do
        code_of "$i"
        [[ $code ]] || return 1
    done
}

warn() {
    [[ $warned == *"$1"* ]] || echo "$me: $1" >&2
    warned+=$1
}

warned=
for ((poll = 0; ; poll++)); do
    if left=$(squeue --noheader --format='%i %r' --jobs="$id" 2>&1); then
        [[ $left ]] || break
        # Only the user can end this wait.
        [[ ! $left =~ [Hh]eld|NeverSatisfied ]] ||
            warn "Slurm holds back some of job $id: see squeue -j $id; scontrol release $id, or stop this"
    elif [[ $left == *"Invalid job id"* ]] || all_ended; then
        break # Slurm has forgotten it, so it ended long ago.
    else
        warn "squeue: ${left##*$'\n'}; still waiting for job $id"
    fi
    pause=0.5
    ((poll < 60)) || pause=5
    # In the background, since a trap waits for the foreground.
    sleep "$pause" &
    wait $!
done

# A shared file system may show a trailer some time after its job has left the queue.
for ((poll = 0; poll < 10; poll++)); do
    all_ended && break
    sleep 0.5
done
verdict
