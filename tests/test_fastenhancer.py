"""FastEnhancer against its published sizes, part by part, and against formulas written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from setk import models
from setk.cost import macs
from setk.models.fastenhancer import band_matrices, positions

# Published: parameters after folding, MMACs per second.
PUBLISHED = {
    "fastenhancer-t": (21774, 59.84),
    "fastenhancer-b": (91430, 261.53),
    "fastenhancer-s": (194418, 663.9),
    "fastenhancer-t-48k": (28078, 177.26),
    "fastenhancer-b-48k": (101078, 749.54),
}
# Folded parameters of E0, the other encoders, P, each RNNFormer block, Q, the decoders, D0.
PARTS = {
    "fastenhancer-t": [408, 3504, 500, 4880, 4560, 504, 5856, 1562],
    "fastenhancer-b": [816, 13920, 1764, 15408, 14544, 14544, 1776, 23232, 5426],
    "fastenhancer-t-48k": [408, 3504, 3572, 5040, 4560, 3576, 5856, 1562],
    "fastenhancer-b-48k": [816, 13920, 6372, 15840, 14544, 14544, 6384, 23232, 5426],
}


def folded(*modules: nn.Module) -> int:
    """Parameters of modules once batch norms are biases and the scale is part of its weight."""
    total = 0
    for module in modules:
        total += sum(p.numel() for name, p in module.named_parameters() if name.split(".")[-1] != "scale")
        total -= sum(m.num_features for m in module.modules() if isinstance(m, nn.BatchNorm1d))
    return total


@pytest.mark.parametrize("preset", PUBLISHED)
def test_published_size_and_cost(preset):
    model = models.build_preset(preset)
    params, mmacs = PUBLISHED[preset]
    assert model.folded_parameters == params
    assert models.count_parameters(model)["params"] == pytest.approx(params, rel=0.015)
    assert sum(row.macs_per_second for row in macs.layers(model, 1.0)) / 1e6 == pytest.approx(mmacs, rel=1e-4)


@pytest.mark.parametrize("preset", PARTS)
def test_every_part_has_its_published_size(preset):
    m = models.build_preset(preset)
    parts = [
        folded(m.first),
        folded(*m.encoder),
        folded(m.down_bands, m.down),
        *(folded(block) for block in m.blocks),
        folded(m.up_bands, m.up),
        folded(*m.decoder),
        folded(m.join, m.last),
    ]
    assert parts == PARTS[preset]


@pytest.mark.parametrize("wide, narrow", [(64, 16), (64, 24), (128, 36)])
def test_bands_are_triangles_of_sum_one(wide, narrow):
    down, up = band_matrices(wide, narrow)
    np.testing.assert_allclose(down.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(up.sum(1), 1, atol=1e-6)
    centers = (wide - 1) / (narrow - 1) * np.arange(narrow)
    for row, center in zip(down, centers):
        inside = np.flatnonzero(row)
        assert np.abs(inside - center).max() < (wide - 1) / (narrow - 1)
        assert abs(row.argmax() - center) <= 0.5
    constant = np.full(wide, 3.0)
    np.testing.assert_allclose(up @ (down @ constant), constant, rtol=1e-5)


def test_positions_by_hand():
    table = positions(16, 20)
    for f in (1, 7, 16):
        for k in range(10):
            angle = np.pi * f / 16 * 15 ** (k / 9)
            assert table[f - 1, k] == pytest.approx(np.sin(angle), abs=1e-5)
            assert table[f - 1, 10 + k] == pytest.approx(np.cos(angle), abs=1e-5)


def test_an_rnnformer_block_against_loops(rng):
    """One block in float64, with the GRU and the attention of every band and frame written out."""
    torch.manual_seed(4)
    block = models.build_preset("fastenhancer-t").blocks[0].double().eval()
    for norm in (block.gru_norm, block.attention_norm):
        norm.running_mean += torch.randn(20).double()
        norm.running_var *= 2
    x = torch.from_numpy(rng.standard_normal((1, 3, 16, 20)))
    h = torch.from_numpy(rng.standard_normal((1, 1, 16, 20)))
    with torch.no_grad():
        y, after = block(x, h)
        memory, out = h[0, 0].clone(), torch.zeros_like(y)
        wi, wh, bi, bh = (
            p[0] for p in (block.gru.weight_ih, block.gru.weight_hh, block.gru.bias_ih, block.gru.bias_hh)
        )
        for t in range(3):
            v = torch.zeros(16, 20, dtype=torch.float64)
            for f in range(16):
                ri, zi, ni = (wi @ x[0, t, f] + bi).chunk(3)
                rh, zh, nh = (wh @ memory[f] + bh).chunk(3)
                update = torch.sigmoid(zi + zh)
                memory[f] = update * memory[f] + (1 - update) * torch.tanh(ni + torch.sigmoid(ri + rh) * nh)
                v[f] = x[0, t, f] + block.gru_norm(block.gru_fc(memory[f])[None])[0] + block.position[f]
            heads = (v @ block.qkv.weight.T).view(16, 4, 3, 5)
            joined = torch.zeros(16, 4, 5, dtype=torch.float64)
            for head in range(4):
                q, k, value = heads[:, head].unbind(1)
                joined[:, head] = torch.softmax(q @ k.T / 5**0.5, -1) @ value
            out[0, t] = v + block.attention_norm(joined.view(16, 20) @ block.attention_fc.weight.T)
    np.testing.assert_allclose(y, out, atol=1e-12)
    np.testing.assert_allclose(after[0, 0], memory, atol=1e-12)


def test_48_khz_presets_run_at_48_khz():
    model = models.build_preset("fastenhancer-t-48k")
    assert model.sample_rate == 48000 and model.latency_ms == pytest.approx(1000 * 1024 / 48000)
    wave = torch.randn(1, 4800)
    assert model.enhance(wave).shape == wave.shape
