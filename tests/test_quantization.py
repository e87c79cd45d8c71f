"""Quantizers against their formulas, elementwise; where they stand; what a checkpoint and a run remember of them."""

from __future__ import annotations

import copy
import multiprocessing
import warnings

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from conftest import MINI
from setk import checkpoint, models
from setk.core import config
from setk.core.errors import UserError
from setk.nn.exporting import exporting
from setk.nn.quantization import ActivationQuantizer, Scheme, Signal, WeightQuantizer, quantize, unquantized

torch.set_num_threads(1)


class Toy(models.Model):
    """A module as quantize() wants one."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def ranged(lo, hi, method="fqse"):
    """An activation quantizer whose range is known."""
    q = ActivationQuantizer(Scheme(method, observe=1))
    q.lo.data.fill_(lo)
    q.hi.data.fill_(hi)
    q.seen.fill_(1)
    return q


def small(preset, method=None, observe=1, seed=1):
    torch.manual_seed(seed)
    name, cfg = models.presets()[preset]
    return models.build(name, config.plain(cfg), method and {"method": method, "observe": observe})


@pytest.mark.parametrize("lo, hi", [(-2.0, 3.0), (0.0, 1.0), (-1.0, 0.0), (0.5, 2.0), (-0.1, 7.3)])
def test_an_activation_is_the_nearest_of_256_levels_of_which_zero_is_one(lo, hi, rng):
    q = ranged(lo, hi)
    scale, zero = q.grid()
    low, high = min(lo, 0), max(hi, 0)
    assert float(scale) == pytest.approx((high - low) / 255)
    assert zero.dtype == torch.int32 and 0 <= zero <= 255 and abs(float(zero) + low / float(scale)) <= 0.5 + 1e-3
    x = torch.from_numpy(rng.uniform(2 * low - 1, 2 * high + 1, 4096).astype(np.float32))
    levels = (torch.arange(256) - zero) * scale
    expected = levels[(x[:, None] - levels).abs().argmin(1)]
    found = q(x)
    off = (found - expected).abs() > 1e-6
    assert off.float().mean() < 1e-3 and (found - expected).abs().max() <= 1.001 * scale  # ties may go either way
    assert q(torch.zeros(3)).tolist() == [0, 0, 0]


def test_the_gradients_of_an_activation_are_those_of_the_table(rng):
    """FQSE: inside 1, (u - c) / 255, (c - u) / 255; below 0, 1, 0; above 0, 0, 1, each to x, lo and hi."""
    q = ranged(-1.7, 2.9)
    scale, zero = (float(t) for t in q.grid())
    for x in rng.uniform(-4, 5, 200):
        if abs((x / scale) % 1 - 0.5) < 1e-3:
            continue
        one = torch.tensor([x], dtype=torch.float32, requires_grad=True)
        q.zero_grad()
        q(one).backward()
        u = one.item() / scale + zero
        c = round(u)
        expected = (1, (u - c) / 255, (c - u) / 255) if 0 <= c <= 255 else (0, 1, 0) if c < 0 else (0, 0, 1)
        assert [float(one.grad), float(q.lo.grad), float(q.hi.grad)] == pytest.approx(expected, abs=1e-5)


def test_the_gradients_of_a_tensor_are_the_sums_of_its_elements(rng):
    q = ranged(-1.0, 2.0)
    x = torch.from_numpy(rng.normal(0, 1.5, (2, 5, 40)).astype(np.float32)).requires_grad_()
    dy = torch.from_numpy(rng.standard_normal(x.shape).astype(np.float32))
    q(x).backward(dy)
    whole = x.grad, q.lo.grad, q.hi.grad
    q.zero_grad()
    x.grad = None
    for i in np.ndindex(x.shape):
        q(x[i].view(1)).backward(dy[i].view(1))
    for a, b in zip(whole, (x.grad, q.lo.grad, q.hi.grad)):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_frozen_ranges_take_no_gradient_and_round_alike(rng):
    x = torch.from_numpy(rng.normal(0, 2, 500).astype(np.float32)).requires_grad_()
    learned, frozen = ranged(-1, 2), ranged(-1, 2, "vanilla")
    assert not list(frozen.parameters())
    grads = [torch.autograd.grad(q(x).sum(), x)[0] for q in (learned, frozen)]
    assert torch.equal(*grads) and torch.equal(learned(x), frozen(x))


@pytest.mark.parametrize(
    "shape, dims", [((6, 4, 3), (0,)), ((4, 1, 32), (1,)), ((1, 5, 3), (0,)), ((3, 12, 5), (0, 1)), ((7, 9), (0,))]
)
def test_a_weight_is_rounded_channel_by_channel_and_learns_by_the_table(shape, dims, rng):
    channels = tuple(n if d in dims else 1 for d, n in enumerate(shape))
    w = torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_()
    q = WeightQuantizer(w, dims, Scheme("fqse"))
    peak = w.detach().abs().amax([d for d in range(len(shape)) if d not in dims]).flatten()
    assert torch.allclose(q.grid(), peak / 128)
    with torch.no_grad():
        q.peak *= 0.8  # so that some are clipped
    scale = q.grid().detach().view(channels)
    u = w.detach() / scale
    c = u.round().clamp(-128, 127)
    assert torch.equal(q.codes(w), c.to(torch.int8))
    dy = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    y = q(w)
    assert torch.equal(y, c * scale)
    y.backward(dy)
    inside = u.round() == c
    assert not inside.all()
    assert torch.equal(w.grad, dy * inside)
    dscale = (dy * torch.where(inside, c - u, c)).sum_to_size(channels).flatten()
    assert torch.allclose(q.peak.grad, dscale / 128, atol=1e-5)


def test_ranges_are_observed_in_training_and_nowhere_else(rng):
    q = ActivationQuantizer(Scheme("fqse", observe=3))
    batches = [torch.from_numpy(rng.normal(0, s, 100).astype(np.float32)) for s in (1, 4, 2)]
    q.eval()
    assert torch.equal(q(batches[0]), batches[0]) and q.seen == 0 and q.lo == 0
    q.train()
    lo = None
    for x in batches:
        assert torch.equal(q(x), x)
        lo = float(x.min()) if lo is None else 0.9 * lo + 0.1 * float(x.min())
    assert q.lo.item() == pytest.approx(lo, rel=1e-5) and q.seen == 3
    x = batches[0]
    assert not torch.equal(q(x), x)
    q.eval()
    assert not torch.equal(q(x), x) and q.seen == 3 and q.lo.item() == pytest.approx(lo, rel=1e-5)


def test_a_batch_that_is_no_number_leaves_the_range_as_it_was():
    q = ActivationQuantizer(Scheme("fqse", observe=3))
    q(torch.tensor([-1.0, 2.0]))
    q(torch.tensor([torch.nan, 1.0]))
    assert q.seen == 1 and (q.lo.item(), q.hi.item()) == (-1, 2)


def _observe(rank, x, path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}/ranks", rank=rank, world_size=2)
    q = ActivationQuantizer(Scheme("fqse", observe=2))
    for batch in x:
        q(batch[rank::2])
    torch.save(q.state_dict(), path / f"{rank}.pt")


def test_ranks_observe_one_range(tmp_path, rng):
    x = torch.from_numpy(rng.standard_normal((2, 4, 50)).astype(np.float32))
    ranks = [
        multiprocessing.get_context("fork").Process(target=_observe, args=(rank, x, tmp_path)) for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    alone = ActivationQuantizer(Scheme("fqse", observe=2))
    for batch in x:
        alone(batch)
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == dict(alone.state_dict())


def test_the_quantizers_of_conv_tasnet_stand_where_the_paper_has_them():
    """FQSE's table: 200 and 101, vanilla's 199 and 100, less the two behind the last residual, which nothing reads; the
    splitter's planes have one here, which alters nothing and tells the exporter their scale."""
    blocks = [
        f"masker/TCN/{i}/{part}"
        for i in range(24)
        for part in (*(f"shared_block/{k}" for k in (1, 2, 4, 5)), *(["res_conv"] if i < 23 else []), "skip_conv")
    ]
    adds = [f"masker/{kind}/{i}" for kind in ("residual_adds", "skip_adds") for i in range(23)]
    shared = {
        "input",
        "encoder",
        "masker/bottleneck/0",
        "masker/bottleneck/1",
        *blocks,
        *adds,
        "masker/mask_net/0",
        "masker/mask_net/2",
        "mul",
        "output",
    }
    for preset, method, besides, weights in (
        ("conv_tasnet", "vanilla", set(), 100),
        ("fqse", "fqse", {"sub", "residual_output"}, 101),
    ):
        model = small(preset, method)
        assert set(model.activation_quantizers) == shared | besides
        assert len(shared | besides) == {"conv_tasnet": 199 - 2, "fqse": 200 - 2 + 1}[preset]
        assert sum(isinstance(m, WeightQuantizer) for m in model.modules()) == weights
        assert (
            models.count_parameters(model)["params"]
            == models.count_parameters(unquantized(model))["params"]
            == {"conv_tasnet": 5000881, "fqse": 5033649}[preset]
        )
    assert len(model.decoder.parametrizations.weight[0].peak) == 1
    assert float(model.activation_quantizers["input"].grid()[0]) == 1 / 128


