#!/usr/bin/env bash
# job.sh THREADS NAME INDEX PROG ARG…: one job of a launcher; its standard output is the log. NAME (usually JOB) becomes INDEX in
# PROG and ARG. INDEX @VARIABLE is the value of a variable that the scheduler sets, such as SLURM_ARRAY_TASK_ID.
# Slurm runs a copy of this file from its spool directory, so it must not need another file.
set -uo pipefail

threads=$1
name=$2
index=$3
shift 3
settle=0
if [[ $index == @* ]]; then
    index=${index#@}
    index=${!index-}
    # To cancel, a scheduler signals one process after the other; the program may have ended before this script gets its signal.
    settle=1
fi
[[ -z $name ]] || set -- "${@//$name/$index}"

# A job that was stopped must not look as if it had ended, whatever its program does with the signal.
stopped=
trap 'stopped=129' HUP
trap 'stopped=130' INT
trap 'stopped=143' TERM

# What slurm.sh has Slurm send before the time limit: USR1 for a job to be requeued, USR2 for one that is not. The program gets TERM.
signals=0
requeue=
trap 'requeue=yes; end_program' USR1
trap 'stopped=143; end_program' USR2
end_program() {
    signals=$((signals + 1))
    if [[ $program == srun || $program == nodes.sh ]]; then
        # srun would not pass it on, but kill what it started.
        scancel --signal=TERM "$SLURM_JOB_ID"
    else
        kill -TERM "$child" 2>/dev/null
    fi
}
program=${1##*/}

# A lock on the log while the program, or what it started, has it open: launchers do not empty it then. Some systems have no locks.
log=/proc/$$/fd/1
[[ ! -f $log ]] || flock -x -w 10 1 2>/dev/null

line=
for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+=" $word"
done
printf '#%s\n# Started at %(%a %b %d %H:%M:%S %Z %Y)T\n# Host %s\n#\n' "$line" -1 "$HOSTNAME"

SECONDS=0
# By exec, since PROG is a program, never a shell builtin such as exit. In the background, since a trap waits for the foreground.
(exec "$@") &
child=$!
while :; do
    before=$signals$stopped
    wait "$child"
    code=$?
    # A trap interrupts the wait.
    [[ $before != "$signals$stopped" ]] || break
done
[[ $settle == 0 ]] || sleep "$settle"
[[ -z $stopped ]] || exit "$stopped"

# If the program did not end its last line, the trailer still starts on a line of its own.
if [[ -f $log && $(tail -c 1 "$log" | tr '\0' x) ]]; then
    echo
fi
if [[ $requeue && $code != 0 ]]; then
    printf '# Requeued at %(%a %b %d %H:%M:%S %Z %Y)T, elapsed time %d seconds\n' -1 "$SECONDS"
    scontrol requeue "$SLURM_JOB_ID" && exit "$code"
fi
printf '# Accounting: time=%d threads=%d\n' "$SECONDS" "$threads"
printf '# Ended (code %d) at %(%a %b %d %H:%M:%S %Z %Y)T, elapsed time %d seconds\n' "$code" -1 "$SECONDS"
# Also where something that the program started still has the log open.
[[ ! -f $log ]] || flock -u 1 2>/dev/null
((code == 0))
