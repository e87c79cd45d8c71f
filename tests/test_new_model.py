"""Adding a paper is a file for the model and one for its config: every command runs a model that setk has never seen."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile
from conftest import MINI, ROOT

from setk import models
from setk.core.errors import UserError
from setk.data.datadir import DataDir
from setk.data.lists import write_list

MODEL = '''
"""A gain for each bin, from recurrent layers over bands: not a paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from setk.audio.stft import STFT, magnitude
from setk.models import Model, State, Widths
from setk.nn.gru import GroupedGRU


@dataclass(frozen=True)
class Config:
    hidden: int = 16
    paths: int = 4
    widths: tuple[int, ...] = ()


class Toy(Model):
    name = "toy"
    paper = "none"
    deviations = "none"
    Config = Config
    presets = {"toy": Config(), "toy-wide": Config(hidden=32)}

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.transform = config, STFT(512, 256)
        width = self.units = Widths(config.widths)
        inner = width("inner", 3 * config.hidden)
        self.inner = nn.Sequential(nn.Linear(257, inner), nn.ReLU())
        self.spread = nn.Conv1d(inner, 2 * config.hidden, 1)
        self.gru = GroupedGRU(config.paths, 2 * config.hidden, width("paths", config.hidden))
        self.gain = nn.Linear(config.paths * self.gru.hidden_size, 257)

    def init_state(self, batch: int) -> State:
        return (self.gain.weight.new_zeros(self.gru.groups, batch, 1, self.gru.hidden_size),)

    def forward(self, spectrum: Tensor, state: State) -> tuple[Tensor, State]:
        level = magnitude(spectrum).squeeze(-1)                                  # [B, T, 257]
        z = self.spread(self.inner(level.log()).transpose(1, 2)).transpose(1, 2)
        y, h = self.gru(z[None, :, :, None], *state)                             # [P, B, T, 1, H]
        gain = torch.sigmoid(self.gain(y.squeeze(3).permute(1, 2, 0, 3).flatten(2)))
        return spectrum * gain.unsqueeze(-1), (h,)
'''

CONFIG = """
model: toy
config: {hidden: 8}
segment: 0.5
batch: 2
steps: 3
warmup: 1
losses: {l1: 1.0}
valid_every: 3
metrics: [stoi]
best: stoi
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    path = tmp_path / "toy.py"
    path.write_text(MODEL)
    monkeypatch.setenv("SETK_MODELS", str(path))
    return path


def test_every_command_runs_a_model_from_two_files(toy, se, tmp_path):
    (tmp_path / "toy.yaml").write_text(CONFIG)
    (tmp_path / "valid").mkdir()
    utt, pair = next(iter(DataDir(MINI / "valid").pairs().items()))
    for name, location in zip(("noisy", "clean"), pair):
        write_list(tmp_path / "valid" / f"{name}.scp", {utt: ROOT / location})

    def run(*args):
        done = se(*args)
        assert done.returncode == 0, done.err
        return done

    counted = json.loads(run("count", "toy", "--json").out)
    assert counted["macs_per_second"] == 62.5 * (257 * 48 + 48 * 32 + 4 * 3 * 16 * (32 + 16) + 64 * 257)
    assert (
        json.loads(run("count", "toy", "--json", "--convention", "ptflops").out)["macs_per_second"]
        > counted["macs_per_second"]
    )

    run(
        "train",
        tmp_path / "toy.yaml",
        "--train",
        MINI / "train",
        "--valid",
        tmp_path / "valid",
        "--out",
        tmp_path / "run",
    )
    trained = tmp_path / "run" / "last.pt"
    noisy = ROOT / pair[0]
    outputs = {}
    for name, model in (
        ("trained", trained),
        ("pruned", tmp_path / "pruned.pt"),
        ("graph", tmp_path / "toy.onnx"),
        ("script", tmp_path / "toy.ts"),
        ("rounded", tmp_path / "rounded.pt"),
    ):
        if name == "pruned":
            run("prune", trained, model, "--method", "structured", "--amount", 0.3, "--multiple", 1)
        elif name == "rounded":
            run("quant", "ptq", trained, model, "--list", tmp_path / "valid" / "noisy.scp")
        elif name != "trained":
            run("quant", "export", trained, model)
        if name != "script":
            run("enhance", model, noisy, tmp_path / f"{name}.wav")
            outputs[name], _ = soundfile.read(tmp_path / f"{name}.wav")
    run("quant", "check", trained, tmp_path / "toy.onnx", "--list", tmp_path / "valid" / "noisy.scp")
    assert np.abs(outputs["graph"] - outputs["trained"]).max() <= 2 / 32768
    error = np.square(outputs["rounded"] - outputs["trained"]).mean()
    assert 0 < error < 0.01 * np.square(outputs["trained"]).mean()
    assert 0 < np.abs(outputs["pruned"] - outputs["trained"]).max()

    from setk import checkpoint

    dense, pruned = (checkpoint.load(path)[0] for path in (trained, tmp_path / "pruned.pt"))
    assert list(dense.units) == ["inner", "paths"] and sum(pruned.units.values()) < sum(dense.units.values())
    run("enhance", trained, noisy, tmp_path / "stream.wav", "--chunk", 0.016)
    assert np.abs(soundfile.read(tmp_path / "stream.wav")[0] - outputs["trained"]).max() <= 2 / 32768


def test_without_the_variable_a_checkpoint_is_refused_and_an_export_runs(toy, se, tmp_path, monkeypatch):
    from setk import checkpoint

    checkpoint.save(tmp_path / "toy.pt", models.build("toy", {}), {})
    assert se("quant", "export", tmp_path / "toy.pt", tmp_path / "toy.onnx").returncode == 0
    monkeypatch.delenv("SETK_MODELS")
    noisy, out = MINI / "test/noisy/mona_0001.flac", tmp_path / "out.wav"
    done = se("enhance", tmp_path / "toy.pt", noisy, out)
    assert done.returncode == 2 and done.err.count("\n") == 1
    assert "toy.pt: is of the model 'toy', which setk does not have; name its file in SETK_MODELS" in done.err
    assert "toy.onnx: is of the model 'toy'" in se("count", tmp_path / "toy.onnx").err
    assert se("enhance", tmp_path / "toy.onnx", noisy, out).returncode == 0


def test_hidden_files_beside_a_model_are_none(toy, monkeypatch):
    monkeypatch.setenv("SETK_MODELS", str(toy.parent))
    (toy.parent / ".#toy.py").symlink_to("me@host.1234:17")  # the lock of an editor
    (toy.parent / "._toy.py").write_bytes(b"\0")
    assert "toy" in models.names() and not [name for name in models.names() if name.startswith(".")]


def test_a_file_without_a_model_and_a_name_that_exists_are_refused(toy, monkeypatch):
    assert models.model_class("toy").presets["toy-wide"].hidden == 32 and "toy" in models.names()
    toy.with_name("fspen.py").write_text(MODEL)
    monkeypatch.setenv("SETK_MODELS", str(toy.with_name("fspen.py")))
    with pytest.raises(UserError, match="has the name of"):
        models.names()
    toy.with_name("other.py").write_text(MODEL)
    monkeypatch.setenv("SETK_MODELS", str(toy.with_name("other.py")))
    with pytest.raises(UserError, match="expected one subclass of setk.models.Model, with name = 'other'"):
        models.model_class("other")
    monkeypatch.setenv("SETK_MODELS", str(toy.with_name("missing.py")))
    with pytest.raises(UserError, match="does not exist"):
        models.names()
