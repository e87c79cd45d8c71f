"""se-prune: a checkpoint pruned, and what that saves and costs."""

from __future__ import annotations

import copy
import math
import os
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

import torch

from setk import checkpoint, engines
from setk.audio import Location, check_unread
from setk.core.errors import AudioError, UserError
from setk.compress import pruning, units
from setk.cost import macs as mac_rules, timing
from setk.data import lists
from setk.engines.parity import Parity
from setk.models import Model, count_parameters

ROUNDS = 2  # of timing one model and then the other, so that other load of the machine affects both
CALIBRATION_S = 2.0  # of each utterance, for importance by gradients, which need all activations at once
NORMS = {"l1": 1, "l2": 2}


class Candidate(NamedTuple):
    """A model and its checkpoint."""

    name: str
    file: Path
    model: Model


class Pruned(NamedTuple):
    """The dense and the pruned model, and of structured pruning each group's width before and after."""

    dense: Candidate
    pruned: Candidate
    widths: dict[str, tuple[int, int]]


def prune(
    spec: str | os.PathLike,
    out: str | os.PathLike,
    *,
    method: str,
    amount: float | None = None,
    target_macs: float | None = None,
    target_params: float | None = None,
    floor: float = 0.1,
    importance: str = "l1",
    multiple: int | None = None,
    without: str | None = None,
    noisy: Mapping[str, Location] = {},
    clean: Mapping[str, Location] = {},
) -> Pruned:
    """Write the checkpoint that MODEL names to `out` with its least important weights zero (`method` "magnitude") or without
    its least important units ("structured"), or with its mechanism `without` doing nothing ("part").

    Exactly one of `amount` (part to remove), `target_macs` (per second) and `target_params` is needed; targets up to 1 are
    parts of the dense model's, and for structured pruning only. `floor`: part of each layer or group to keep. `importance`:
    "l1" or "l2" norms, or "taylor", gradients on the pairs in `noisy` and `clean`. `multiple`: widths are rounded to it (None: what
    suits the model's kernels). None of these is for "part". Raises UserError where that is not possible.
    """
    dense, file, about, _ = engines.model(spec, weights=True)
    if dense.quantization and method != "part":
        raise UserError(f"{spec}: is quantized; prune the checkpoint that it was made from, then quantize the result")
    checkpoint.check_target(out, [file])
    check_unread({"OUT": out}, [*noisy.values(), *clean.values()])
    facts: dict[str, Any] = {"method": method, "source": about["provenance"], "sha256": about["sha256"]}
    if method == "part":
        model, facts["without"] = copy.deepcopy(dense).without(without), without
        checkpoint.save(out, model, {}, **facts)
        return Pruned(Candidate("dense", file, dense), Candidate(f"without {without}", Path(out), model), {})
    facts["floor"] = floor
    if method == "magnitude":
        model, facts["amount"] = copy.deepcopy(dense), amount
        pruning.prune_magnitude(model, amount, floor)
    else:
        groups = units.groups(dense)
        if not groups:
            raise UserError(
                f"{spec}: {dense.name} has no units that can be removed; --method magnitude works for any model"
            )
        target = _target(dense, target_macs, target_params)
        model, done = pruning.prune_structured(
            dense,
            groups,
            _importance(dense, groups, importance, noisy, clean),
            floor,
            multiple,
            amount=amount,
            **target,
        )
        facts |= {"importance": importance, **done}
    checkpoint.save(out, model, {}, **facts)
    return Pruned(Candidate("dense", file, dense), Candidate("pruned", Path(out), model), facts.get("widths", {}))


def _importance(
    dense: Model, groups: list[units.Group], kind: str, noisy: Mapping[str, Location], clean: Mapping[str, Location]
) -> list[torch.Tensor]:
    if kind == "taylor":
        return pruning.taylor_importance(dense, groups, _signals(noisy, clean, dense.sample_rate))
    return pruning.norm_importance(dense, groups, NORMS[kind])


def macs_per_second(model: Model) -> float:
    """MACs per second. Those of a causal model do not depend on the length that is counted, and a short one is faster."""
    return sum(layer.macs_per_second for layer in mac_rules.layers(model, 0.05 if model.causal else 1.0))


def _target(dense: Model, macs: float | None, params: float | None) -> dict[str, Any]:
    """The `cost` of a model and its `target` for pruning.prune_structured: MACs per second or parameters, where at most 1 is a
    part of the dense model's. Empty without either."""
    if macs is None and params is None:
        return {}
    cost, limit = (macs_per_second, macs) if params is None else (_parameters, params)
    return {"cost": cost, "target": limit * cost(dense) if limit <= 1 else limit}


def _parameters(model: Model) -> int:
    return count_parameters(model)["params"]


def cost_rows(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Of each model: `model`, `params`, `params_nonzero`, `bytes`, `macs_per_second`, and `rtf` measured on one thread."""
    rows, timed = [], []
    for name, file, model in candidates:
        counts = count_parameters(model)
        rows.append(
            {
                "model": name,
                "params": counts["params"],
                "params_nonzero": counts["params_nonzero"],
                "bytes": file.stat().st_size,
                "macs_per_second": macs_per_second(model),
                "rtf": math.inf,
            }
        )
        timed.append(engines.TorchEngine(model))
    for _ in range(ROUNDS):
        for row, engine in zip(rows, timed):
            row["rtf"] = min(row["rtf"], timing(engine, hops=1, seconds=2.0)["rtf"])
    return rows


def locations(noisy: str, clean: str | None) -> tuple[dict[str, Location], dict[str, Location]]:
    """utt -> location of the noisy and of the clean signals, the latter empty without a list. Raises UserError where one is missing."""
    found = lists.read_wavs(noisy)
    if not found:
        raise UserError(f"{noisy}: lists nothing")
    if clean is None:
        return found, {}
    references = lists.read_wavs(clean)
    for utt in found:
        if utt not in references:
            raise UserError(f"{clean}: lacks {utt}, which {noisy} lists")
    return found, references


def _signals(
    noisy: Mapping[str, Location], clean: Mapping[str, Location], rate: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Noisy and clean [n] of each utterance, the first CALIBRATION_S. Raises AudioError on the first that cannot be read."""
    end = int(CALIBRATION_S * rate)
    for utt, location in noisy.items():
        x, y = (place.read_mono(rate)[0] for place in (location, clean[utt]))
        if len(x) != len(y):
            raise AudioError(f"{utt}: the noisy signal has {len(x)} samples, the clean one {len(y)}")
        yield torch.from_numpy(x[:end]), torch.from_numpy(y[:end])


def output_columns(rows: Sequence[Parity], names: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """`snr_db` of the pruned model's outputs to those of the dense one (infinite for equal ones), and the mean of each metric: the
    columns of the dense model, then of the pruned one. Utterances without a value do not count."""
    snrs = [row.snr for row in rows if math.isfinite(row.snr)]
    dense, pruned = (
        {name: _mean([row.scores[k].get(name, math.nan) for row in rows]) for name in names} for k in (0, 1)
    )
    return {"snr_db": math.inf} | dense, {"snr_db": _mean(snrs) if snrs else math.inf} | pruned


def _mean(scores: Sequence[float]) -> float:
    """The mean of the scores that are there; nan without any."""
    there = [score for score in scores if not math.isnan(score)]
    return math.fsum(there) / len(there) if there else math.nan
