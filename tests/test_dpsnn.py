"""DPSNN: a plain loop over frames in float64, written from the equations of the paper's description, is the model."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from bench.dpsnn import frame_by_frame, in_onnx
from conftest import PATIENCE, ROOT, command

from setk import audio, checkpoint, engines, models
from setk.data import lists
from setk.cost import macs, synops
from setk.core.errors import UserError
from setk.nn import spiking_operators, surrogates
from setk.models.dpsnn import DPSNN
from setk.nn.spiking import AdaptiveRecurrent, Binary, LeakyConv, Readout
from setk.training.losses import Example, LOSSES

SMALL = dict(encoder=32, width=16, hidden=32, blocks=2, context=0.005)
BUILDS = {"base": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}  # of the kernel -> what torch calls such a processor
torch.set_num_threads(1)


def use(build: str, monkeypatch):
    """Have the layers run in one build of the kernel, or as the loop."""
    if build == "loop":
        monkeypatch.setattr(spiking_operators, "_kernel", None)
        return
    here = list(BUILDS.values()).index(torch.backends.cpu.get_cpu_capability())
    if list(BUILDS).index(build) > here:
        pytest.skip(f"this processor has no {build}")
    with monkeypatch.context() as other:
        other.setattr(torch.backends.cpu, "get_cpu_capability", lambda: BUILDS[build])
        library = spiking_operators._load()
    if library is None:
        pytest.skip("the spiking kernel is not built (python setup.py build_ext --inplace)")
    monkeypatch.setattr(spiking_operators, "_kernel", library)


@pytest.fixture(params=[*BUILDS, "loop"])
def form(request, monkeypatch):
    use(request.param, monkeypatch)
    return request.param


def excited(seed=5, **values) -> DPSNN:
    """A model with random weights in which every layer spikes, and no two neurons of a layer are alike."""
    torch.manual_seed(seed)
    model = models.build("dpsnn", values).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.05 * torch.randn_like(p)
        model.encoder.weight *= 8
        for block in model.blocks:
            block.scnn.conv.weight.abs_().mul_(2)
            block.srnn.dense.weight.mul_(4)
            for p in (block.srnn.alpha, block.srnn.ro):
                p += torch.randn_like(p)
        model.readout.alpha += torch.randn_like(model.readout.alpha)
    return model


def noise(rng, samples, batch=1):
    level = np.interp(np.arange(samples), np.linspace(0, samples, 9), 10 ** rng.uniform(-2, -0.3, 9))
    return (rng.standard_normal((batch, samples)) * level).astype(np.float32)


def clear_signal(samples, batch=1):
    """By this seed no neuron comes nearer its threshold than 1e-5, where the rounding of float32 would decide."""
    return noise(np.random.default_rng(12), samples, batch)


def spikes_of(model):
    """Filled with what the spiking layers give, as the model runs."""
    found = {}

    def keep(name):
        def hook(module, args, output):
            found.setdefault(name, []).append(output[0] if isinstance(output, tuple) else output)

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (Binary, LeakyConv, AdaptiveRecurrent, Readout)):
            module.register_forward_hook(keep(name))
    return found


def logistic(x):
    return 1 / (1 + np.exp(-x))


def plain(model, x):
    """Signal [n], preceded by silence, to its output and the spikes of each layer, in float64, one frame after another."""
    c, w = model.config, {k: v.double().numpy() for k, v in model.state_dict().items()}
    context = round(c.context * 16000 / c.hop)
    x = np.concatenate([np.zeros(context * c.hop), x.astype(np.float64)])
    out, spikes = np.zeros(len(x)), {}
    history = [[] for _ in model.blocks]
    for j in range(1, c.blocks):
        history[j] = [np.zeros(c.width)] * context
    neurons = None
    for f in range((len(x) - c.window) // c.hop + 1):
        e = np.maximum(w["encoder.weight"] @ x[f * c.hop : f * c.hop + c.window] + w["encoder.bias"], 0)
        n = (e - e.mean()) / np.sqrt(e.var() + 1e-5) * w["norm.weight"] + w["norm.bias"]
        s = (w["binary.dense.weight"] @ n + w["binary.dense.bias"] - w["binary.threshold"] > 0).astype(float)
        history[0].append(s)
        if f < context:
            continue
        at = f - context
        period = round(c.segment_reset * 16000 / c.hop)
        if at == 0 or (period and (at + 1) % period == 0):  # the neurons' own frame 0
            neurons = [
                dict(v=0.0, m=np.zeros(c.width), s=np.zeros(c.width), eta=np.full(c.width, 1.6)) for _ in model.blocks
            ]
            r = np.zeros(c.width)
            if at:  # this frame lies across the border
                for past in history[1:]:
                    past.append(np.zeros(c.width))
                continue
        spikes.setdefault("binary", []).append(s)
        every = []
        for j, b in enumerate(neurons):
            key = f"blocks.{j}."
            if j:
                history[j].append(s)
            d = np.stack(history[j][-context - 1 :]).repeat(c.hidden // c.width, 1)
            d = (w[key + "scnn.conv.weight"][:, 0].T * d).sum(0) + w[key + "scnn.conv.bias"]
            b["v"] = b["v"] + (d - b["v"]) * logistic(w[key + "scnn.w"])
            s = (b["v"] - 1 >= 0).astype(float)
            b["v"] = b["v"] * (1 - s)
            spikes.setdefault(key + "scnn", []).append(s)
            alpha, ro = logistic(w[key + "srnn.alpha"]), logistic(w[key + "srnn.ro"])
            current = (
                w[key + "srnn.dense.weight"] @ s
                + w[key + "srnn.dense.bias"]
                + w[key + "srnn.recurrent.weight"] @ b["s"]
                + w[key + "srnn.recurrent.bias"]
            )
            b["eta"] = ro * b["eta"] + (1 - ro) * b["s"]
            theta = 1.6 + 0.184 * b["eta"]
            b["m"] = alpha * b["m"] + (1 - alpha) * current - theta * b["s"]
            b["s"] = s = (b["m"] - theta > 0).astype(float)
            spikes.setdefault(key + "srnn", []).append(s)
            every.append(s)
        a = logistic(w["readout.alpha"])
        r = a * r + (1 - a) * (w["readout.dense.weight"] @ np.concatenate(every) + w["readout.dense.bias"])
        q = np.where(r > w["readout.threshold"], r, 0)
        mask = logistic(w["mask.weight"] @ q + w["mask.bias"])
        out[f * c.hop : f * c.hop + c.window] += w["decoder.weight"] @ (e * mask) + w["decoder_bias"]
    return out[context * c.hop :], {k: np.stack(v) for k, v in spikes.items()}


@pytest.mark.parametrize("config", [{}, {"segment_reset": 0.1}, SMALL, {**SMALL, "segment_reset": 0.05}], ids=str)
@torch.no_grad()
def test_the_model_is_the_plain_loop(form, config):
    model = excited(**config)
    x = clear_signal(16000)[0]
    expected, spikes = plain(model, x)
    found = spikes_of(model)
    got = model.enhance(torch.from_numpy(x[None]))[0].numpy()
    # The loop stops with the last whole frame; the model goes on by the frame that ends after the signal.
    assert np.abs(got - expected)[: -model.config.hop].max() < 1e-5 * np.abs(expected).max()
    period = round(model.config.segment_reset * 400)
    frames = np.arange(1, 400)
    frames = frames[frames % period != 0] if period else frames
    for name, s in spikes.items():
        assert 0.02 < s.mean() < 0.98, name
        assert np.array_equal(found[name][0][0].numpy()[frames], s), name


@pytest.mark.parametrize("config", [{}, SMALL], ids=str)
def test_gradients_are_those_of_plain_autograd(form, config):
    """Against a loop over frames in float64, all of it back-propagated by torch, surrogates from its distributions."""
    dtype = torch.float64 if form == "loop" else torch.float32
    model, slow = excited(**config).train().to(dtype), excited(**config).double()
    frames = model.transform.analysis(torch.from_numpy(clear_signal(2400, 5)).to(dtype))
    seed = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    out, expected = model.whole(frames), frame_by_frame(slow, frames.double())
    assert (out - expected).abs().max() < 1e-5 * expected.abs().max()
    rates = {name: x.mean() for name, x in model.extras.items()}
    assert set(rates) == {"spikes", "readout", "dormant"} and 0.02 < rates["spikes"] < 0.98
    (out * seed).sum().backward()
    (expected * seed).sum().backward()
    for (name, p), q in zip(model.named_parameters(), slow.parameters(), strict=True):
        if name == "readout.threshold":
            assert p.grad == 0 and q.grad is None
        else:
            assert (p.grad - q.grad).norm() < 1e-4 * q.grad.norm(), name


@pytest.mark.parametrize("size", [(1, 1, 3, 16, 16), (6, 5, 1, 16, 48), (4, 9, 4, 32, 16), (9, 3, 5, 16, 80)], ids=str)
@pytest.mark.parametrize("build", BUILDS)
def test_kernel_and_loop_are_one(size, build, monkeypatch):
    """Layers of odd sizes, with frames at rest and states that are not; B, T, taps, inputs, width."""
    torch.manual_seed(sum(size))
    batch, time, taps, inputs, width = size
    x = (torch.rand(batch, time, inputs) < 0.4).float().requires_grad_()
    hold = torch.rand(batch, time) < 0.2
    fan = (
        LeakyConv(inputs, inputs * (width // inputs), taps)
        if width % inputs == 0
        else LeakyConv(inputs, 2 * inputs, taps)
    )
    srnn, readout = AdaptiveRecurrent(inputs, width), Readout(inputs, width)
    with torch.no_grad():
        srnn.dense.bias += 1.5
        fan.conv.weight += 0.4
    cases = [
        (fan, [torch.rand_like(s) for s in fan.init_state(batch)]),
        (readout, [torch.randn(batch, width)]),
        (srnn, [torch.randn(batch, width), torch.rand(batch, width), (torch.rand(batch, width) < 0.3).float()]),
    ]
    for layer, state in cases:
        results = []
        for form in (build, "loop"):
            use(form, monkeypatch)
            out, *after = layer(x, *state, hold)
            seed = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
            grads = torch.autograd.grad(out, [x, *layer.parameters()], seed, allow_unused=True)
            results.append([out, *after, *(g for g in grads if g is not None)])
            monkeypatch.undo()
        for a, b in zip(*results, strict=True):
            assert (a - b).norm() <= 2e-6 * max(1, b.norm()), type(layer).__name__


@pytest.mark.full
@pytest.mark.skipif(not spiking_operators.kernel_available(), reason="the kernel is not built")
def test_the_kernels_are_operators_of_torch():
    """Their shapes, strides and gradients are registered as torch's own checks want them."""
    torch.manual_seed(2)
    hold = torch.rand(3, 5) < 0.3

    def some(*shape):
        return torch.randn(shape).requires_grad_()

    def state(*shape):
        return torch.rand(shape)

    torch.library.opcheck(spiking_operators.dense, (some(3, 5, 8), some(16, 8), some(16)))
    torch.library.opcheck(
        spiking_operators.leak, (some(3, 8, 16), some(4, 16), some(16), some(16), hold, state(3, 16), 1.0)
    )
    weights = some(16, 8), some(16, 16), some(16), some(16), some(16)
    torch.library.opcheck(
        spiking_operators.adaptive, (some(3, 5, 8), *weights, hold, *(state(3, 16) for _ in range(3)))
    )


