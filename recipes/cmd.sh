# shellcheck shell=bash
# shellcheck disable=SC2034
# Sourced by every recipe: the launchers of its jobs. SETK_CMD=run (the default) is this machine; slurm, sge, pbs and k8s are clusters.
# Options of a site are set by sbatch's own variables (SBATCH_PARTITION, SBATCH_ACCOUNT), for Grid Engine and PBS by SETK_QSUB, for
# Kubernetes by SETK_K8S. Training asks for SETK_GPU GPUs, 1 by default. With SETK_NODES=n it runs on n nodes of Slurm, SETK_RANKS
# processes on each; a training that reaches the time limit is queued again.
# For more, give the recipe a launcher with its options: --train-cmd "slurm.sh --gpu 4 --mem 64G --time 48:00:00", or one of
# Kaldi's: --cmd "queue.pl --mem 4G".
cmd=                           # launcher of all jobs, in place of the two below
case ${SETK_CMD:-run} in
    run)
        train_cmd=run.sh       # launcher of the training
        cpu_cmd=run.sh         # launcher of everything else
        ;;
    slurm)
        train_cmd="slurm.sh --gpu ${SETK_GPU:-1} --nodes ${SETK_NODES:-1} --requeue"
        cpu_cmd=slurm.sh
        ;;
    sge | pbs | k8s)
        train_cmd="$SETK_CMD.sh --gpu ${SETK_GPU:-1}"
        cpu_cmd=$SETK_CMD.sh
        ;;
    *)
        echo "cmd.sh: SETK_CMD=$SETK_CMD: choose run, slurm, sge, pbs or k8s" >&2
        exit 2
        ;;
esac