def test_one_quantizer_stands_behind_a_convolution_with_its_norm_and_activation():
    model = quantize(
        Toy(
            nn.Conv1d(1, 2, 1),
            nn.BatchNorm1d(2),
            nn.ELU(),
            nn.Conv1d(2, 2, 1),
            nn.PReLU(),
            nn.GroupNorm(1, 2),
            nn.ReLU(),
            nn.Conv1d(2, 2, 1),
            nn.Linear(5, 5),
            Signal(),
        ),
        Scheme(),
    )
    assert list(model.activation_quantizers) == [f"layers/{i}" for i in (2, 4, 5, 6, 7, 8, 9)]


@pytest.mark.full
@pytest.mark.parametrize(
    "preset", ["fspen", "lite_rtse", "dpsnn", "dccrn", "dpcrn_cf", "conv_tasnet-small", "fqse-small"]
)
@pytest.mark.parametrize("method", ["vanilla", "fqse"])
def test_every_model_trains_and_runs_in_eight_bits(preset, method, rng):
    plain, model = small(preset), small(preset, method)
    wave = torch.from_numpy((rng.standard_normal((2, 3200)) * 0.1).astype(np.float32))
    model.train()
    for _ in range(2):
        model.zero_grad()
        model.enhance(wave).square().mean().backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in grads.values())
    ranges = [name for name, g in grads.items() if name.endswith((".lo", ".hi", ".peak"))]
    assert bool(ranges) == (method == "fqse")
    assert sum(bool(grads[name].abs().sum() > 0) for name in ranges) >= 0.8 * len(ranges)
    with torch.no_grad(), warnings.catch_warnings():
        whole, before = model.eval().enhance(wave), plain.eval().enhance(wave)
        warnings.simplefilter("ignore")
        args = (model.transform.analysis(wave), model.init_state(2))
        with exporting(model):
            traced = torch.jit.trace(model, args, check_trace=False)(*args)[0]
        assert (traced - model(*args)[0]).square().mean() < 0.05 * before.square().mean()  # roundings flip, no more
        again = small(preset, method, seed=9).eval()
        again.load_state_dict(model.state_dict())
        assert torch.equal(again.enhance(wave), whole)
        assert 0 < (whole - before).square().mean() < before.square().mean()
        model.extras = {}
        assert torch.equal(copy.deepcopy(model).enhance(wave), whole)


