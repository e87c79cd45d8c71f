# shellcheck shell=bash
# What run.sh and slurm.sh share, sourced by both: their command line, the choice of the jobs, the verdict.

me=${0##*/}
usage="usage: $me [--max-jobs N] [--pick all|failed|incomplete] [--mem 4G] [--gpu N] [--threads N] [--time 1:00:00]
           [JOB=1:n] LOG PROG ARG…
runs PROG once, or n times with JOB in LOG and in each ARG replaced by 1 … n; what PROG prints goes into LOG.
--pick failed reruns only jobs whose log ends with a nonzero code, incomplete those too that never ended.
PROG is started as it stands, without a shell: for a pipe, PROG is bash -c '… | …'."

die() {
    echo "$me: $1" >&2
    exit 2
}

# shellcheck disable=SC2034  # time and its like are for slurm.sh
max_jobs='' pick=all mem='' gpu='' threads=1 time=''
while (($# > 0)); do
    case $1 in
        --help | -h)
            echo "$usage"
            exit 0
            ;;
        --max-jobs | --pick | --mem | --gpu | --threads | --time)
            [[ $# -ge 2 && ${2-} && $2 != --* ]] || die "$1 needs a value"
            option=${1#--}
            printf -v "${option//-/_}" %s "$2"
            shift 2
            ;;
        --*=*) die "$1: write it as two words: ${1%%=*} ${1#*=}" ;;
        -*) die "unknown option $1; --help lists them" ;;
        *) break ;;
    esac
done
[[ $max_jobs =~ ^([1-9][0-9]*)?$ ]] || die "--max-jobs $max_jobs: not a number of jobs, 1 or more"
[[ $threads =~ ^[1-9][0-9]*$ ]] || die "--threads $threads: not a number of threads, 1 or more"
[[ $gpu =~ ^[0-9]*$ ]] || die "--gpu $gpu: not a number of GPUs"
[[ $mem =~ ^([0-9]+[KMGTkmgt]?)?$ ]] || die "--mem $mem: not a size such as 4G"
[[ $pick =~ ^(all|failed|incomplete)$ ]] || die "--pick $pick: choose all, failed or incomplete"

name='' jobs=('')
if [[ ${1-} =~ ^([A-Za-z_][A-Za-z0-9_]*)=([0-9]+)(:([0-9]+))?$ ]]; then
    name=${BASH_REMATCH[1]}
    first=$((10#${BASH_REMATCH[2]}))
    last=$((10#${BASH_REMATCH[4]:-$first}))
    ((first <= last)) || die "$1: no job in that range; write $name=1:n with n at least 1"
    mapfile -t jobs < <(seq "$first" "$last")
    shift
fi
(($# >= 2)) || die "needs a log and a program; --help says how"
log=$1
shift
((${#jobs[@]} == 1)) || [[ $log == *"$name"* ]] ||
    die "$log: ${#jobs[@]} jobs would write that one log; put $name into its name"

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
        echo "$me: --pick failed passes over ${#passed[@]} jobs that never ended, log is in ${log//"$name"/"*"};" \
            "--pick incomplete reruns them too" >&2
    ((${#jobs[@]} > 0)) || exit 0
fi

# Emptied before anything starts: an old trailer would speak for a job that has yet to run.
for i in "${jobs[@]}"; do
    log_of "$i"
    [[ $REPLY != */* || -d ${REPLY%/*} ]] || mkdir -p -- "${REPLY%/*}" || exit 2
    : >"$REPLY" || die "$REPLY: cannot write that log"
done

# Each launcher says how it ends its jobs.
cancel() { :; }

stop() {
    trap '' HUP INT TERM
    cancel
    echo "$me: stopped; --pick incomplete runs what is left" >&2
    # By the signal itself, so that the recipe above us stops too.
    trap - "$1"
    kill -s "$1" $$
}
trap 'stop HUP' HUP
trap 'stop INT' INT
trap 'stop TERM' TERM

# Ends this script by what the logs say.
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
