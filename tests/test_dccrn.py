"""DCCRN: its published sizes by all three counts, its arithmetic against the formulas written out, and its look-ahead."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from setk import cost, models
from setk.cost import legacy, macs, ptflops
from setk.cost.ledger import frame_inputs
from setk.audio.stft import STFT
from setk.training import settings

torch.set_num_threads(1)

WIDE, PAPER, CODE = (32, 64, 128, 256, 256, 256), (32, 64, 128, 128, 256, 256), (16, 32, 64, 128, 256, 256)
SIZES = [  # channels, complex LSTM, units, parameters, GMAC of 163 frames
    (WIDE, True, 256, 3_671_053, 8.693),
    (CODE, False, 256, 3_742_349, 4.047),
    (CODE, False, 128, 2_495_117, 3.844),
    (PAPER, False, 256, 3_981_581, 6.150),
    (WIDE, False, 256, 4_719_629, 8.714),
]
SMALL = {"channels": (4, 6, 8, 6, 4, 6), "units": 8}


@pytest.mark.parametrize("channels, lstm, units, params, giga", SIZES)
def test_every_published_variant_has_its_size(channels, lstm, units, params, giga):
    with torch.device("meta"):
        m = models.build("dccrn", {"channels": channels, "complex_lstm": lstm, "units": units})
    assert sum(p.numel() for p in m.parameters()) == params
    assert 16.3 * macs.count(m, frame_inputs(10)).total / 1e9 == pytest.approx(giga, abs=6e-4)


def test_macs_by_frames_are_those_of_the_audit():
    with torch.device("meta"):
        m = models.build_preset("dccrn")
    frame = macs.count(m, frame_inputs(1)).total / 1e9
    assert [round(n * frame, 3) for n in (63, 100, 126, 163)] == [3.360, 5.333, 6.720, 8.693]
    assert ptflops.count(m, frame_inputs(63)).total / 1e9 == pytest.approx(3.376, abs=1e-3)


@pytest.mark.full
@pytest.mark.parametrize(
    "preset, per_second, quoted, latency",
    [("dccrn", 8_532_787_200, 14.36, 62.5), ("dccrn-512", 6_666_240_000, 11.13, 80)],
)
def test_the_legacy_count_explains_the_published_one(preset, per_second, quoted, latency):
    with torch.device("meta"):
        m = models.build_preset(preset)
    assert sum(row.macs_per_second for row in macs.layers(m, 0.05)) == per_second and m.latency_ms == latency
    assert sum(row.macs_per_second for row in cost.layers(m, "legacy")) / 1e9 == pytest.approx(quoted, rel=1.2e-3)


def test_legacy_rules(rng):
    b, g, i, o, h, w = map(int, rng.integers(2, 7, 6))
    conv = nn.ConvTranspose2d(g * i, g * o, (3, 2), (2, 1), groups=g)
    outputs = b * g * o * (2 * h + 1) * (w + 1)

    def counted(module, *shape):
        return legacy.count(module, lambda _: (torch.zeros(shape, device="meta"),)).total

    assert counted(conv, b, g * i, h, w) == outputs * (i * 3 * 2 + 1)
    assert counted(nn.Conv1d(i, o, 1, bias=False), b, i, w) == b * o * w * i
    assert counted(nn.Conv1d(i, o, 1), b, i, w) == b * o * w * (i + 1)
    assert counted(nn.Sequential(nn.BatchNorm1d(i), nn.PReLU()), b, i, w) == 3 * b * i * w
    assert [legacy.frames(STFT(*s), 16000) for s in ((512, 128), (512, 256), (400, 100, 512))] == [126, 63, 163]


def test_the_legacy_count_is_thops():
    thop = pytest.importorskip("thop")
    m = models.build_preset("dccrn-512").eval()
    theirs, _ = thop.profile(m, (torch.zeros(1, 126, 257, 2), m.init_state(1)), verbose=False)
    assert sum(row.macs_per_second for row in legacy.layers(m)) == pytest.approx(theirs, rel=1e-3)


def shaken(seed, **values):
    """A small model in evaluation whose weights and statistics are off their start, in float64."""
    torch.manual_seed(seed)
    m = models.build("dccrn", {**SMALL, **values}).eval().double()
    with torch.no_grad():
        for x in m.state_dict().values():
            if x.is_floating_point():
                x += 0.2 * torch.rand_like(x)
    return m


def written_out(m, spectrum):
    """The network from its description, offline, in complex numbers and with angles: spectrum [1, T, 257, 2]."""
    w = m.state_dict()
    shift = 0 if m.config.causal else 1

    def both(name, part):
        return torch.complex(w[f"{name}.real.{part}"], w[f"{name}.imag.{part}"])

    def norm(x, name):
        halves = torch.cat([x.real, x.imag], 1)
        halves = F.batch_norm(
            halves, *(w[f"{name}.0.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        )
        return torch.complex(*F.prelu(halves, w[f"{name}.1.weight"]).chunk(2, 1))

    def bias(name):  # each of two real layers adds its own: (1 + j) times the complex one
        return (both(name, "bias") * (1 + 1j))[:, None, None]

    def lstm(layer, x):
        return torch.complex(
            layer.real(x.real)[0] - layer.imag(x.imag)[0], layer.real(x.imag)[0] + layer.imag(x.real)[0]
        )

    y = torch.complex(*spectrum.unbind(-1))
    x, skips = y[:, None, :, 1:], []
    for i in range(6):
        x = F.conv2d(F.pad(x, (2, 2, 1, 0)), both(f"encoder.{i}.conv", "weight"), stride=(1, 2)) + bias(
            f"encoder.{i}.conv"
        )
        x = norm(x, f"encoder.{i}.norm")
        skips.append(x)
    z = x.transpose(1, 2).flatten(2)
    for layer in m.recurrent:
        z = lstm(layer, z)
    z = torch.complex(m.project[0](z.real), m.project[1](z.imag))
    x = z.unflatten(2, (-1, x.shape[-1])).transpose(1, 2)
    for i in range(6):
        name, x = f"decoder.{i}.conv", torch.cat([x, skips.pop()], 1)
        x = F.conv_transpose2d(x, both(name, "weight"), stride=(1, 2), padding=(0, 2), output_padding=(0, 1))
        x = x[:, :, shift:][:, :, : len(spectrum[0])] + bias(name)
        x = norm(x, f"decoder.{i}.norm") if i < 5 else x
    mask = F.pad(x[:, 0], (1, 0))
    return torch.view_as_real(torch.polar(y.abs() * mask.abs().tanh(), y.angle() + mask.angle()))


@torch.no_grad()
@pytest.mark.parametrize("causal", [False, True])
def test_the_network_is_what_its_formulas_say(causal, rng):
    m = shaken(int(rng.integers(1000)), causal=causal)
    spectrum = torch.randn(1, int(rng.integers(12, 20)), 257, 2, dtype=torch.float64)
    kept = slice(0, None if causal else -6)  # behind the end we read silence, the formulas nothing
    torch.testing.assert_close(m.whole(spectrum)[:, kept], written_out(m, spectrum)[:, kept], atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("causal, first", [(False, 19), (True, 25)])
def test_the_look_ahead_is_six_frames_or_none(causal, first):
    m = shaken(1, causal=causal)
    spectrum = torch.randn(1, 40, 257, 2, dtype=torch.float64)
    changed = spectrum.clone()
    changed[:, 25] += 1
    masks = [torch.view_as_complex(m.whole(x)) / torch.view_as_complex(spectrum) for x in (spectrum, changed)]
    differs = (masks[0] - masks[1]).abs().amax((0, 2)) > 1e-9
    assert int(differs.nonzero()[0]) == first


def test_a_stream_carries_the_state_of_the_audit():
    """The encoder's last inputs, the LSTMs, what the decoder still adds, the skips that wait; and six frames of spectrum."""
    with torch.device("meta"):
        count = {
            preset: sum(s.numel() for s in models.build_preset(preset).init_state(1))
            for preset in ("dccrn", "dccrn-causal")
        }
    assert (
        count["dccrn-causal"] == 18_944 + 2_048 + 18_944
        and count["dccrn"] == count["dccrn-causal"] + 59_392 + 6 * 257 * 2
    )


@torch.no_grad()
def test_training_starts_from_the_noisy_signal():
    torch.manual_seed(0)
    m = models.build_preset("dccrn").train()
    wave = 0.1 * torch.randn(1, 8000)
    error = (m.enhance(wave) - 0.9 * wave)[:, :7000].norm() / wave.norm()
    assert error < 0.1


@pytest.mark.parametrize("conf", ["dccrn"])
def test_the_confs_of_its_recipes_resolve(conf):
    s = settings.resolve(conf)
    assert s.model == "dccrn" and s.config == models.config_values("dccrn", "dccrn", {})
