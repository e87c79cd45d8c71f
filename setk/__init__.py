"""setk: speech enhancement for constrained devices, as small Unix commands and a Python API.

>>> import setk
>>> model = setk.load("fspen")                # a name, checkpoint, .onnx or .ts
>>> clean = model.enhance(noisy, rate)        # NumPy [n] or [channels, n], any rate
>>> stream = model.stream(rate, channels=1)   # stream.push(block), stream.flush()
>>> setk.score(reference, clean, rate, ["pesq_wb", "stoi"])

The commands call the same functions: the same input gives the same samples and the same scores. Nothing heavy is imported
before it is needed. What a user can fix raises setk.UserError; audio that cannot be used raises setk.AudioError, which is one.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Sequence

from setk.core.errors import AudioError as AudioError, UserError as UserError

if TYPE_CHECKING:
    import numpy as np

    from setk import export as export
    from setk.data.datadir import DataDir as DataDir
    from setk.data.shards import Shards as Shards
    from setk.engines import Enhancer
    from setk.scoring.arrays import Scores
    from setk.scoring.compare import Comparison

__version__ = "0.2.0"
__all__ = ["AudioError", "DataDir", "Shards", "UserError", "compare", "count", "enhance", "export", "load", "score"]

# `export` is a package that is callable: the import of any of its modules would replace a function of that name.
_LAZY = {"DataDir": "setk.data.datadir", "Shards": "setk.data.shards", "export": "setk.export"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'setk' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return module if name == "export" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})


def load(spec: str | os.PathLike, *, trust: bool = False, stft: str | None = None) -> Enhancer:
    """Load a model: an included name (`se-enhance --list-models`), or the path of a checkpoint, .onnx or .ts.

    The result has `enhance(noisy, rate)`, `stream(rate, channels)`, `name`, `sample_rate` (Hz), `causal`, `latency_ms` and
    `parameters`. An included model runs without torch where it exists as ONNX. A .ts is a program that can run any code:
    it needs `trust=True`. `stft`: the transform of an .onnx of another project, "WINDOW,HOP,TYPE[,RATE]" as in "512,256,sqrt-hann";
    None: that of its metadata. Raises UserError on what is not a trained model.

    >>> setk.load("fspen").latency_ms
    32.0
    """
    from setk.engines import Enhancer

    return Enhancer(os.fspath(spec), trust=trust, stft=stft)


def enhance(
    spec: str | os.PathLike, noisy: np.ndarray, rate: int, *, trust: bool = False, stft: str | None = None
) -> np.ndarray:
    """Load a model and enhance `noisy` [n] or [channels, n], float with full scale 1.0 or int16, at `rate` Hz.

    Returns float32 of the same shape, sample-aligned; written as 16 bits it has the bytes of se-enhance's output. To enhance
    more than one signal, load the model once. Raises as `load`, and as `Enhancer.enhance`.

    >>> clean = setk.enhance("fspen", noisy, 16000)
    """
    return load(spec, trust=trust, stft=stft).enhance(noisy, rate)


def score(
    clean: np.ndarray,
    enhanced: np.ndarray,
    rate: int,
    metrics: Sequence[str] | None = None,
    *,
    noisy: np.ndarray | None = None,
    dnsmos_model: str | None = None,
    dnsmos_p808_model: str | None = None,
) -> Scores:
    """Score `enhanced` [n] against the reference `clean` [n], float with full scale 1.0 or int16, at `rate` Hz.

    `metrics`: names that `se-score --list-metrics` lists; None: pesq_wb, stoi, estoi, si_sdr. `noisy` [n], the unprocessed
    signal, is for the metrics that are a gain over it. `dnsmos_model` and `dnsmos_p808_model` are files of the DNSMOS networks.
    Returns a dict of metric -> float in their order; a score that cannot be computed is nan, and `.reasons[metric]` says
    why. The scores are those of se-score. Raises UserError on an unknown metric, on one that needs what is missing, and on
    arrays that are not mono audio.

    >>> setk.score(clean, enhanced, 16000, ["stoi"])["stoi"]
    """
    from setk import metrics as measures
    from setk.scoring import arrays

    extras = measures.Extras(dnsmos_model, dnsmos_p808_model)
    return arrays.score(
        clean, enhanced, rate, measures.DEFAULT if metrics is None else metrics, noisy=noisy, extras=extras
    )


def compare(
    a: str | os.PathLike | Iterable[Mapping[str, Any]], b: str | os.PathLike | Iterable[Mapping[str, Any]]
) -> list[Comparison]:
    """Compare two score tables on the utterances that both have: for each common metric B - A with its interval and p.

    A table is the path of what se-score wrote, or rows {"utt": id, metric: score, ...}, as se-score --jsonl writes them; a
    score of None or nan is missing. Each Comparison has `metric`, `n`, `mean_a`, `mean_b`, `diff`, `low`, `high` (the 95 %
    interval), `p_bootstrap`, `p_wilcoxon`, `better` (share of utterances where B is better) and `left_out`. The values are
    those of se-score --compare. Raises UserError on what is not a score table, and without a common metric or utterance.

    >>> for c in setk.compare("fspen.tsv", "dpcrn.tsv"): print(c.metric, c.diff, c.p_wilcoxon)
    """
    from setk.scoring import compare as comparing

    return comparing.compare_tables(a, b)


def count(
    spec: str | os.PathLike, convention: str = "setk", *, seconds: float = 1.0, layers: bool = False
) -> dict[str, Any]:
    """What a model costs: the row of `se-count MODEL --json`, with `params`, `bytes`, `macs_per_second`, `latency_ms` and more.

    `spec`: an included name, a preset, or the path of a checkpoint, .onnx, .ts or YAML config. `convention`: "setk", "ptflops"
    or "legacy", the definition of a multiply-accumulate. `seconds`: length of the signal that is counted, which matters to
    models with attention over time. `layers` adds a list of rows by layer. Imports torch. Raises UserError.

    >>> setk.count("fspen")["macs_per_second"]
    72528000
    """
    from setk.cost import table

    return table.count(os.fspath(spec), convention, seconds=seconds, layers=layers)