def test_surrogates_have_the_values_of_their_sources():
    assert surrogates.multi_gaussian(torch.zeros(1)).item() == pytest.approx(0.43911, abs=1e-5)
    u = torch.linspace(-60, 60, 400001, dtype=torch.float64)
    assert torch.trapezoid(surrogates.multi_gaussian(u), u).item() == pytest.approx(0.5 * (1.15 - 2 * 0.15), abs=1e-6)
    assert surrogates.arctan(torch.tensor([0.0, 1.0])).tolist() == pytest.approx([1, 1 / (1 + math.pi**2)])


def test_comparisons_are_strict_but_for_the_leaky_neuron():
    u = torch.tensor([-1e-30, 0.0, 1e-30], requires_grad=True)
    assert surrogates.above(u).tolist() == [0, 0, 1] and surrogates.reached(u).tolist() == [0, 1, 1]
    layer = LeakyConv(16, 16, 1)
    with torch.no_grad():
        layer.conv.weight.fill_(2), layer.conv.bias.zero_()
        spikes, _, v = layer(torch.ones(1, 3, 16), *layer.init_state(1), torch.zeros(1, 3, dtype=torch.bool))
    assert (spikes == 1).all() and (v == 0).all()  # half of 2 is exactly the threshold, and the reset is hard