@torch.no_grad()
def test_recurrent_weights_are_rounded_whatever_runs_them(rng):
    for preset, path in (("fspen", "blocks.0.intra"), ("lite_rtse", "mask_lstm")):
        model = small(preset, "vanilla").eval()
        layer, plain = model.get_submodule(path), unquantized(model).get_submodule(path)
        grouped = preset == "fspen"
        x = torch.from_numpy(rng.standard_normal((1, 2, 9, 1, 16) if grouped else (2, 9, 257)).astype(np.float32))
        assert torch.equal(layer(x)[0], plain(x)[0])
        for name in (n for n, _ in plain.named_parameters() if n.startswith("weight")):
            w = getattr(plain, name)
            assert torch.equal(w, getattr(layer, name))
            assert all(len(row.unique()) <= 256 for row in w.flatten(0, -2))
            assert not torch.equal(w, layer.get_parameter(f"parametrizations.{name}.original"))


CONF = {
    "model": "conv_tasnet",
    "segment": 0.25,
    "batch": 4,
    "steps": 12,
    "warmup": 2,
    "lr": 1e-3,
    "valid_every": 11,
    "save_every": 4,
    "config": {"window": 16, "filters": 16, "bottleneck": 8, "hidden": 12, "skip": 8, "blocks": 3, "repeats": 1},
    "losses": {"snr": 1.0},
    "metrics": ["si_sdr"],
    "best": "si_sdr",
    "augment": {"snr": [-6, 18]},
}
SPLIT = {"splitter": 2, "residual": True}


