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
    settle=0.5
fi
[[ -z $name ]] || set -- "${@//$name/$index}"

# A job that was stopped must not look as if it had ended, whatever its program does with the signal.
stopped=
trap 'stopped=129' HUP
trap 'stopped=130' INT
trap 'stopped=143' TERM

line=
for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=,@%+-]+$ ]] || word=${word@Q}
    line+=" $word"
done
printf '#%s\n# Started at %(%a %b %d %H:%M:%S %Z %Y)T\n# Host %s\n#\n' "$line" -1 "$HOSTNAME"

SECONDS=0
# By exec, since PROG is a program, never a shell builtin such as exit.
(exec "$@")
code=$?
[[ $settle == 0 ]] || sleep "$settle"
[[ -z $stopped ]] || exit "$stopped"

# If the program did not end its last line, the trailer still starts on a line of its own.
log=/proc/$$/fd/1
if [[ -f $log && $(tail -c 1 "$log" | tr '\0' x) ]]; then
    echo
fi
printf '# Accounting: time=%d threads=%d\n' "$SECONDS" "$threads"
printf '# Ended (code %d) at %(%a %b %d %H:%M:%S %Z %Y)T, elapsed time %d seconds\n' "$code" -1 "$SECONDS"
((code == 0))
