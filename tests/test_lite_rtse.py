"""Lite-RTSE: its published sizes, its arithmetic against the formulas written out, and the states that it streams with."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from setk import cost, models
from setk.models import lite_rtse
from setk.training import settings

torch.set_num_threads(1)

SIZES = [  # dense 3x3, shared depth-wise 7x7, parameters, MACs/s, ptflops' MACs of 63 frames, floats of state
    (False, False, 1_559_245, 637_279_687.5, 658_536_543, 730_908),
    (True, False, 1_577_101, 924_091_687.5, 947_643_039, 730_908),
    (False, True, 1_542_845, 379_123_187.5, 393_004_143, 225_132),
    (True, True, 1_560_701, 665_935_187.5, 682_110_639, 225_132),
]


def build(**values):
    return models.build("lite_rtse", values)


def shaken(seed, **values):
    """A model in evaluation whose weights are off their start."""
    torch.manual_seed(seed)
    m = build(**values).eval()
    with torch.no_grad():
        for p in m.parameters():
            p += 0.05 * torch.randn_like(p)
    return m


@pytest.mark.parametrize("dense, shared, params, macs, quoted, state", SIZES)
def test_sizes_are_the_published_ones(dense, shared, params, macs, quoted, state):
    m = build(dense_3x3=dense, shared_depthwise=shared)
    assert models.count_parameters(m)["params"] == params
    for convention, expected in (("setk", macs), ("ptflops", quoted)):
        assert sum(layer.macs_per_second for layer in cost.layers(m, convention)) == expected
    assert sum(s.numel() for s in m.init_state(1)) == state
    assert m.latency_ms == 32


def written_out(m, spectrum, shared):
    """The network from its description, offline, with angles: spectrum [1, T, 257, 2] in float64."""
    w = dict(m.named_parameters())

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def lstm(x, name):
        of_x, of_h, bias_x, bias_h = (
            w[f"{name}.{part}_l0"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = c = torch.zeros(257, dtype=x.dtype)
        out = []
        for frame in x[0]:
            i, f, g, o = (of_x @ frame + bias_x + of_h @ h + bias_h).chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            out.append(h)
        return torch.stack(out)[None]

    def conv(x, name):
        kernel = w[f"{name}.weight"]
        k = kernel.shape[-1]
        return F.conv2d(
            F.pad(x, (k // 2, k // 2, k - 1, 0)), kernel, w[f"{name}.bias"], groups=x.shape[1] // kernel.shape[1]
        )

    x = torch.complex(*spectrum.unbind(-1))
    level = x.abs()
    y1 = linear(lstm(level, "mask_lstm"), "mask").sigmoid() * level
    z = y1[:, None]
    for s in ("scales.0", "scales.1"):
        z = conv(conv(conv(z, f"{s}.spread"), f"{s}.conv.conv"), f"{s}.join") * conv(z, f"{s}.shortcut")
    d, p = conv(z, "orders.expand").split([124, 4], 1)
    if shared:
        d = conv(d, "orders.convs.0.conv")
    for i, q in enumerate((4, 8, 16, 32)):
        if not shared:
            d = conv(d, f"orders.convs.{i}.conv")
        d, r = d.split([d.shape[1] - q, q], 1)
        p = conv(p * r, f"orders.joins.{i}")
    y2 = conv(d * p, "orders.project")[:, 0]
    z = lstm(linear(torch.cat([level, y1, y2], -1), "merge"), "residual_lstm")
    gain, real, imag = (linear(z, f"residual.{i}") for i in range(3))
    return torch.view_as_real(torch.polar(y1 + gain * (level - y1), x.angle() + torch.atan2(imag, real)))


@torch.no_grad()
@pytest.mark.parametrize("dense, shared", [(False, False), (True, False), (False, True)])
def test_the_network_is_what_its_formulas_say(monkeypatch, rng, dense, shared):
    monkeypatch.setattr(lite_rtse, "PHASE_FLOOR", 0.0)
    m = shaken(int(rng.integers(1000)), dense_3x3=dense, shared_depthwise=shared, compression=1.0).double()
    spectrum = torch.randn(1, int(rng.integers(9, 14)), 257, 2, dtype=torch.float64)
    out, _ = m(spectrum, m.init_state(1))
    torch.testing.assert_close(out, written_out(m, spectrum, shared), atol=1e-8, rtol=1e-8)


@torch.no_grad()
def test_compression_goes_in_and_comes_out_again(rng):
    """With heads that pass everything, the output is the input whatever the level."""
    m = shaken(1)
    for linear, value in zip(m.residual, (1.0, 1.0, 0.0)):
        linear.weight.zero_()
        linear.bias.fill_(value)
    spectrum = 10 ** rng.uniform(-2, 2) * torch.randn(1, 5, 257, 2)
    out, _ = m(spectrum, m.init_state(1))
    assert (out - spectrum).norm() < 1e-3 * spectrum.norm()


def test_without_a_residual_phase_the_output_fades_and_gradients_stay_bounded():
    m, unit, level = build(), torch.ones(1, 1, 257, 2), torch.ones(1, 1, 257)
    heads = torch.zeros(2, 1, 1, 257, requires_grad=True)
    faded = m._rotate(unit, level, *heads)
    faded.sum().backward()
    assert (faded == 0).all() and heads.grad.abs().max() <= 2.01 / lite_rtse.PHASE_FLOOR
    turned = m._rotate(unit, level, heads[0], heads[1] + 1)
    torch.testing.assert_close(turned, torch.tensor([-1.0, 1.0]).expand_as(turned), atol=1e-4, rtol=0)


def test_the_gradients_of_a_depthwise_conv_are_those_of_the_plain_one(rng):
    batch, channels, time = map(int, rng.integers([1, 2, 1], [4, 9, 20]))
    kernel = int(rng.choice([3, 7]))
    causal = lite_rtse.CausalConv(channels, kernel, channels)
    x = torch.randn(batch, channels, time, 257, requires_grad=True)
    past, to = causal.start(batch), torch.randn(batch, channels, time, 257)
    plain = F.conv2d(
        torch.cat([past, x], 2), causal.conv.weight, causal.conv.bias, padding=(0, kernel // 2), groups=channels
    )
    wanted = torch.autograd.grad((plain * to).sum(), [x, *causal.parameters()])
    found = torch.autograd.grad((causal(x, past)[0] * to).sum(), [x, *causal.parameters()])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * float(b.abs().max()), rtol=0)


def test_a_depthwise_conv_learns_in_bfloat16():
    causal = lite_rtse.CausalConv(3, 3, 3)
    x = torch.randn(2, 3, 5, 257, requires_grad=True)
    found = []
    for narrow in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            y = causal(x, causal.start(2))[0].float()
        found.append(torch.autograd.grad(y.square().sum(), [x, *causal.parameters()]))
    for exact, narrow in zip(*found, strict=True):
        assert narrow.dtype == torch.float32
        torch.testing.assert_close(narrow, exact, atol=0.03 * float(exact.abs().max()), rtol=0)


@pytest.mark.full
def test_stream_equals_offline_after_a_short_training(rng):
    torch.manual_seed(int(rng.integers(1000)))
    m = build()
    optimizer = torch.optim.AdamW(m.parameters(), lr=2e-3)
    clean = 0.1 * torch.sin(torch.arange(8000) * torch.linspace(0.05, 0.3, 2)[:, None])
    losses = []
    for _ in range(8):
        noisy = clean + 0.05 * torch.randn_like(clean)
        loss = (m.enhance(noisy) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    m.eval()
    with torch.no_grad():
        frames, state, out = m.transform.analysis(noisy), m.init_state(2), []
        for t in range(frames.shape[1]):
            y, state = m(frames[:, t : t + 1], state)
            out.append(y)
        whole = m.whole(frames)
    assert m.transform.synthesis(torch.cat(out, 1) - whole, 8000).abs().max() < 1e-5


def test_the_state_of_a_long_chunk_holds_no_more_than_that_of_a_frame():
    m = build().eval()
    with torch.inference_mode():
        _, state = m(torch.randn(1, 40, 257, 2), m.init_state(1))
    assert all(s.untyped_storage().nbytes() == 4 * s.numel() for s in state)


@pytest.mark.parametrize("name, config", [("lite_rtse", {}), ("lite_rtse_open", {"level_range": [-42, -12]})])
def test_the_configs_of_its_recipes_resolve(name, config):
    s = settings.resolve(name)
    assert s.model == "lite_rtse" and s.config == models.config_values("lite_rtse", "lite_rtse", config)
