#!/usr/bin/env bash
# slurm.sh [options] [JOB=1:n] LOG PROG ARG…: as run.sh, but the jobs are one Slurm array. --help tells the rest.
# What a site wants besides goes by sbatch's own variables: SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_QOS …
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=recipes/utils/launch.sh
source "$here/launch.sh"

command -v sbatch >/dev/null || die "no sbatch on this machine; use run.sh, or log in to a node of the cluster"
[[ $log != *\\* ]] || die "$log: Slurm cannot write a log whose name has a backslash"

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

# Deaf to Ctrl-C: a job that got through must be known by its number, or nothing could cancel it.
id=$(trap '' INT && exec sbatch "${request[@]}" "$here/job.sh" "$threads" "$name" slurm "$@") || die "sbatch refused the job"
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
        # Nothing but a person ends this wait.
        [[ ! $left =~ [Hh]eld|NeverSatisfied ]] ||
            warn "Slurm holds back some of job $id: see squeue -j $id; scontrol release $id, or stop this"
    elif [[ $left == *"Invalid job id"* ]] || all_ended; then
        break # Slurm has forgotten it, so it is long done.
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
