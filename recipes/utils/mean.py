"""mean.py VALID OUT CKPT...: the mean of the weights of checkpoints of one model, as a checkpoint with its scores on VALID.

Of a model and what it became in a further training, with another loss, the mean has most of what either is better at
(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

import sys
from pathlib import Path

import torch

from setk import checkpoint
from setk.data.datadir import DataDir
from setk.training.averages import mean_weights
from setk.training.ranks import joined
from setk.training.validation import validate

METRICS = ("pesq_wb", "stoi", "si_sdr")


def main(valid: str, out: str, *paths: str) -> None:
    torch.set_num_threads(1)
    found = [checkpoint.load(path) for path in map(Path, paths)]
    model = found[-1][0]
    model.load_state_dict(mean_weights([source.state_dict() for source, _ in found]))
    with joined("cpu") as ranks:
        scores = validate(model, DataDir(Path(valid)).pairs(), METRICS, ranks, print, lambda: False)
    checkpoint.save(Path(out), model, {"valid": scores}, mean_of=[about["sha256"] for _, about in found],
                    settings=[about["provenance"]["settings"] for _, about in found])
    print(out, " ".join(f"{name} {value:.3f}" for name, value in scores.items()), file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
