"""The processes of one training: alone, or as many as torchrun or srun started (DDP; NCCL on GPUs, gloo on CPUs).

What is decided, is decided by all ranks in the same way from numbers that all have: a collective that only some reach would
hang. A batch of the config is that of one optimizer step over all ranks, so their number changes no number but by
rounding; statistics of BatchNorm are those of all ranks together.
"""

from __future__ import annotations

import gc
import os
import re
import subprocess
import warnings
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from setk.core.errors import UserError

# The scores of a validation are waited for; PESQ of one rank's share may take that much longer than another's.
PATIENCE = timedelta(hours=1)


class Ranks:
    """This process among `world` ones: its `rank`, its `device`, and what they do together."""

    def __init__(self, device: torch.device, rank: int = 0, world: int = 1):
        self.device, self.rank, self.world = device, rank, world

    @property
    def first(self) -> bool:
        return self.rank == 0

    def total(self, x: Tensor) -> Tensor:
        """The sum of `x` over all ranks, the same on each."""
        if self.world == 1:
            return x
        x = x.to(self.device)
        dist.all_reduce(x)
        return x

    def any(self, flag: bool) -> bool:
        """Whether `flag` is set on any rank."""
        return flag if self.world == 1 else bool(self.total(torch.tensor(float(flag))).item())

    def parallel(self, module: nn.Module) -> nn.Module:
        """`module` with the gradients of all ranks averaged; itself if there is one rank."""
        if self.world == 1:
            return module
        share_statistics(module, self.world)
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # torch 2.13 gives the option another name, which those before it do not know.
            warnings.simplefilter("ignore", FutureWarning)
            # Buffers are equal on all ranks already, and need not be sent round before every step.
            return DistributedDataParallel(module, device_ids=ids, broadcast_buffers=False)

    def local(self, module: nn.Module) -> AbstractContextManager:
        """A context in which the gradients of `module`, from `parallel`, stay on their rank."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


class RankLost(Exception):
    """Another process of the training is gone."""


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether a collective failed for the other side: torch raises a class of its own only where NCCL or the store reports it."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the other ranks, if there are any; `device` is auto, cpu or cuda."""
    if "WORLD_SIZE" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        _read_slurm()
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    chosen = pick_device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Ranks(chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(chosen, rank, world)
    except RuntimeError as e:
        if _is_lost_connection(e):
            raise RankLost(
                f"rank {rank}: lost the connection to another rank, which was killed or failed; "
                "the same command continues from the last state that was saved"
            ) from e
        raise
    # Not on the way of an exception: it would wait for ranks that may never come. What still holds on to the group, as DDP
    # does, would have gloo's threads outlive it, and abort the interpreter at its end.
    gc.collect()
    dist.destroy_process_group()


def _read_slurm() -> None:
    """Translate srun's variables of a task to torchrun's. A signal then reaches the ranks themselves, and their
    exit code is the job's; torchrun's own is 1 after any signal."""
    first = _scontrol("show", "hostnames", os.environ["SLURM_STEP_NODELIST"]).split()[0]
    # The address that Slurm itself uses: the resolver need not know the name of a node.
    address = re.search(r" NodeAddr=(\S+)", _scontrol("--oneliner", "show", "node", first))
    port = 20000 + int(os.environ["SLURM_JOB_ID"]) % 10000  # as in nodes.sh
    os.environ |= {
        "WORLD_SIZE": os.environ["SLURM_STEP_NUM_TASKS"],
        "RANK": os.environ["SLURM_PROCID"],
        "LOCAL_RANK": os.environ["SLURM_LOCALID"],
        "MASTER_ADDR": address[1] if address else first,
        "MASTER_PORT": str(port),
    }


def _scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True).stdout


def pick_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; of several GPUs the one of this rank."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise UserError(f"device '{name}' is unknown; auto, cpu or cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UserError("device cuda: no GPU is to be seen here; use device=cpu")
        if device.index is None:
            device = torch.device("cuda", local_rank)
        if device.index >= torch.cuda.device_count():
            raise UserError(
                f"device {device}: this machine shows {torch.cuda.device_count()} GPUs; start one rank for each"
            )
    return device


class _Mean(torch.autograd.Function):
    """Mean over ranks, with its gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, world: int) -> Tensor:
        ctx.world = world
        x = x / world
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        grad = grad / ctx.world
        dist.all_reduce(grad)
        return grad, None


class SharedBatchNorm(_BatchNorm):
    """BatchNorm over the batches of all ranks, of equal size. torch's SyncBatchNorm does this on GPUs only."""

    world: int

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # any number of dimensions: batch, channels, ...

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        dims, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
        wide = x.float()  # under autocast too, as in torch's own
        mean = _Mean.apply(wide.mean(dims), self.world)
        centred = wide - mean.view(shape)
        variance = _Mean.apply(centred.square().mean(dims), self.world)
        count = self.world * x.numel() // x.shape[1]
        with torch.no_grad():
            self._track(mean, variance * (count / (count - 1)))
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics; without a momentum they are means over all batches."""
        if not self.track_running_stats:
            return
        self.num_batches_tracked.add_(1)
        part = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, part)
        self.running_var.lerp_(variance, part)


def share_statistics(module: nn.Module, world: int) -> None:
    """Turn every BatchNorm in `module` into a SharedBatchNorm, in place; names and weights stay."""
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.__class__, part.world = SharedBatchNorm, world
