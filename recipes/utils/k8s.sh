#!/usr/bin/env bash
# k8s.sh --image IMAGE --volume CLAIM:PATH [options] [JOB=1:n] LOG PROG ARG…: run jobs as one indexed Job of Kubernetes (1.24 or newer).
# --help lists the options. SETK_K8S holds options too: SETK_K8S="--image registry/setk --volume speech:/data".
#
# The checkout, the current folder, the log and all data are in the volumes, at the same paths as here. Pods run as the user who
# starts this. kubectl chooses cluster and namespace.
set -euo pipefail
read -ra site <<< "${SETK_K8S-}"
set -- "${site[@]}" "$@"
# shellcheck source=recipes/utils/cluster.sh
source "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/cluster.sh"

command -v kubectl >/dev/null || die "no kubectl on this machine; use run.sh, or install it"
[[ $image ]] || die "needs --image IMAGE, a container image with bash and what PROG needs (or SETK_K8S=\"--image IMAGE\")"
((${#volumes[@]} > 0)) || die "needs --volume CLAIM:PATH, which holds $PWD (or SETK_K8S=\"--volume CLAIM:PATH\")"

# A string of YAML, which JSON is.
quoted() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    [[ $text != *[$'\n\t']* ]] || die "$1: a path in a manifest cannot have a tab or a line break"
    REPLY="\"$text\""
}

# Print the manifest of the job `id`, which runs the file SCRIPT.
manifest() { # SCRIPT
    local i number=${#jobs[@]} unit script folder picture
    quoted "$1" && script=$REPLY
    quoted "$PWD" && folder=$REPLY
    quoted "$image" && picture=$REPLY
    cat <<END
apiVersion: batch/v1
kind: Job
metadata:
  name: $id
spec:
  completionMode: Indexed
  completions: $number
  parallelism: ${max_jobs:-$number}
  # A job that failed has its code in its log, and its pod succeeds. Only pods that were evicted run again.
  backoffLimit: $number
  ttlSecondsAfterFinished: 86400
  template:
    spec:
      restartPolicy: Never
END
    if [[ $time ]]; then
        echo "      activeDeadlineSeconds: $seconds"
    fi
    cat <<END
      securityContext: {runAsUser: $(id -u), runAsGroup: $(id -g)}
      containers:
        - name: job
          image: $picture
          command: ["/bin/bash", $script]
          workingDir: $folder
          resources:
            limits:
              cpu: "$threads"
END
    if [[ $mem ]]; then
        unit=${mem##*[0-9]}
        echo "              memory: ${mem%"$unit"}${unit:+${unit^}i}"
    fi
    ((${gpu:-0} == 0)) || echo "              nvidia.com/gpu: $gpu"
    echo "          volumeMounts:"
    for i in "${!volumes[@]}"; do
        quoted "${volumes[i]#*:}"
        echo "            - {name: volume$i, mountPath: $REPLY}"
    done
    echo "      volumes:"
    for i in "${!volumes[@]}"; do
        echo "        - {name: volume$i, persistentVolumeClaim: {claimName: ${volumes[i]%%:*}}}"
    done
}

# What a pod does before job.sh: the number of its job from its index, and the environment of a recipe. Kubernetes signals only the
# first process of a pod, so `run` passes the signal on. Only a pod that was stopped before its job ended fails. That a program failed
# or was killed is in the log; pods that fail for that reason would soon reach backoffLimit, which ends the other jobs too.
before=$(
    # shellcheck disable=SC2016  # for the shell of the pod
    printf 'numbers=(%s)\nK8S_JOB=${numbers[JOB_COMPLETION_INDEX]-}\n' "${jobs[*]}"
    for variable in LC_ALL PYTHONUNBUFFERED OMP_NUM_THREADS "${!SETK_@}"; do
        [[ ! -v $variable ]] || printf 'export %s=%q\n' "$variable" "${!variable}"
    done
    cat <<'END'
[[ ! ${SETK_ROOT-} ]] || export PATH=$SETK_ROOT/bin:$SETK_ROOT/recipes/utils:$PATH
run() {
    local code stopped=
    "$@" &
    trap "stopped=true; kill -USR2 $!" TERM
    wait $!
    code=$?
    while kill -0 $! 2>/dev/null; do
        wait $!
        code=$?
    done
    [[ ! $stopped ]] || ((code <= 1))
}
END
    echo
)$'\n'
run=run

# shellcheck disable=SC2317,SC2034  # cluster.sh calls these
{
    cancel() {
        [[ ! $submitted ]] || kubectl delete job "$id" --wait=false >/dev/null || true
    }

    look() {
        local ended
        if ended=$(kubectl get job "$id" -o 'jsonpath={.status.conditions[?(@.status=="True")].type}' 2>&1); then
            left=$id
            [[ ! $ended =~ Complete|Failed ]] || left=
        elif [[ $ended == *NotFound* ]]; then
            left=
        else
            left="kubectl: $ended"
            return 1
        fi
    }

    # Reasons why pods do not start, such as an image that cannot be pulled.
    held() {
        local reasons
        reasons=$(kubectl get pods -l "job-name=$id" -o \
            'jsonpath={range .items[*]}{.status.conditions[?(@.status=="False")].message} {.status.containerStatuses[*].state.waiting.message}{"\n"}{end}' \
            2>/dev/null | grep -iE 'unschedulable|insufficient|available|pull|image' | head -n 1)
        [[ ! $reasons ]] || echo "Kubernetes cannot start some pods of job $id: $reasons; see kubectl describe job $id"
    }
}

empty_logs
program=$(basename -- "${1##*/}" | tr -cd 'a-zA-Z0-9-' | tr '[:upper:]' '[:lower:]')
id=setk-${program:0:30}-$$-$RANDOM submitted=
folder=$(realpath -m -- "$(dirname -- "$log")")/q
script=$folder/$id.sh
# shellcheck disable=SC2064
trap "rm -f -- ${script@Q} ${script@Q}.yaml" EXIT
write_script "$script" K8S_JOB "$@"
manifest "$script" > "$script.yaml"
submitted=true
(trap '' INT && exec kubectl create -f "$script.yaml" >/dev/null) || { submitted='' && die "kubectl refused the job"; }
await
