#!/usr/bin/env bash
# job.sh THREADS NAME INDEX PROG ARG…: one job of run.sh or slurm.sh; its standard output is the log. NAME (mostly JOB)
# becomes INDEX in PROG and ARG; INDEX is the word slurm where Slurm runs the job and knows its place in the array.
# Slurm runs a copy of this file from its spool, so it must need no other.
set -uo pipefail

threads=$1
name=$2
index=$3
shift 3
settle=0
if [[ $index == slurm ]]; then
    index=${SLURM_ARRAY_TASK_ID-}
    # To cancel, Slurm signals one process after the other; our turn may come when the program is already gone.
    settle=0.5
fi
[[ -z $name ]] || set -- "${@//$name/$index}"

# A job that was told to stop must not look as if it had ended, whatever its program makes of the signal.
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

# A program that did not end its last line must not swallow the trailer's first.
log=/proc/$$/fd/1
if [[ -f $log && $(tail -c 1 "$log" | tr '\0' x) ]]; then
    echo
fi
printf '# Accounting: time=%d threads=%d\n' "$SECONDS" "$threads"
printf '# Ended (code %d) at %(%a %b %d %H:%M:%S %Z %Y)T, elapsed time %d seconds\n' "$code" -1 "$SECONDS"
((code == 0))
