"""A model run by torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from setk.models import Model


class TorchEngine:
    """A checkpoint, or a model that is built already, in torch on one compute thread."""

    frames = None

    def __init__(self, source: Path | Model):
        import torch

        from setk import checkpoint

        torch.set_num_threads(1)
        self.sha256 = ""
        if isinstance(source, torch.nn.Module):
            self.model = source.eval()
        else:
            self.model, about = checkpoint.load(source)
            self.sha256 = about["sha256"]
        self.name, self.sample_rate, self.transform = self.model.name, self.model.sample_rate, self.model.transform
        self.lookahead, self.causal, self.chunk_s = self.model.lookahead, self.model.causal, self.model.chunk_s

    def start(self, channels: int) -> Any:
        return self.model.init_state(channels)

    def run(self, frames: np.ndarray, state: Any, active: np.ndarray | None = None) -> tuple[np.ndarray, Any]:
        import torch

        with torch.inference_mode():
            # Frames may be a read-only view of the signal, of which torch would warn.
            y, after = self.model(torch.from_numpy(np.require(frames, requirements="W")), state)
            if active is not None and not active.all():
                idle = torch.from_numpy(np.flatnonzero(~active))
                for old, new, axis in zip(state, after, self.model.state_axes):
                    new.index_copy_(axis, idle, old.index_select(axis, idle))
        return y.numpy(), after

    def restart(self, state: Any, channel: int) -> None:
        import torch

        with torch.inference_mode():
            for x, first, axis in zip(state, self.model.init_state(1), self.model.state_axes):
                x.narrow(axis, channel, 1).copy_(first)
