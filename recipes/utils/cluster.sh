# shellcheck shell=bash
# shellcheck disable=SC2154
# Sourced by the launchers of clusters: launch.sh, ranges of jobs, submission by qsub, and the wait for what was submitted.
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
# shellcheck source=recipes/utils/launch.sh
source "$here/launch.sh"

# The chosen jobs as ranges, 1-4 and 7, in `spans`: schedulers refuse long lists of single numbers.
find_spans() {
    local i
    spans=()
    for i in "${jobs[@]}"; do
        if ((${#spans[@]} > 0)) && ((i == ${spans[-1]#*-} + 1)); then
            spans[-1]=${spans[-1]%-*}-$i
        else
            spans+=("$i")
        fi
    done
}

# Write the script of a scheduler whose jobs have no arguments. The job's number is in VARIABLE, or in SETK_JOB where there is no
# array. The script opens the log itself, since such schedulers write their own only when the job has ended. A launcher may set
# `before`, lines that come first, and `run`, the word before the command.
before='' run=exec
write_script() { # FILE VARIABLE PROG ARG…
    local file=$1 variable=$2
    shift 2
    mkdir -p -- "$(dirname -- "$file")"
    {
        printf '#!/bin/bash\ncd %q || exit 1\n%s' "$PWD" "$before"
        # Grid Engine sets the variable to "undefined" in a job without an array.
        # shellcheck disable=SC2016
        printf '[[ ! ${%s-} =~ ^[0-9]+$ ]] || SETK_JOB=$%s\nexport SETK_JOB\nlog=%q\n' "$variable" "$variable" "$log"
        # shellcheck disable=SC2016
        [[ -z $name ]] || printf 'log=${log//%s/$SETK_JOB}\n' "$name"
        # shellcheck disable=SC2016
        printf 'exec >>"$log" 2>&1 </dev/null\n%s' "$run"
        printf ' %q' "$here/job.sh" "$threads" "$name" @SETK_JOB "$@"
        echo
    } >"$file"
}

# Empty the logs and submit the chosen jobs by qsub, with the options in `request` and what the launcher's array_option sets as
# `range` for a span. Sets `ids`, which the launcher's stop deletes. VARIABLE holds a job's number.
ids=()
qsub_jobs() { # VARIABLE PROG ARG…
    local site span range one script
    command -v qsub >/dev/null || die "no qsub on this machine; use run.sh, or log in to a node of the cluster"
    empty_logs
    script=$(dirname -- "$log")/q/$(basename -- "${log//"$name"/all}").$$.sh
    # shellcheck disable=SC2064
    trap "rm -f -- ${script@Q}" EXIT
    write_script "$script" "$@"
    read -ra site <<< "${SETK_QSUB-}"
    request+=(-V -S /bin/bash -o /dev/null -N "$(basename -- "${2##*/}")")
    find_spans
    for span in "${spans[@]}"; do
        array_option "$span"
        # Ignores Ctrl-C: without its number, a submitted job could not be cancelled.
        one=$(trap '' INT && SETK_JOB=$span exec qsub "${site[@]}" "${request[@]}" "${range[@]}" "$script") || { cancel; die "qsub refused the job"; }
        ids+=("$one")
    done
}

cancel_qsub() {
    ((${#ids[@]} == 0)) || qdel "${ids[@]}" >/dev/null || true
}

all_ended() {
    local i
    for i in "${jobs[@]}"; do
        code_of "$i"
        [[ $code ]] || return 1
    done
}

warned=
warn() {
    [[ $warned == *"$1"* ]] || echo "$me: $1" >&2
    warned+=$1
}

# Wait until no job is queued, then exit with the verdict. The launcher defines
#   look   set `left` to what the scheduler lists of the jobs (empty: nothing); fail, with the reason in `left`, if it does not answer
#   held   from the text in `left`, print what only the user can release
await() {
    local poll pause text
    for ((poll = 0; ; poll++)); do
        if look; then
            [[ $left ]] || break
            text=$(held)
            [[ ! $text ]] || warn "$text"
        elif all_ended; then
            break
        else
            warn "${left##*$'\n'}; still waiting for job ${id:-${ids[*]}}"
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
}
