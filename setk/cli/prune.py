"""se-prune: a checkpoint with its least important weights zero, or without its least important units."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Optional

import typer

from setk.cli import shell
from setk.core.errors import UserError

app = shell.new_app()
EXAMPLES = """
se-prune fspen sparse.pt --method magnitude --amount 0.3
se-prune fspen small.pt --method structured --target-macs 0.5
se-prune dpcrn_cf plain.pt --method part --without comb --list noisy.scp --ref clean.scp
se-prune fspen small.pt --method structured --amount 0.3 --importance taylor --list noisy.scp --ref clean.scp
"""


class Method(str, Enum):
    magnitude = "magnitude"
    structured = "structured"
    part = "part"


class Importance(str, Enum):
    l1 = "l1"
    l2 = "l2"
    taylor = "taylor"


# fmt: off
@shell.command(app, examples=EXAMPLES)
def prune(
    ctx: typer.Context,
    checkpoint: Annotated[str, typer.Argument(metavar="CKPT", help="A checkpoint, or an included model.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Checkpoint to write.")],
    method: Annotated[Method, shell.option(group=shell.PRUNING, help="magnitude: weights become zero. structured: units are removed, and the model is smaller. part: one mechanism does nothing.")],
    amount: Annotated[Optional[float], shell.option(group=shell.PRUNING, metavar="PART", help="Part of the weights, or of the units, to remove; 0 to below 1.")] = None,
    without: Annotated[Optional[str], shell.option(group=shell.PRUNING, metavar="NAME", help="part: the mechanism to take out; an unknown name lists those of the model.")] = None,
    target_macs: Annotated[Optional[float], shell.option(group=shell.PRUNING, metavar="N", help="structured: MACs per second at most; up to 1, as a part of the dense ones.")] = None,
    target_params: Annotated[Optional[float], shell.option(group=shell.PRUNING, metavar="N", help="structured: parameters at most; up to 1, as a part of the dense ones.")] = None,
    floor: Annotated[float, shell.option(group=shell.PRUNING, metavar="PART", help="Part of each layer, or group of units, to keep.")] = 0.1,
    importance: Annotated[Importance, shell.option(group=shell.PRUNING, help="structured: by norms of weights, or by gradients on --list and --ref.")] = Importance.l1,
    multiple: Annotated[Optional[int], shell.option(group=shell.PRUNING, min=1, help="structured: round widths to it (default: what suits the model's kernels).")] = None,
    list_: Annotated[Optional[str], shell.option("--list", group=shell.METRICS, metavar="LIST", help="Wav list on which the pruned model is compared with the dense one.")] = None,
    ref: Annotated[Optional[str], shell.option(group=shell.METRICS, metavar="LIST", help="With --list: the clean list, for scores and for taylor.")] = None,
    metrics: Annotated[str, shell.option(group=shell.METRICS, metavar="A,B,…", help="With --ref: metrics of se-score, by commas.")] = "pesq_wb,stoi,si_sdr",
    max_fail: shell.MaxFail = 0,
    as_json: shell.Json = False,
) -> None:
    # fmt: on
    """Prune CKPT, and print what that costs and saves: a row for the dense model and one for the pruned.

    Magnitude pruning sets the smallest weights of all layers together to zero. Zeros compress well but are
    multiplied like any number: neither MACs nor time fall. Structured pruning removes complete units (channels, hidden
    units); OUT is a smaller dense model, an ordinary checkpoint for every command, and se-train --init OUT --set config=init
    trains it further. With --method part a mechanism of the paper, such as the comb filter of dpcrn_cf, gets weights with which it
    does nothing: the scores of OUT are what the rest of the trained model does without it.
    """
    if method is Method.part:
        if without is None:
            raise UserError("--method part needs --without NAME, the mechanism to take out")
        shell.only(ctx, "with --method part", "checkpoint", "out", "method", "without", "list_", "ref", "metrics", "max_fail", "as_json")
    elif without is not None:
        raise UserError("--without is for --method part")
    elif sum(x is not None for x in (amount, target_macs, target_params)) != 1:
        raise UserError("give one of --amount, --target-macs and --target-params")
    if method is Method.magnitude:
        shell.refuse(ctx, "with --method magnitude", "target_macs", "target_params", "importance", "multiple")
    if importance is Importance.taylor and not (list_ and ref):
        raise UserError("--importance taylor needs --list noisy.scp and --ref clean.scp")
    for option, target in (("--target-macs", target_macs), ("--target-params", target_params)):
        if target is not None and not target > 0:
            raise UserError(f"{option} {target:g}: must be above 0")
    if list_ is None:
        shell.refuse(ctx, "without --list", "ref", "metrics", "max_fail")
    if ref is None:
        shell.refuse(ctx, "without --ref", "metrics")
    from setk import metrics as measures
    from setk.compress import pruned
    from setk.core.files import check_distinct
    from setk.engines import TorchEngine, parity

    check_distinct({"OUT": out}, [list_, ref])
    names = measures.select(measures.listed(metrics)) if ref else ()
    noisy, clean = pruned.locations(list_, ref) if list_ else ({}, {})
    done = pruned.prune(
        checkpoint,
        out,
        method=method.value,
        amount=amount,
        target_macs=target_macs,
        target_params=target_params,
        floor=floor,
        importance=importance.value,
        multiple=multiple,
        without=without,
        noisy=noisy,
        clean=clean,
    )
    for name, (before, after) in done.widths.items():
        shell.note(f"se-prune: {name}: {after} of {before} units")
    rows, failures = pruned.cost_rows([done.dense, done.pruned]), shell.Failures("se-prune", max_fail)
    if noisy:
        engines = (TorchEngine(candidate.model) for candidate in (done.dense, done.pruned))
        compared = []
        for row in shell.progress(
            parity.compare(*engines, noisy.items(), names=names, clean=clean), len(noisy), "se-prune"
        ):
            compared.append(row)
            if row.error:
                failures.add(row.utt, row.error)
        for row, columns in zip(rows, pruned.output_columns(compared, names)):
            row |= columns
    shell.print_rows(rows, as_json)
    if method is Method.magnitude:
        zeros = rows[0]["params_nonzero"] - rows[1]["params_nonzero"]
        shell.note(f"se-prune: {out}: {zeros} more weights are zero; zeros do not make a model faster")
    if noisy:
        failures.finish(len(noisy) - failures.count)


def main() -> None:
    shell.run(app, "se-prune")


if __name__ == "__main__":
    main()
