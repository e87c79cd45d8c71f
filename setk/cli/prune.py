"""se-prune: a checkpoint with its least weights zero, or without its least units."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Iterator, Optional

import typer

from setk.cli import shell
from setk.core.errors import AudioError, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from setk.audio import Location
    from setk.models import Model

app = shell.new_app()
CALIBRATION_S = 2.0  # of each utterance, that --importance taylor looks at: a gradient wants all activations at once
ROUNDS = 2           # of timing one model and then the other: what else the machine does falls on both


class Method(str, Enum):
    magnitude = "magnitude"
    structured = "structured"


class Importance(str, Enum):
    l1 = "l1"
    l2 = "l2"
    taylor = "taylor"


@app.command()
def prune(
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="A checkpoint, or the name of a model that ships.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Checkpoint to write.")],
    method: Annotated[Method, typer.Option(help="magnitude: weights become zero. structured: units go, and the model is smaller.")],
    amount: Annotated[Optional[float], typer.Option(help="Part of the weights, or of the units, that goes; 0 to below 1.")] = None,
    target_macs: Annotated[Optional[float], typer.Option(help="structured: MACs per second at most; up to 1, as a part of the dense ones.")] = None,
    target_params: Annotated[Optional[float], typer.Option(help="structured: parameters at most; up to 1, as a part of the dense ones.")] = None,
    floor: Annotated[float, typer.Option(help="Part of each layer, or group of units, that stays.")] = 0.1,
    importance: Annotated[Importance, typer.Option(help="structured: by norms of weights, or by gradients on --list and --ref.")] = Importance.l1,
    multiple: Annotated[Optional[int], typer.Option(min=1, help="structured: round widths to it (default: what the model's kernels like).")] = None,
    list_: Annotated[Optional[str], typer.Option("--list", help="Wav list on which the pruned model is compared with the dense one.")] = None,
    ref: Annotated[Optional[str], typer.Option(help="With --list: the clean list, for scores and for taylor.")] = None,
    metrics: Annotated[str, typer.Option(help="With --ref: what is scored.")] = "pesq_wb,stoi,si_sdr",
) -> None:
    """Prune CKPT, and tell what that costs and saves: a table with a row for the dense model and one for the pruned.

    Magnitude pruning takes the least weights of all layers together; they become zeros, which compress well but are
    multiplied like any number: neither MACs nor time fall. Structured pruning takes out whole units (channels, hidden
    units); OUT is a smaller dense model, an ordinary checkpoint for every command, and se-train --init OUT --set config=init
    goes on from it.
    """
    if sum(x is not None for x in (amount, target_macs, target_params)) != 1:
        raise UserError("give one of --amount, --target-macs and --target-params")
    if method is Method.magnitude and amount is None:
        raise UserError("--target-macs and --target-params are for --method structured; zeros save neither")
    if importance is Importance.taylor and not (list_ and ref):
        raise UserError("--importance taylor wants --list noisy.scp and --ref clean.scp")
    if ref and not list_:
        raise UserError("--ref wants --list, the noisy files")
    import copy

    from setk import checkpoint as checkpoints
    from setk import metrics as measures
    from setk.compress import pruning

    names = measures.select(measures.listed(metrics)) if ref else ()
    utts = _utterances(list_, ref) if list_ else {}
    source = checkpoints.find(checkpoint)
    dense, about = checkpoints.load(source)
    if dense.quantization:
        raise UserError(f"{checkpoint}: is quantized; prune the checkpoint that it was made from, and quantize what that gives")
    facts: dict[str, Any] = {"method": method.value, "floor": floor, "source": about["provenance"], "sha256": about["sha256"]}
    if method is Method.magnitude:
        pruned, facts["amount"] = copy.deepcopy(dense), amount
        pruning.prune_magnitude(pruned, amount, floor)
    else:
        groups = dense.prunable()
        if not groups:
            raise UserError(f"{checkpoint}: {dense.name} tells of no units that can go; --method magnitude takes any model")
        if importance is Importance.taylor:
            scores = pruning.taylor_importance(dense, groups, _read(utts, dense.sample_rate, CALIBRATION_S))
        else:
            scores = pruning.norm_importance(dense, groups, {"l1": 1, "l2": 2}[importance.value])
        pruned, done = pruning.prune_structured(dense, scores, floor, multiple, amount=amount,
                                                **_target(dense, target_macs, target_params))
        facts |= {"importance": importance.value, **done}
        for name, (before, after) in done["widths"].items():
            shell.say(f"se-prune: {name}: {after} of {before} units")
    checkpoints.save(out, pruned, {}, **facts)
    rows = _costs(source, dense, out, pruned)
    if utts:
        _outputs(rows, dense, pruned, utts, names)
    print(*rows[0], sep="\t")
    for row in rows:
        print(*(f"{v:.10g}" if isinstance(v, float) else v for v in row.values()), sep="\t")
    if method is Method.magnitude:
        shell.say(f"se-prune: {out}: {rows[0]['params_nonzero'] - rows[1]['params_nonzero']} weights more are zero; zeros are no speed")


def _target(dense: Model, macs: float | None, params: float | None) -> dict[str, Any]:
    """What bisection is to bring below what."""
    from setk.models import count_parameters

    if macs is None and params is None:
        return {}
    count, target = (_macs, macs) if params is None else (lambda model: count_parameters(model)["params"], params)
    return {"cost": count, "target": target * count(dense) if target <= 1 else target}


def _macs(model: Model) -> float:
    """MACs per second. Those of a causal model do not depend on the length that is counted, and short ones take less time."""
    from setk.cost import macs

    return sum(layer.macs_per_second for layer in macs.layers(model, 0.05 if model.causal else 1.0))


def _utterances(noisy: str, clean: str | None) -> dict[str, tuple[Location, Location | None]]:
    """utt -> (noisy, clean or None) locations."""
    from setk.data import lists

    found = lists.read_wavs(noisy)
    if not found:
        raise UserError(f"{noisy}: lists nothing")
    if clean is None:
        return {utt: (location, None) for utt, location in found.items()}
    references = lists.read_wavs(clean)
    if missing := [utt for utt in found if utt not in references]:
        raise UserError(f"{clean}: lacks {missing[0]}, which {noisy} lists")
    return {utt: (location, references[utt]) for utt, location in found.items()}


def _read(utts: dict[str, tuple[Location, Location | None]], rate: int, seconds: float = math.inf) -> Iterator[tuple[Tensor, ...]]:
    """Noisy and, if it is listed, clean [n] of each utterance. A comparison has no room for failures: the first ends it."""
    import torch

    for utt, locations in utts.items():
        signals = [location.read_mono(rate)[0] for location in locations if location]
        if len({len(x) for x in signals}) > 1:
            raise AudioError(f"{utt}: the noisy signal has {len(signals[0])} samples, the clean one {len(signals[1])}")
        end = int(min(len(signals[0]), seconds * rate))
        yield tuple(torch.from_numpy(x[:end]) for x in signals)


def _costs(source: Path, dense: Model, out: Path, pruned: Model) -> list[dict[str, Any]]:
    """A row for each of the two: what it is, weighs and takes."""
    from setk import cost
    from setk.engines import TorchEngine
    from setk.models import count_parameters

    rows, engines = [], []
    for name, path, model in (("dense", source, dense), ("pruned", out, pruned)):
        counts = count_parameters(model)
        rows.append({"model": name, "params": counts["params"], "params_nonzero": counts["params_nonzero"],
                     "bytes": path.stat().st_size, "macs_per_second": _macs(model), "rtf": math.inf})
        engines.append(TorchEngine(path))
    for _ in range(ROUNDS):
        for row, engine in zip(rows, engines):
            row["rtf"] = min(row["rtf"], cost.timing(engine, hops=1, seconds=2.0)["rtf"])
    return rows


def _outputs(rows: list[dict[str, Any]], dense: Model, pruned: Model, utts: dict[str, tuple[Location, Location | None]],
             names: tuple[str, ...]) -> None:
    """Add to the rows the SNR of the pruned model's output to the dense one's, and scores of both, means over utterances."""
    import numpy as np
    import torch

    from setk import metrics
    from setk.metrics import sdr

    snrs, scores = [], [[], []]
    for (utt, _), (noisy, *clean) in zip(utts.items(), shell.progress(_read(utts, dense.sample_rate), len(utts), "se-prune")):
        with torch.inference_mode():
            outputs = [model.enhance(noisy[None])[0].double().numpy() for model in (dense, pruned)]
        if math.isfinite(snr := sdr.snr(*outputs)):
            snrs.append(snr)
        for found, output in zip(scores, outputs):
            if names:
                values, reasons = metrics.compute(clean[0].numpy(), output, dense.sample_rate, names)
                found.append(list(values.values()))
                for name, reason in reasons.items():
                    shell.say(f"se-prune: {utt}: {name}: {reason}")
    for row, snr, found in zip(rows, (math.inf, float(np.mean(snrs)) if snrs else math.inf), scores):
        row["snr_db"] = snr
        row |= {name: float(np.nanmean([values[i] for values in found])) for i, name in enumerate(names)}


def main() -> None:
    shell.run(app, "se-prune")


if __name__ == "__main__":
    main()