@pytest.fixture
def conf(tmp_path):
    """Write CONF with these values on top."""

    def write(**values):
        values = {**CONF, **values, "config": {**CONF["config"], **values.get("config", {})}}
        (tmp_path / "conf.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "conf.yaml"

    return write


@pytest.mark.full
@pytest.mark.parametrize("stop", [3, 9])
def test_a_run_stopped_while_or_after_ranges_are_observed_ends_with_the_same_bits(conf, tmp_path, stop, monkeypatch):
    from setk.data.datadir import DataDir
    from setk.training import loop, settings
    from setk.training.data import TrainingData

    monkeypatch.chdir(MINI.parents[1])
    s = settings.resolve(str(conf(quantization={"method": "fqse", "observe": 6}, config=SPLIT)))
    valid = dict(list(DataDir(MINI / "valid").pairs().items())[:1])
    update = loop.Run.update

    def stopping(run, batches):
        if run.step + 1 == stop:
            run._stopped = 15
        return update(run, batches)

    def go(out):
        out.mkdir(exist_ok=True)
        return loop.train(
            s, TrainingData(MINI / "train", s), valid, out, fresh=False, init=None, say=lambda message: None
        )

    assert go(tmp_path / "whole") == 0
    monkeypatch.setattr(loop.Run, "update", stopping)
    assert go(tmp_path / "parts") == 128 + 15
    seen = {
        name: int(v)
        for name, v in checkpoint.read(tmp_path / "parts" / "resume.pt")["objective"]["model"]["module"].items()
        if name.endswith("seen") and "/" in name
    }
    assert set(seen.values()) == {min(stop, 6)}
    monkeypatch.setattr(loop.Run, "update", update)
    assert go(tmp_path / "parts") == 0
    a, b = (checkpoint.read(tmp_path / part / "last.pt")["weights"] for part in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.full
def test_se_quant_train_goes_from_float_to_eight_bits_and_the_other_commands_take_it(conf, se, tmp_path):
    torch.manual_seed(3)
    plain = models.build("conv_tasnet", CONF["config"])
    checkpoint.save(tmp_path / "float.pt", plain, {})
    path = conf(quantization={"method": "fqse", "observe": 5}, config=SPLIT)
    where = ["--train", MINI / "train", "--valid", MINI / "valid", "--out", tmp_path / "exp"]
    done = se("quant", "train", path, *where, "--init", tmp_path / "float.pt")
    assert done.returncode == 0 and "write se-train" in done.err, done.err
    model, about = checkpoint.load(tmp_path / "exp" / "last.pt")
    assert about["quantization"] == {"method": "fqse", "observe": 5} and not model.training
    assert all(int(q.seen) == 5 for name, q in model.activation_quantizers.items() if name != "input")
    first = plain.masker.bottleneck[1].weight.abs().amax((1, 2))
    moved = model.masker.bottleneck[1].parametrizations.weight[0].peak
    assert not torch.equal(moved, first) and torch.allclose(moved, first, atol=0.02)  # learned, from the float model's
    noisy = next(iter((MINI / "test" / "noisy").glob("*.flac")))
    done = se("enhance", tmp_path / "exp" / "last.pt", noisy, tmp_path / "out.wav")
    assert done.returncode == 0, done.err
    done = se("count", tmp_path / "exp" / "last.pt", "--json")
    expected = models.count_parameters(models.build("conv_tasnet", {**CONF["config"], **SPLIT}))["params"]
    assert yaml.safe_load(done.out)["params"] == expected


@pytest.mark.parametrize(
    "values, told",
    [
        ({"quantization": {"method": "fqs"}}, "method 'fqs' is unknown"),
        ({"quantization": {"observe": 0}}, "observe 0"),
        ({"quantization": {"observe": 11}}, "nothing is rounded in these 11 calls"),
        ({"quantization": {"bits": 4}}, "unknown key 'bits'"),
    ],
)
def test_a_bad_quantization_block_is_one_clear_line(conf, values, told):
    from setk.training.settings import resolve

    with pytest.raises(UserError, match=told):
        resolve(str(conf(**values)))


def test_what_init_cannot_give_is_told(conf, tmp_path, monkeypatch):
    from setk.training import settings
    from setk.training.start import begin_from

    monkeypatch.chdir(MINI.parents[1])
    checkpoint.save(tmp_path / "quantized.pt", models.build("conv_tasnet", CONF["config"], {"method": "vanilla"}), {})
    checkpoint.save(tmp_path / "other.pt", models.build("conv_tasnet", {**CONF["config"], "filters": 8}), {})
    for values, name, words in (
        ({}, "quantized", "is quantized, and the config is not"),
        (
            {"quantization": {"method": "fqse", "observe": 5}},
            "quantized",
            "is quantized, and the config in another way",
        ),
        ({}, "other", "--set config=init"),
    ):
        s = settings.resolve(str(conf(**values)))
        with pytest.raises(UserError, match=words):
            begin_from(str(tmp_path / f"{name}.pt"), s)
