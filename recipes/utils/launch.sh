# shellcheck shell=bash
# What the launchers share, sourced by each: their command line, the choice of the jobs, the wait for them and the verdict.
# The contract is that of Kaldi's run.pl: LAUNCHER [options] [JOB=1:n] LOG PROG ARG…

me=${0##*/}
usage="usage: $me [options] [JOB=1:n] LOG PROG ARG…

Run PROG once, or n times with JOB in LOG and in each ARG replaced by 1 … n. What PROG prints is written to LOG.

Options:
  --max-jobs N, --max-jobs-run N, -tc N  Run at most N jobs at the same time.
  --pick all|failed|incomplete           Run again only the jobs whose log ends with a nonzero code (failed), or also those
                                         that never ended (incomplete).
  --threads N, --num-threads N           Threads of each job.
  --mem 4G                               Memory of each job, with its unit: K, M, G or T.
  --gpu N                                GPUs of each job.
  --time 1:00:00                         Time limit of each job: H:M:S, or D-H:M:S with days.
  --shell                                Evaluate PROG ARG… in bash, as run.pl does: the words |, >, && and ; have their meaning.
                                         Without it, PROG is started with exactly these arguments.
  --config FILE                          Accepted for scripts written for Kaldi, and not read.
  --nodes N                              With slurm.sh: nodes of each job, for nodes.sh or srun.
  --signal TERM@90                       With slurm.sh: send PROG a TERM 90 s before the time limit. PROG saves and ends.
  --requeue                              With slurm.sh: queue the job again when PROG ends with a nonzero code after that TERM.
  --image IMAGE                          With k8s.sh: the container image of the jobs.
  --volume CLAIM:PATH                    With k8s.sh: mount a volume claim at PATH; may be repeated.

--mem, --gpu and --time have no effect in run.sh. Options may also follow JOB=1:n."

die() {
    echo "$me: $1" >&2
    exit 2
}

# shellcheck disable=SC2034  # some are for the launchers of clusters only
max_jobs='' pick=all mem='' gpu='' threads=1 time='' shell='' nodes='' signal='' requeue='' image='' volumes=()
name='' jobs=('')
while (($# > 0)); do
    case $1 in
        --help | -h)
            echo "$usage"
            exit 0
            ;;
        --max-jobs | --max-jobs-run | -tc)
            [[ ${2-} =~ ^[1-9][0-9]*$ ]] || die "$1 ${2-}: not a number of jobs, 1 or more"
            # Given twice, the smaller number holds, as in Kaldi.
            [[ $max_jobs ]] && ((max_jobs <= $2)) || max_jobs=$2
            shift 2
            ;;
        --signal=*)
            set -- --signal "${1#*=}" "${@:2}"
            ;;
        --pick | --mem | --gpu | --threads | --num-threads | --time | --nodes | --signal | --image)
            [[ $# -ge 2 && ${2-} && $2 != --* ]] || die "$1 needs a value"
            option=${1#--}
            printf -v "${option#num-}" %s "$2"
            shift 2
            ;;
        --volume)
            [[ ${2-} =~ ^[a-z0-9.-]+:/.*$ ]] || die "--volume ${2-}: write CLAIM:PATH, as in corpora:/data"
            volumes+=("$2")
            shift 2
            ;;
        --shell | --requeue)
            printf -v "${1#--}" true
            shift
            ;;
        --config)
            [[ ${2-} && $2 != --* ]] || die "$1 needs a value"
            echo "$me: --config $2: not read; variables set the options of a site: SBATCH_PARTITION and the others of sbatch for" \
                "slurm.sh, SETK_QSUB for sge.sh and pbs.sh, SETK_K8S for k8s.sh" >&2
            shift 2
            ;;
        --*=*) die "$1: write it as two words: ${1%%=*} ${1#*=}" ;;
        -*) die "unknown option $1; --help lists them" ;;
        *)
            [[ ! $name && $1 =~ ^([A-Za-z_][A-Za-z0-9_]*)=([0-9]+)(:([0-9]+))?$ ]] || break
            name=${BASH_REMATCH[1]}
            first=$((10#${BASH_REMATCH[2]}))
            last=$((10#${BASH_REMATCH[4]:-$first}))
            ((first <= last)) || die "$1: no job in that range; write $name=1:n with n at least 1"
            mapfile -t jobs < <(seq "$first" "$last")
            shift
            ;;
    esac
done
[[ $threads =~ ^[1-9][0-9]*$ ]] || die "--threads $threads: not a number of threads, 1 or more"
[[ $gpu =~ ^[0-9]*$ ]] || die "--gpu $gpu: not a number of GPUs"
# A plain number would be bytes for one scheduler and megabytes or minutes for another.
[[ $mem =~ ^([0-9]+[KMGTkmgt])?$ ]] || die "--mem $mem: not a size such as 4G"
[[ $time =~ ^(([0-9]+-)?[0-9]+(:[0-9]+){1,2}|[0-9]+-[0-9]+)?$ ]] || die "--time $time: write H:M:S, or D-H:M:S with days"
if [[ $time ]]; then
    # As Slurm writes it: M:S, H:M:S, D-H, D-H:M or D-H:M:S. Others have no days.
    days=0 clock=0:$time
    [[ $time != *-* ]] || days=${time%%-*} clock=${time#*-}:0:0
    [[ $time != *:*:* || $time == *-* ]] || clock=$time
    IFS=: read -r hours minutes secs _ <<< "$clock"
    seconds=$((((10#$days * 24 + 10#$hours) * 60 + 10#$minutes) * 60 + 10#$secs))
    printf -v time '%d:%02d:%02d' $((seconds / 3600)) $((seconds / 60 % 60)) $((seconds % 60))
fi
[[ $nodes =~ ^([1-9][0-9]*)?$ ]] || die "--nodes $nodes: not a number of nodes, 1 or more"
[[ $signal =~ ^(TERM@[1-9][0-9]*)?$ ]] || die "--signal $signal: write TERM@SECONDS, as in TERM@90"
[[ ! $nodes$signal$requeue || $me == slurm.sh ]] || die "--nodes, --signal and --requeue are for slurm.sh; remove them"
[[ ! $image${volumes[*]-} || $me == k8s.sh ]] || die "--image and --volume are for k8s.sh; remove them"
[[ $pick =~ ^(all|failed|incomplete)$ ]] || die "--pick $pick: choose all, failed or incomplete"

(($# >= 2)) || die "needs a log and a program; --help shows how"
log=$1
shift
((${#jobs[@]} == 1)) || [[ $log == *"$name"* ]] ||
    die "$log: ${#jobs[@]} jobs would write that one log; put $name into its name"

# Words without white space are code for bash, the others are arguments: as run.pl does.
if [[ $shell ]]; then
    line=
    for word; do
        if [[ $word =~ ^[^[:space:]]+$ ]]; then
            line+="$word "
        elif [[ $word == *\"* ]]; then
            line+="'$word' "
        else
            line+="\"$word\" "
        fi
    done
    set -- bash -c "$line"
fi

log_of() { REPLY=${log//"$name"/$1}; }

# Sets code to what a log ends with: nothing where its job never ended.
code_of() {
    local line
    log_of "$1"
    code=
    { line=$(tail -n 1 -- "$REPLY"); } 2>/dev/null || return 0
    [[ ! $line =~ ^'# Ended (code '([0-9]+)') at ' ]] || code=${BASH_REMATCH[1]}
}

if [[ $pick != all ]]; then
    all=("${jobs[@]}") jobs=() passed=()
    for i in "${all[@]}"; do
        code_of "$i"
        if [[ $code == 0 ]]; then
            :
        elif [[ $code || $pick == incomplete ]]; then
            jobs+=("$i")
        else
            passed+=("$i")
        fi
    done
    ((${#passed[@]} == 0)) ||
        echo "$me: --pick failed skips ${#passed[@]} jobs that never ended, log is in ${log//"$name"/"*"};" \
            "--pick incomplete reruns them too" >&2
    ((${#jobs[@]} > 0)) || exit 0
fi

# Called by each launcher when it can start jobs, and before it starts any: the trailer of an earlier run must not be read as that
# of a job that has not run yet. A job that still runs, such as one whose launcher was killed, holds a lock on its log (job.sh).
empty_logs() {
    local rc
    for i in "${jobs[@]}"; do
        log_of "$i"
        [[ -f $REPLY && -s $REPLY ]] || continue
        # Of a job that was just stopped, the last process may need a moment to end. Where there are no locks, the code is another one.
        rc=0
        flock -x -w 1 -E 75 -- "$REPLY" true 2>/dev/null || rc=$?
        ((rc != 75)) || die "$REPLY: a job that is still running writes that log; wait for its end, or stop it (fuser lists its processes)"
    done
    for i in "${jobs[@]}"; do
        log_of "$i"
        [[ $REPLY != */* || -d ${REPLY%/*} ]] || mkdir -p -- "${REPLY%/*}" || exit 2
        : >"$REPLY" || die "$REPLY: cannot write that log"
    done
}

# Each launcher defines how it ends its jobs.
cancel() { :; }

stop() {
    trap '' HUP INT TERM
    cancel
    echo "$me: stopped; --pick incomplete runs the rest" >&2
    # By the signal itself, so that the recipe that called this stops too.
    trap - "$1"
    kill -s "$1" $$
}
trap 'stop HUP' HUP
trap 'stop INT' INT
trap 'stop TERM' TERM

# Exit as the logs show: 0 if every job ended with code 0.
verdict() {
    local failed=() which='' said
    for i in "${jobs[@]}"; do
        code_of "$i"
        [[ $code == 0 ]] || failed+=("$i")
    done
    ((${#failed[@]} > 0)) || exit 0
    [[ -z $name ]] || which=" (job ${failed[*]:0:10}$( ((${#failed[@]} <= 10)) || echo ' …')); --pick incomplete reruns those"
    echo "$me: ${#failed[@]} / ${#jobs[@]} failed, log is in ${log//"$name"/"*"}$which" >&2
    log_of "${failed[0]}"
    said=$(tail -n 20 -- "$REPLY" | grep -av '^#' | tail -n 1 | tr -d '\0')
    [[ -z $said ]] || echo "$REPLY: $said" >&2
    exit 1
}
