#!/usr/bin/env bash
# run.sh [options] [JOB=1:n] LOG PROG ARG…: run jobs on this machine, --max-jobs at a time. --help lists the options.
set -euo pipefail
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=recipes/utils/launch.sh
source "$here/launch.sh"

empty_logs
if [[ -z $max_jobs ]]; then
    # nproc obeys OMP_NUM_THREADS, which path.sh sets to 1.
    max_jobs=$(($(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) / threads))
    ((max_jobs > 0)) || max_jobs=1
fi

# shellcheck disable=SC2317  # launch.sh calls it
cancel() {
    local pids
    mapfile -t pids < <(jobs -rp)
    ((${#pids[@]} > 0)) || return 0
    # Each also by its own number: it may not lead its group yet.
    pids+=("${pids[@]/#/-}")
    kill -TERM -- "${pids[@]}" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do
        [[ $(jobs -rp) ]] || break
        sleep 0.1
    done
    kill -KILL -- "${pids[@]}" 2>/dev/null || true
}

for i in "${jobs[@]}"; do
    while mapfile -t running < <(jobs -rp) && ((${#running[@]} >= max_jobs)); do
        wait -n || true
    done
    log_of "$i"
    # setsid makes each job a process group, so that a stop reaches all that the job has started.
    setsid "$here/job.sh" "$threads" "$name" "$i" "$@" </dev/null >>"$REPLY" 2>&1 &
done
wait
verdict
