#!/usr/bin/env bash
# nodes.sh RANKS PYTHON ARG…: in a Slurm job, run PYTHON -m torch.distributed.run ARG… once on each node, with RANKS processes each.
# They meet at the first node. A signal for the ranks is one for the steps of the job: scancel --signal=TERM JOBID.
set -euo pipefail
(($# >= 3)) || { echo "usage: nodes.sh RANKS PYTHON ARG…, in a job of slurm.sh --nodes N" >&2; exit 2; }
[[ ${SLURM_JOB_NODELIST-} ]] || { echo "nodes.sh: not in a job of Slurm; start it by slurm.sh --nodes N" >&2; exit 2; }
ranks=$1 python=$2
shift 2
# The address that Slurm itself uses: the resolver need not know the name of a node.
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(scontrol -o show node "$first" | sed 's/.* NodeAddr=\([^ ]*\) .*/\1/')
# One port for all nodes, another for each job, and none that systems choose for outgoing connections.
port=$((20000 + SLURM_JOB_ID % 10000))
# When one node has failed, the ranks of the others report it and end. Those that do not, as they compute or wait without the network,
# get SIGTERM after SETK_WAIT seconds, and 30 s later torchrun kills them: with the default all ends within a minute.
# shellcheck disable=SC2016  # the number of a node is known on the node
exec srun --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=0 --wait="${SETK_WAIT:-20}" \
    bash -c 'exec "$0" -P -m torch.distributed.run --node-rank "$SLURM_NODEID" "$@"' "$python" \
    --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node "$ranks" --master-addr "$address" --master-port "$port" --max-restarts 0 "$@"
