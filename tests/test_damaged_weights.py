"""A flipped bit in the weights of a checkpoint, of an export to ONNX or to C: refused in one line, and files without checksums load."""

from __future__ import annotations

import random
import re
import zipfile
from pathlib import Path

import onnx
import pytest

from setk import checkpoint, engines, export, pretrained
from setk.core.errors import UserError
from setk.engines import compiled
from setk.engines.onnx import OnnxEngine
from setk.native import kernels, reader
from setk.native.translate import translate

CASES = 20


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "fspen.onnx"
    export("fspen", path)
    return path


def flipped(data: bytes, start: int, end: int, rng: random.Random) -> bytes:
    """`data` with one bit between two places inverted."""
    changed = bytearray(data)
    changed[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("case", range(CASES))
def test_a_checkpoint(tmp_path, case):
    rng, source = random.Random(case), pretrained.find("fspen")
    with zipfile.ZipFile(source) as archive:
        tensors = [entry for entry in archive.infolist() if "/data/" in entry.filename]
    data, entry = source.read_bytes(), rng.choice(tensors)
    # The bytes of an entry follow its name and a field for alignment, whose lengths the entry has in the file.
    sizes = data[entry.header_offset + 26 : entry.header_offset + 30]
    start = entry.header_offset + 30 + int.from_bytes(sizes[:2], "little") + int.from_bytes(sizes[2:], "little")
    damaged = tmp_path / "damaged.pt"
    damaged.write_bytes(flipped(data, start, start + entry.file_size, rng))
    with pytest.raises(UserError, match="is damaged: the checksum of .* is wrong"):
        checkpoint.load(damaged)


@pytest.mark.full
@pytest.mark.parametrize("case", range(CASES))
def test_an_onnx_file(tmp_path, exported, case):
    data, damaged = exported.read_bytes(), tmp_path / "damaged.onnx"
    largest = max((t.raw_data for t in onnx.load(exported).graph.initializer), key=len)
    start = data.index(largest)
    damaged.write_bytes(flipped(data, start, start + len(largest), random.Random(case)))
    with pytest.raises(UserError, match="is damaged: its weights are not those that were written"):
        OnnxEngine(damaged)
    with pytest.raises(UserError, match="its weights are not those that were written"):
        translate(damaged)


def test_what_an_onnx_file_states_is_part_of_the_checksum(tmp_path, exported):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(exported.read_bytes().replace(b'"sample_rate": 16000', b'"sample_rate": 15000'))
    with pytest.raises(UserError, match="is damaged"):
        OnnxEngine(damaged)


def test_an_onnx_file_of_an_earlier_version(tmp_path, exported):
    model, earlier = onnx.load(exported), tmp_path / "earlier.onnx"
    assert reader.CHECKSUM in {p.key for p in model.metadata_props}
    onnx.helper.set_model_props(model, {p.key: p.value for p in model.metadata_props if p.key != reader.CHECKSUM})
    onnx.save(model, earlier)
    assert OnnxEngine(earlier).name == "fspen"
    assert translate(earlier).about["model"] == "fspen"


@pytest.mark.parametrize("name", sorted(pretrained.included()))
def test_included_checkpoints_load(name):
    assert checkpoint.load(pretrained.find(name))[1]["sha256"] == pretrained.index()[name]["sha256"]


@pytest.mark.full
@pytest.mark.skipif(compiled.compiler() is None or kernels.library() is None, reason="no C compiler")
def test_a_c_file(se, tmp_path):
    source = tmp_path / "fspen.c"
    export("fspen", source, weights="int8")
    text, rng = source.read_text(), random.Random(0)
    start = text.index("static const int8_t weights[")
    numbers = list(re.finditer(r"\b\d+\b", text[start : text.index("};", start)]))[1:]
    for _ in range(CASES):
        chosen = rng.choice(numbers)
        at = start + chosen.start()
        source.write_text(text[:at] + str((int(chosen[0]) + 1) % 128) + text[at + len(chosen[0]) :])
        with pytest.raises(UserError, match="is damaged: its weights are not those that were written"):
            compiled.read_about(source)
    assert "is damaged" in se("enhance", source, "a.wav", tmp_path / "b.wav", "--trust").err

    # Spaces between numbers do not matter, and earlier versions stated nothing.
    end = text.index("};", start)
    source.write_text(text[:start] + text[start:end].replace(", ", ",\n  ") + text[end:])
    assert compiled.read_about(source)["model"] == "fspen"
    source.write_text(text.replace("numbers_crc32", "of_a_key_that_nobody_reads"))
    assert "numbers_crc32" not in compiled.read_about(source)
    assert engines.open(str(source), trust=True).name == "fspen"
