"""Checkpoints: one file that describes itself, and loads without running code.

A checkpoint is a mapping of plain values and tensors: `format`, `model` (name), `config` (resolved values),
`sample_rate`, `weights`, `scores`, `provenance`; of a quantized model also `quantization`, the values of its
Scheme. It is always read with weights_only=True, so an untrusted file cannot execute code. The state that
resumes a training is in a separate file (see setk.training).
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Iterable

import torch

from setk import models, pretrained
from setk.core import config, provenance
from setk.core.errors import UserError
from setk.core.files import atomic_open, check_distinct, check_readable, sha256, write_text
from setk.pretrained import find as find

FORMAT = 1
# What zipfile and torch's interpreter of a pickle raise for damaged bytes.
_DAMAGED = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    OverflowError,
)


def save(path: str | os.PathLike, model: models.Model, scores: dict[str, Any], **facts: Any) -> None:
    """Write `model` as a checkpoint, atomically; `scores` and `facts` (provenance) are plain values."""
    quantization = {} if model.quantization is None else {"quantization": config.plain(model.quantization)}
    write(
        path,
        {
            "format": FORMAT,
            "model": model.name,
            "config": config.plain(model.config),
            **quantization,
            "sample_rate": model.sample_rate,
            "weights": {k: v.cpu() for k, v in model.state_dict().items()},
            "scores": scores,
            "provenance": provenance.stamp("torch", **facts),
        },
    )


def check_target(out: str | os.PathLike, inputs: Iterable[str | os.PathLike | None]) -> None:
    """Raise UserError unless `out` can be the name of a checkpoint and is none of the files `inputs`."""
    if Path(out).suffix != ".pt":
        raise UserError(f"{out}: a checkpoint has the suffix .pt")
    check_distinct({"OUT": out}, inputs)


def write(path: str | os.PathLike, content: dict[str, Any]) -> None:
    """torch.save, atomically."""
    data = io.BytesIO()  # torch's file writer hides the reason when a disk is full
    torch.save(content, data)
    with atomic_open(path) as f:
        f.write(data.getbuffer())


def read(path: str | os.PathLike) -> dict[str, Any]:
    """Read a file of tensors and plain values. Raises UserError on anything else, a pickle payload included."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: {'is a directory; give the path of a checkpoint' if path.is_dir() else 'no such checkpoint'}"
        )
    check_readable(path)
    # torch also reads old bare pickles; setk writes zip archives only.
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not a checkpoint, or damaged; train one with se-train")
    # In memory, where zipfile's seek to a damaged offset is a ValueError; in a file it looks like a failure of the disk.
    data = io.BytesIO(path.read_bytes())
    try:
        with zipfile.ZipFile(data) as archive:
            # torch.load would print a warning of several lines before it fails on a program.
            if _is_torchscript(archive):
                raise UserError(
                    f"{path}: is TorchScript, a program and not a checkpoint; use the .pt that it was exported from"
                )
            # torch reads past a wrong checksum of a tensor.
            if damaged := archive.testzip():
                raise UserError(f"{path}: is damaged: the checksum of {damaged} is wrong; copy or train it again")
        data.seek(0)
        content = torch.load(data, map_location="cpu", weights_only=True)
    except _DAMAGED as e:
        reason = str(e).splitlines()[0][:120] if str(e) else type(e).__name__
        raise UserError(f"{path}: not a checkpoint, or damaged, or holds code ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds tensors, but is not a setk checkpoint")
    return content


def _is_torchscript(archive: zipfile.ZipFile) -> bool:
    """Whether torch.jit.save wrote the archive."""
    return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load(path: str | os.PathLike) -> tuple[models.Model, dict[str, Any]]:
    """Read a checkpoint: the model in evaluation mode, and everything else in the file, plus `sha256` and `path`."""
    content = read(path)
    missing = [k for k in ("format", "model", "config", "weights") if k not in content]
    if missing:
        raise UserError(f"{path}: not a setk checkpoint: '{missing[0]}' is missing")
    if content["format"] != FORMAT:
        raise UserError(f"{path}: has checkpoint format {content['format']}; this setk reads {FORMAT}; update setk")
    model = models.rebuild(path, content)
    try:
        model.load_state_dict(content["weights"])
    except (RuntimeError, TypeError, AttributeError) as e:
        raise UserError(
            f"{path}: the weights do not fit the model that it names: {' '.join(str(e).split())[:200]}"
        ) from None
    about = {k: v for k, v in content.items() if k != "weights"} | {"sha256": sha256(path), "path": str(path)}
    return model.eval(), about


def describe(path: str | os.PathLike) -> dict[str, Any]:
    """The facts of a checkpoint that `pretrained.index` lists."""
    model, about = load(path)
    return {
        "model": about["model"],
        "sample_rate": about["sample_rate"],
        "causal": model.causal,
        "params": models.count_parameters(model)["params"],
        "scores": about["scores"],
        "sha256": about["sha256"],
    }


def write_index() -> None:
    """Write the index of the included models from their checkpoints."""
    facts = {name: describe(path) for name, path in pretrained.included().items()}
    write_text(pretrained.INDEX, json.dumps(facts, indent=1) + "\n")