@torch.no_grad()
def test_a_stream_has_the_spikes_of_the_whole(form, rng):
    """Bit for bit with the kernel, whose sums do not know of chunks or batches; parts of a batch as well."""
    model = excited(segment_reset=float(rng.choice([0, 0.0825])))
    frames = model.transform.analysis(torch.from_numpy(noise(rng, 4000 if form == "loop" else 16000, 3)))
    found = spikes_of(model)
    model(frames, model.init_state(3))
    whole = {name: s[0] for name, s in found.items() if name != "readout"}
    found.clear()
    state, at = model.init_state(1), 0
    while at < frames.shape[1]:
        n = int(rng.integers(1, 9))
        _, state = model(frames[1:2, at : at + n], state)
        at += n
    for name, spikes in whole.items():
        differ = (torch.cat(found[name], 1) != spikes[1:2]).float().mean()
        assert differ < 0.01 if form == "loop" else differ == 0, name


def test_size_and_start():
    model = models.build_preset("dpsnn")
    assert models.count_parameters(model)["params"] == sum(p.numel() for p in model.parameters()) == 372_996
    assert len(list(model.parameters())) == 24 and model.latency_ms == 5.0
    rates = synops.spike_rates(model.eval(), [torch.from_numpy(noise(np.random.default_rng(0), 16000)[0])])
    assert all(0.005 < rate < 0.7 for rate in rates.values()), rates  # or it would not learn
    two = models.build("dpsnn", {"blocks": 2})
    assert models.count_parameters(two)["params"] == 372_996 + 1537 + 512 + 2 * 65792 + 65536
    for context in (0.004, 0.0):
        with pytest.raises(UserError, match="whole hops of 40 samples, context 1 or more"):
            models.build("dpsnn", {"context": context})
    with pytest.raises(UserError, match="multiple of width"):
        models.build("dpsnn", {"hidden": 300})


