"""What every model promises: one forward for offline and streaming, causality, safe numbers, exact size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from setk import models
from setk.cost import macs
from setk.audio.stft import Frames, STFT, StreamTransform
from setk.engines import Overlapped, Stream, TorchEngine
from setk.core.errors import UserError

PRESETS = sorted(models.presets())
CAUSAL = [preset for preset in PRESETS if models.model_class(models.presets()[preset][0]).causal]
OTHERS = [preset for preset in PRESETS if preset not in CAUSAL]
IDLE = {
    "readout.threshold",  # DPSNN's: stands in a comparison only
    *(f"masker.TCN.{last}.res_conv.{p}" for last in (13, 23) for p in ("weight", "bias")),
}  # Conv-TasNet's: ends nowhere
torch.set_num_threads(1)


def moved(preset):
    """A preset with weights moved off their start, where masks are nearly one and hide mistakes."""
    torch.manual_seed(3)
    m = models.build_preset(preset).eval()
    with torch.no_grad():
        for p in m.parameters():
            p += 0.05 * torch.randn_like(p)
        if preset == "dpcrn_cf":  # the longest of its combs looks furthest ahead
            m.pitch.bias[0] += 5
    return m


@pytest.fixture(scope="module", params=PRESETS)
def model(request):
    return moved(request.param)


@pytest.fixture(scope="module", params=CAUSAL)
def causal(request):
    return moved(request.param)


@pytest.fixture(scope="module", params=OTHERS)
def noncausal(request):
    return moved(request.param)


def speech_like(rng, seconds, batch=1):
    """Noise with a moving level, so that states and masks move."""
    n = int(seconds * 16000)
    level = np.interp(np.arange(n), np.linspace(0, n, 40), 10 ** rng.uniform(-3, -0.7, 40))
    return torch.from_numpy((rng.standard_normal((batch, n)) * level).astype(np.float32))


def in_chunks(model, wave, sizes):
    frames, state, out, at = model.transform.analysis(wave), model.init_state(len(wave)), [], 0
    frames = torch.cat([frames, frames.new_zeros(len(frames), model.lookahead, *model.transform.shape)], 1)
    while at < frames.shape[1]:
        n = int(sizes())
        y, state = model(frames[:, at : at + n], state)
        out.append(y)
        at += n
    return model.transform.synthesis(torch.cat(out, 1)[:, model.lookahead :], wave.shape[-1])


class InProcess(TorchEngine):
    """The engine of a model that has no file."""

    def __init__(self, model):
        self.model, self.name, self.sample_rate, self.transform, self.lookahead = (
            model,
            model.name,
            16000,
            model.transform,
            model.lookahead,
        )
        self.causal, self.chunk_s = model.causal, model.chunk_s


class Smoother:
    """An engine that is not causal: each frame becomes the mean of those about it, as far as the window goes."""

    name, sample_rate, transform, lookahead, frames, causal, chunk_s = (
        "smoother",
        16000,
        Frames(16, 16),
        0,
        None,
        False,
        10.0,
    )
    reach = 5

    def start(self, channels):
        return ()

    def run(self, frames, state, active=None):
        self.longest = max(getattr(self, "longest", 0), frames.shape[1])
        at = range(frames.shape[1])
        return np.stack([frames[:, max(0, i - self.reach) : i + self.reach + 1].mean(1) for i in at], 1), ()


def affordable(model, seconds):
    """At most as many seconds as some 6 GMAC are enough for: 31 of FSPEN, 0.7 of DCCRN."""
    return min(seconds, 6e9 / sum(row.macs_per_second for row in macs.layers(model, 0.05)))


@torch.no_grad()
def test_stream_equals_offline_for_random_chunks(causal, rng):
    wave = speech_like(rng, affordable(causal, 31), 2)
    whole = causal.enhance(wave)
    assert (whole - wave).abs().max() > 1e-3
    assert (in_chunks(causal, wave, lambda: rng.integers(1, 200)) - whole).abs().max() < 1e-5


@torch.no_grad()
def test_one_frame_at_a_time_equals_offline(causal, rng):
    wave = speech_like(rng, affordable(causal, 3))
    assert (in_chunks(causal, wave, lambda: 1) - causal.enhance(wave)).abs().max() < 1e-5


@torch.no_grad()
def test_causality_and_latency_by_perturbation(causal, rng):
    """A change at sample n may show from n - latency on, and does not show before."""
    wave = speech_like(rng, 3)
    hop = causal.transform.hop
    at = int(rng.integers(16000, 32000)) // hop * hop + hop // 2  # at a frame's very edge the window hides it
    changed = wave.clone()
    changed[:, at:] += 0.1 * torch.randn(1, wave.shape[1] - at)
    first = int(torch.nonzero(causal.enhance(wave)[0] != causal.enhance(changed)[0])[0])
    declared = round(causal.latency_ms * causal.sample_rate / 1000)
    assert at - declared < first <= at - declared + hop


@torch.no_grad()
def test_a_model_that_is_not_causal_has_no_state_and_no_latency(noncausal, rng):
    wave = speech_like(rng, affordable(noncausal, 1))
    frames = noncausal.transform.analysis(wave)
    assert noncausal.init_state(1) == () and noncausal.latency_ms is None and noncausal.lookahead == 0
    out, state = noncausal(frames, ())
    assert out.shape == frames.shape and state == ()
    early = noncausal.enhance(torch.cat([wave[:, :-200], -wave[:, -200:]], 1)) - noncausal.enhance(wave)
    assert early[:, :100].abs().max() > 1e-7  # it does look ahead, else it had better be causal


@torch.no_grad()
def test_a_signal_of_one_window_is_taken_whole(noncausal, rng):
    wave = speech_like(rng, affordable(noncausal, 1), 2)
    stream = Overlapped(InProcess(noncausal), 16000, 2, noncausal.transform.frames(wave.shape[1]))
    out = np.concatenate([stream.push(wave[:, :777].numpy()), stream.push(wave[:, 777:].numpy()), stream.flush()], 1)
    offline = noncausal.enhance(wave).numpy()
    assert np.abs(out - offline).max() < 1e-4 * np.abs(offline).max()


@torch.no_grad()
def test_silence_dc_one_sample_and_full_scale_are_finite(model):
    for wave in (
        torch.zeros(1, 8000),
        torch.full((1, 8000), 0.5),
        torch.zeros(1, 0),
        torch.ones(1, 1),
        torch.ones(1, 8000) * (-1) ** torch.arange(8000),
    ):
        out = model.enhance(wave)
        assert out.shape == wave.shape and torch.isfinite(out).all()
    if isinstance(model.transform, STFT):  # an encoder and decoder of waveform have biases
        assert (model.enhance(torch.zeros(1, 8000)) == 0).all()


def test_gradients_reach_every_parameter_and_are_finite_at_silence(model, rng):
    wave = speech_like(rng, affordable(model, 1))
    wave = torch.cat([wave, torch.zeros_like(wave)]).requires_grad_()
    model.zero_grad()
    model.enhance(wave).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and (p.grad.abs().sum() > 0 or name in IDLE), name
        assert torch.isfinite(p.grad).all(), name
    assert torch.isfinite(wave.grad).all()


@torch.no_grad()
def test_items_of_a_batch_do_not_mix(model, rng):
    wave = speech_like(rng, affordable(model, 1), 3)
    alone = torch.cat([model.enhance(w[None]) for w in wave])
    assert (model.enhance(wave) - alone).abs().max() < 1e-5


@pytest.mark.parametrize("preset, low, high", [("fspen", 86130, 87870), ("fspen-79k", 78200, 79800)])
def test_fspen_has_the_size_of_its_papers(preset, low, high):
    assert low <= models.count_parameters(models.build_preset(preset))["params"] <= high


def test_paths_and_blocks_follow_the_papers_arithmetic():
    """params = fixed + D * (3792 + norms + 1904 P): papers/fspen.md 1.1."""

    def size(**values):
        config = models.config_values("fspen", "fspen-79k", values)
        return models.count_parameters(models.build("fspen", config))["params"]

    per_block = 3792 + 32
    fixed = size() - 3 * (per_block + 1904 * 8)
    for p in (1, 2, 4, 16, 32):
        assert size(groups=p) == fixed + 3 * (per_block + 1904 * p)
    for d in (1, 2, 4):
        assert size(dpe_blocks=d) == fixed + d * (per_block + 1904 * 8)


def test_unknown_names_and_configs_are_told():
    with pytest.raises(UserError, match="did you mean 'fspen"):
        models.build_preset("fspenn")
    with pytest.raises(UserError, match="did you mean 'groups'"):
        models.build("fspen", {"group": 8})


@pytest.mark.parametrize(
    "stft", [STFT(512, 256), STFT(400, 100, fft=512, power=1.0), STFT(320, 160), STFT(512, 128)], ids=str
)
def test_the_stft_in_torch_and_numpy_is_one_and_inverts(stft, rng):
    window = stft.window
    n = int(rng.integers(0, 9000))
    x = rng.standard_normal((2, n)).astype(np.float32)
    spectrum = stft.analysis(torch.from_numpy(x))
    assert spectrum.shape == (2, stft.frames(n), *stft.shape)
    assert np.abs(stft.synthesis(spectrum, n).numpy() - x).max(initial=0) < 1e-5

    stream, frames, out, at = StreamTransform(stft, 2), [], [], 0
    while at < n:
        piece = x[:, at : at + int(rng.integers(1, 3 * window))]
        at += piece.shape[1]
        frames.append(stream.analysis(piece))
        out.append(stream.synthesis(frames[-1]))
    frames.append(stream.flush())
    out.append(stream.synthesis(frames[-1]))
    if n:
        assert np.abs(np.concatenate(frames, 1) - spectrum.numpy()).max() < 1e-4
    assert np.concatenate(out, 1).shape == x.shape
    assert np.abs(np.concatenate(out, 1) - x).max(initial=0) < 1e-5


@pytest.fixture
def every_warning():
    """torch repeats each of its warnings."""
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(False)


def test_an_engine_takes_a_read_only_view_without_a_warning(untrained, every_warning, recwarn):
    engine = TorchEngine(str(untrained))
    frame = np.zeros((1, 1, *engine.transform.shape), np.float32)
    y, _ = engine.run(np.broadcast_to(frame, (1, 3, *engine.transform.shape)), engine.start(1))
    assert y.shape[:2] == (1, 3)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_an_engines_stream_keeps_length_and_does_not_depend_on_the_pieces(untrained, rng, rate):
    engine = TorchEngine(str(untrained))
    for n in (0, 1, 255, 257, int(rng.integers(1000, 2 * rate))):
        x = (rng.standard_normal((2, n)) * 0.1).astype(np.float32)
        outs = []
        for sizes in (lambda: n or 1, lambda: int(rng.integers(1, 3000))):
            stream, out, at = Stream(engine, rate, 2, chunk=7), [], 0
            while at < n:
                piece = x[:, at : at + sizes()]
                at += piece.shape[1]
                out.append(stream.push(piece))
            outs.append(np.concatenate([*out, stream.flush()], 1))
        assert outs[0].shape == x.shape
        assert np.abs(outs[0] - outs[1]).max(initial=0) < 1e-6
        if rate == 16000 and n:
            with torch.no_grad():
                whole = engine.model.enhance(torch.from_numpy(x)).numpy()
            assert np.abs(outs[0] - whole).max() < 1e-5


def test_windows_that_overlap_join_without_a_seam(rng):
    """Where a window is too short for the model to see all it wants, the next one takes over: inside the overlap, and nowhere else, the
    output may differ from that of the whole."""
    for n in (0, 1, 15, 16, 640, 641, 16 * 35 + 640, int(rng.integers(700, 20000))):
        x = rng.standard_normal((2, n)).astype(np.float32)
        engine = Smoother()
        whole = (
            engine.run(np.pad(x, ((0, 0), (0, -n % 16))).reshape(2, -1, 16), ())[0].reshape(2, -1)[:, :n] if n else x
        )
        engine.longest = 0
        stream, out, at = Overlapped(engine, 16000, 2, chunk=40), [], 0
        while at < n:
            piece = x[:, at : at + int(rng.integers(1, 2000))]
            at += piece.shape[1]
            out.append(stream.push(piece))
        out = np.concatenate([*out, stream.flush()], 1)
        assert out.shape == x.shape and engine.longest <= 40
        assert np.abs(out - whole).max(initial=0) < 1.5  # at most the mean of fewer frames
        if n:
            frames = np.abs(out - whole)[:, : n // 16 * 16].reshape(2, -1, 16).max((0, 2))
            exact = np.flatnonzero(frames < 1e-6)
            assert set(range(min(25, len(frames)))) <= set(exact)  # before the first overlap
            if n <= 640:
                assert len(exact) == len(frames)


def test_an_overlap_goes_linearly_from_one_window_to_the_next():
    engine, calls = Smoother(), []
    engine.run = lambda frames, state, active=None: (calls.append(len(calls)) or np.full_like(frames, calls[-1]), ())
    stream = Overlapped(engine, 16000, 1, chunk=16)
    out = np.concatenate([stream.push(np.zeros((1, 16 * 40), np.float32)), stream.flush()], 1)[0, ::16]
    assert calls == [0, 1, 2]
    assert np.allclose(out[:14], 0) and np.allclose(out[14:16], [1 / 3, 2 / 3]) and np.allclose(out[16:28], 1)
    assert np.allclose(out[-10:], 2)


LEVELS = {"level_range": [-32.0, -12.0]}


@pytest.fixture(params=["fspen", "dpcrn_cf", "dpcrn_cf-causal", "lite_rtse", "dpsnn"])
def levelled(request):
    """A model as `moved` has it, and the same with a range of levels."""
    plain = moved(request.param)
    ranged = models.build(plain.name, models.config_values(plain.name, request.param, LEVELS)).eval()
    ranged.load_state_dict(plain.state_dict())
    return plain, ranged


def at_level(wave, level_db):
    return wave * 10 ** (level_db / 20) / wave.square().mean().sqrt()


@torch.inference_mode()
def test_a_running_level_changes_nothing_within_its_range_and_makes_output_scale_below(rng, levelled):
    plain, ranged = levelled
    wave = torch.from_numpy(rng.standard_normal((1, 32000)).astype(np.float32))
    usual = at_level(wave, -22)
    assert torch.equal(plain.enhance(usual), ranged.enhance(usual))
    quiet, quieter = (ranged.enhance(at_level(wave, db)) for db in (-50, -70))
    assert torch.allclose(quieter * 10, quiet, atol=1e-3 * quiet.abs().max())
    assert not torch.allclose(plain.enhance(at_level(wave, -70)) * 10, quiet, atol=1e-2 * quiet.abs().max())
    assert torch.isfinite(ranged.enhance(torch.zeros(1, 4000))).all()


@torch.inference_mode()
def test_a_running_level_streams_and_follows_what_it_hears(rng, levelled):
    from setk.nn.level import running_gain

    _, ranged = levelled
    wave = torch.from_numpy(rng.standard_normal((2, 16000)).astype(np.float32)) * torch.tensor([[1e-3], [1e-1]])
    frames = ranged.transform.analysis(wave)
    state, parts = ranged.init_state(2), []
    for part in frames.split(int(rng.integers(1, 20)), 1):
        out, state = ranged(part, state)
        parts.append(out)
    assert torch.allclose(torch.cat(parts, 1), ranged(frames, ranged.init_state(2))[0], atol=1e-5)
    steps = torch.cat([torch.full((1, 100), 1e-6), torch.full((1, 100), 1e-2), torch.full((1, 1500), 1e-6)], 1)
    gain = running_gain(steps, torch.zeros(1, 1), 0.016, -42, -12)[0][0]
    to_the_range = (10**-4.2 / 1e-6) ** 0.5
    assert (
        torch.allclose(gain[:100], torch.tensor(to_the_range)) and (gain[105:300] == 1).all()
    )  # up within 0.1 s, down over many
    assert (gain[300:].diff() >= 0).all() and 2 < gain[-1] < to_the_range


@pytest.mark.parametrize("name", ["fspen", "dpcrn_cf", "lite_rtse", "dpsnn"])
def test_a_range_of_levels_in_the_wrong_order_is_refused(name):
    with pytest.raises(UserError, match="level_range"):
        models.build(name, models.config_values(name, name, {"level_range": [-12.0, -32.0]}))


def test_the_default_of_a_config_may_be_any_size():
    @dataclass(frozen=True)
    class Config:
        delay: int = 0
        units: int = 8

    assert models.check_sizes(Config(), "mine") == Config()
    for values in ({"delay": -1}, {"units": 0}, {"units": 10**6}):
        with pytest.raises(UserError, match="is outside 1"):
            models.check_sizes(Config(**values), "mine")