def test_a_step_exports_and_runs_alike(rng):
    """The traced step, its states in and out, against the model's own chunks."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    del onnxruntime
    model = excited(**SMALL)
    frames = model.transform.analysis(torch.from_numpy(noise(rng, 4000)))
    hop = in_onnx(model)
    got = np.concatenate([hop(frames[:, t : t + 1]) for t in range(frames.shape[1])], 1)
    with torch.no_grad():
        expected = model(frames, model.init_state(1))[0].numpy()
    # A sum that rounds otherwise may flip a spike now and then; most frames have none.
    close = np.abs(got - expected).max((0, 2)) < 1e-5 * np.abs(expected).max()
    assert close.mean() > 0.5 and close[:20].all()


def test_layers_that_do_not_learn_are_not_dormant():
    model = excited(**SMALL).train()
    layers = [model.readout, *(layer for block in model.blocks for layer in (block.scnn, block.srnn))]
    frames = model.transform.analysis(torch.randn(2, 2000))
    for fixed in (layers[:1], layers):
        for layer in fixed:
            layer.eval()
        model(frames, model.init_state(2))
        found = model.extras["dormant"]
        assert found.isfinite().all() and (len(fixed) < len(layers) or not found.any())


def test_the_frame_of_a_stream_rests_where_the_whole_does():
    model = excited(**SMALL, segment_reset=0.02)
    wave = 0.1 * torch.randn(1, 4000)
    frames, state, single = model.transform.analysis(wave), model.init_state(1), []
    for t in range(frames.shape[1]):
        y, state = model(frames[:, t : t + 1], state)
        single.append(y)
    whole = model(frames, model.init_state(1))[0]
    rest = (whole == 0).all(-1)[0]
    assert rest[:: int(model.period)].all() and not rest[1 : int(model.period)].any()
    torch.testing.assert_close(torch.cat(single, 1), whole, atol=1e-6, rtol=0)


def test_the_figures_of_the_paper_follow_from_the_rates():
    """papers/dpsnn.md A8: bounds and two measured sets of rates, millions of operations per second."""
    model = models.build_preset("dpsnn")
    layers = {row.layer: row.macs_per_second for row in macs.layers(model, seconds=0.01)}
    assert sum(layers.values()) == 369_920 * 400 and layers["blocks.0.scnn.conv"] == 1280 * 400

    def power(*rates):
        named = dict(zip(["binary", "blocks.0.scnn", "blocks.0.srnn", "readout"], rates))
        return synops.synops(model, named, published=True)

    assert power(0, 0, 0, 0)["power_proxy"] == 46_696_400 and power(0, 0, 0, 0)["pdp_proxy"] == 233_482
    assert power(1, 1, 1, 1)["power_proxy"] == pytest.approx(152.07e6, rel=1e-4)
    start, fired = power(0.5302, 0.0080, 0, 0.4961), power(0.4945, 0.2354, 0.1609, 0.4967)
    assert start["power_proxy"] == pytest.approx(60.39e6, rel=1e-3) and fired["power_proxy"] == pytest.approx(
        76.53e6, rel=1e-3
    )
    assert fired["pdp_proxy"] == pytest.approx(0.3827e6, rel=1e-3)
    assert fired["synops_per_second"] + 10 * fired["neuron_ops_per_second"] == pytest.approx(32.91e6, rel=1e-3)
    assert fired["neuron_ops_per_second"] == 768 * 400 and fired["dense_ops_per_second"] == 109_061 * 400
    own = synops.synops(model, fired["spike_rates"])
    assert fired["synops_per_second"] - own["synops_per_second"] == pytest.approx(
        400 * 65536 * (0.2354 - 0.1609), rel=1e-6
    )


def test_rates_are_measured_on_the_waves(rng):
    model = excited(**SMALL)
    waves = [torch.from_numpy(noise(rng, n)[0]) for n in (3000, 9000)]
    rates = synops.spike_rates(model, waves)
    found = spikes_of(model)
    with torch.no_grad():
        for wave in waves:
            model.enhance(wave[None])
    for name, rate in rates.items():
        events = torch.cat([x.flatten() for x in found[name]])
        assert rate == pytest.approx((events != 0).float().mean().item(), abs=1e-6)
    assert set(rates) == {"binary", "readout", *(f"blocks.{j}.{k}" for j in (0, 1) for k in ("scnn", "srnn"))}


def test_the_losses_of_activity_see_all_frames_or_the_last(rng):
    model = excited(**SMALL).train()
    wave = torch.from_numpy(noise(rng, 4000, 3))
    frames = model.whole(model.transform.analysis(wave))
    example = Example(model.transform, wave, wave, frames, model.extras)
    binary, active = model.extras["spikes"], model.extras["readout"]
    assert LOSSES["spikes"](example).item() == pytest.approx(binary.mean().item())
    assert LOSSES["readout"](example).item() == pytest.approx(active.mean().item())
    assert LOSSES["spikes_last_frame"](example).item() == pytest.approx(binary[:, -1].mean().item())
    assert LOSSES["readout_last_frame"](example).item() == pytest.approx(active[:, -1].mean().item())
    LOSSES["spikes"](example).backward()
    assert model.binary.threshold.grad < 0  # a higher threshold, fewer spikes
    with pytest.raises(UserError, match="needs a spiking model"):
        LOSSES["readout"](Example(model.transform, wave, wave, frames, {}))


def test_a_dormant_neuron_is_one_that_never_fires_and_its_loss_raises_it(form, rng):
    dtype = torch.float64 if form == "loop" else torch.float32
    model = excited(**SMALL).train().to(dtype)
    srnn, readout = model.blocks[0].srnn, model.readout
    with torch.no_grad():
        srnn.dense.bias[:3] = -9
        readout.dense.bias[:2] = -5
    wave = torch.from_numpy(noise(rng, 4000, 2)).to(dtype)
    frames = model.transform.analysis(wave)
    found = spikes_of(model)
    out = model.whole(frames)
    names = [f"blocks.{i}.{part}" for i in range(len(model.blocks)) for part in ("scnn", "srnn")] + ["readout"]
    silent = {name: found[name][0].amax((0, 1)) == 0 for name in names}
    dormant = model.extras["dormant"].split([len(silent[name]) for name in names])
    for name, shortfall in zip(names, dormant):
        # A threshold that is still adapted may hold a membrane that is high enough at rest.
        late = silent[name] & (shortfall == 0) if name.endswith("srnn") else torch.zeros_like(silent[name])
        assert torch.equal(shortfall > 0, silent[name] & ~late), name
        assert late.sum() <= 2, name
    assert silent["blocks.0.srnn"][:3].all() and silent["readout"][:2].all() and not silent["readout"].all()
    e = Example(model.transform, wave, wave, out, model.extras)
    LOSSES["dormant"](e).backward()
    assert (srnn.dense.bias.grad[:3] < 0).all() and (readout.dense.bias.grad[:2] < 0).all()


def test_dormancy_is_the_distance_of_the_highest_membrane():
    layer = AdaptiveRecurrent(4, 16).double()
    with torch.no_grad():
        layer.dense.weight.zero_(), layer.recurrent.weight.zero_(), layer.recurrent.bias.zero_()
        layer.dense.bias.fill_(1.0)
        layer.dense.bias[0] = 5.0
    x, hold = torch.zeros(1, 30, 4, dtype=torch.float64), torch.zeros(1, 30, dtype=torch.bool)
    layer.train()(x, *layer.init_state(1), hold)
    assert layer.dormant[0] == 0
    # A leaky integrator of 1 comes to 1; the threshold is 1.6, and the margin above it 0.1.
    torch.testing.assert_close(layer.dormant[1:], torch.full((15,), 0.7, dtype=torch.float64), atol=1e-6, rtol=0)


def test_suppression_raises_the_threshold_of_the_readout_under_the_same_weights(se, trained, tmp_path, rng):
    engine = engines.model(str(trained), settings=["suppression=0.4"])
    model, changed = checkpoint.load(trained)[0], engine.model
    wave = [torch.from_numpy(noise(rng, 8000)[0])]
    plain, fewer = (synops.report(m, wave) for m in (model, changed))
    assert fewer["spike_rates"]["readout"] < plain["spike_rates"]["readout"]
    assert fewer["synops_per_second"] < plain["synops_per_second"]
    assert fewer["spike_rates"]["binary"] == plain["spike_rates"]["binary"]
    found, after = spikes_of(model), spikes_of(changed)
    with torch.no_grad():
        model.enhance(wave[0][None]), changed.enhance(wave[0][None])
    before = found["readout"][0]
    torch.testing.assert_close(after["readout"][0], torch.where(before > model.readout.threshold + 0.4, before, 0))


@pytest.mark.full
def test_a_value_of_the_config_is_set_by_the_commands(se, trained, tmp_path):
    some = tmp_path / "some.scp"
    some.write_text("".join((ROOT / "data/mini/valid/noisy.scp").read_text().splitlines(True)[:2]))
    counted = [
        json.loads(se("count", trained, "--list", some, "--json", *extra).out)["synops_per_second"]
        for extra in ([], ["--set", "suppression=0.5"])
    ]
    assert counted[1] < counted[0]
    out = tmp_path / "out"
    done = se("enhance", trained, "--set", "suppression=0.5", "--list", some, "--out", out, "--jobs", "2")
    assert done.returncode == 0 and len(done.out.splitlines()) == 2
    model = engines.model(str(trained), settings=["suppression=0.5"]).model
    utt, path = done.out.splitlines()[0].split()
    noisy = audio.read_mono(str(ROOT / lists.read_list(some)[utt]))[0]
    with torch.no_grad():
        expected = model.enhance(torch.from_numpy(noisy)[None])[0].numpy()
    assert np.abs(audio.read_mono(path)[0] - expected).max() < 1e-3
    # Another value is another model, whose outputs do not go to the same directory.
    assert "another model" in se("enhance", trained, "--list", some, "--out", out).err
    refused = se("enhance", trained, "--set", "width=32", "--list", some, "--out", tmp_path / "no")
    assert refused.returncode == 2 and "changes the sizes" in refused.err
    assert "suppresion" in se("count", trained, "--set", "suppresion=1").err


# Through the commands.


@pytest.mark.parametrize("layer, count, longest", [("readout", 9, 0.5), ("adaptive", 7, 0.1)])
def test_slow_neurons_remember_for_longer(tmp_path, trained, layer, count, longest):
    """The least used neurons of a layer get the time constants; what they do is as stated, and all others are as they were."""
    out = tmp_path / "slow.pt"
    script = [sys.executable, "-P", ROOT / "recipes/open/slow_neurons.py", trained, out, layer, count, longest]
    subprocess.run(list(map(str, script)), check=True)
    (before, _), (after, about) = checkpoint.load(trained), checkpoint.load(out)
    assert about["provenance"]["slow"] == {layer: [count, longest]}
    old, new = (model.readout if layer == "readout" else model.blocks[0].srnn for model in (before, after))
    slow = old.alpha != new.alpha
    taus = -0.0025 / torch.sigmoid(new.alpha[slow].detach().double()).log()
    assert int(slow.sum()) == count and float(taus.max()) == pytest.approx(longest, rel=1e-3)
    assert torch.equal(old.dense.weight[~slow], new.dense.weight[~slow])
    if layer == "readout":
        used = before.mask.weight.norm(dim=0)
        assert used[slow].max() <= used[~slow].min()
        with torch.no_grad():
            before.mask.weight[:, slow] = 0
            wave = 0.1 * torch.randn(1, 8000)
            assert torch.equal(before.enhance(wave), after.enhance(wave))
    else:
        per_hop = [(1 - torch.sigmoid(some.alpha))[slow] * some.recurrent.weight[slow, 0] for some in (old, new)]
        part = (per_hop[1] / per_hop[0]).detach()
        assert float(part.max()) == pytest.approx(1, rel=1e-3) and float(part.min()) < 0.9
        assert torch.equal(before.readout.dense.weight, after.readout.dense.weight)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("dpsnn") / "lively.pt"
    checkpoint.save(path, excited(), {})
    return path


@pytest.mark.full
def test_se_count_measures_spikes_on_a_list(se, trained, tmp_path):
    some = tmp_path / "some.scp"
    some.write_text("".join((ROOT / "data/mini/valid/noisy.scp").read_text().splitlines(True)[:2]))
    done = se("count", trained, "fspen", "--list", some, "--published-rates")
    head, cells, other = (line.split("\t") for line in done.out.splitlines())
    row = dict(zip(head, cells))
    assert row["macs_per_second"] == str(369_920 * 400) and row["latency_ms"] == "5"
    model, _ = checkpoint.load(trained)
    waves = [torch.from_numpy(audio.read_mono(str(ROOT / path))[0]) for path in lists.read_list(some).values()]
    expected = synops.report(model, waves, published=True)
    for name in ("spike_rates", "silent_neurons", "dense_layers"):
        found = {key: float(value) for key, _, value in (x.partition("=") for x in row.pop(name).split(","))}
        assert found == pytest.approx(expected.pop(name), rel=1e-3), name
    assert {k: int(row[k]) for k in expected} == expected
    assert other[head.index("synops_per_second")] == other[head.index("spike_rates")] == "nan"
    assert se("count", trained, "--list", "no.scp").returncode == 2


@pytest.mark.full
def test_a_live_pipe_answers_after_five_milliseconds(trained):
    """Hop by hop through the real filter: what can be final after k samples is there when k are in, and not before."""
    pipe = subprocess.Popen(
        command("enhance", trained, "-", "-", "--raw"),
        cwd=ROOT,
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    x = (noise(np.random.default_rng(1), 1600)[0] * 20000).astype("<i2").tobytes()
    os.set_blocking(pipe.stdout.fileno(), False)
    got, hop = b"", 80  # bytes of 2.5 ms

    def take(bytes_wanted, seconds):
        nonlocal got
        until = time.monotonic() + seconds
        while len(got) < bytes_wanted and time.monotonic() < until:
            got += pipe.stdout.read(1 << 16) or b""
            time.sleep(0.001)

    for k in range(len(x) // hop):
        pipe.stdin.write(x[k * hop : (k + 1) * hop])
        take(k * hop, PATIENCE)
        assert len(got) == k * hop  # a sample waits for the end of the frame that begins with it: 80 samples, 5.0 ms
    take(len(got) + 1, 0.2)
    assert len(got) == len(x) - hop
    pipe.stdin.close()
    os.set_blocking(pipe.stdout.fileno(), True)
    assert len(got + pipe.stdout.read()) == len(x) and pipe.wait(PATIENCE) == 0


@pytest.mark.parametrize("samples", [0, 1, 39, 40, 79, 16001])
def test_out_length_is_in_length(samples):
    wave = torch.from_numpy(noise(np.random.default_rng(samples), samples, 2)) if samples else torch.zeros(2, 0)
    with torch.no_grad():
        assert excited(**SMALL).enhance(wave).shape == wave.shape
