"""GTCRN against its published sizes, layer by layer, and against formulas written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from setk import models
from setk.cost import macs
from setk.models import Widths
from setk.models.gtcrn import BINS, LINEAR, GTBlock, erb_matrix, neighbours

# Bins at which the published matrix has its peaks.
# fmt: off
PEAKS = [65, 66, 68, 70, 71, 73, 74, 76, 78, 80, 81, 83, 85, 87, 89, 91, 93, 95, 97, 99, 102, 104, 106, 109, 111, 113, 116, 119, 121,
         124, 126, 129, 132, 135, 138, 141, 144, 147, 150, 154, 157, 160, 164, 167, 171, 175, 178, 182, 186, 190, 194, 199, 203, 207,
         212, 216, 221, 226, 230, 235, 240, 245, 251, 256]
# fmt: on


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_every_part_has_its_published_size():
    model = models.build_preset("gtcrn")
    assert [count(layer) for layer in model.narrow] == [769, 689]
    assert [count(block) for block in (*model.encoder, *model.decoder)] == 6 * [2162]
    assert [count(rnn) for rnn in model.rnns] == [4192, 4192]
    assert [count(model.widen), count(model.mask)] == [689, 166]
    assert count(model) == 23669
    assert count(model) + 2 * model.erb.numel() == 48245  # as counted with the two fixed matrices


def test_macs_are_the_published_split():
    rows = macs.layers(models.build_preset("gtcrn"), 1.0)
    total = sum(row.macs_per_second for row in rows)
    assert total == pytest.approx(26.4e6, rel=0.01)


def test_the_state_has_18048_numbers():
    state = models.build_preset("gtcrn").init_state(1)
    # The paths' attention and GRUs, and 16 past frames of each of encoder and decoder.
    assert sum(x.numel() for x in state) == 2 * 16 * 16 * 33 + 6 * 16 + 2 * 33 * 16


def test_erb_bands():
    matrix = erb_matrix()
    assert list(matrix.argmax(1) + LINEAR) == PEAKS
    np.testing.assert_allclose(matrix.sum(0), np.ones(BINS - LINEAR), atol=1e-6)
    assert matrix.sum(1)[[0, 1, 2]] == pytest.approx([1.0, 1.5, 2.0]) and matrix.sum(1)[[-2, -1]] == pytest.approx(
        [5.5, 3.0]
    )


def test_neighbours_are_below_self_above(rng):
    x = torch.from_numpy(rng.standard_normal((2, 3, 4, 7)).astype(np.float32))
    y = neighbours(x)
    for c in range(3):
        np.testing.assert_array_equal(y[:, 3 * c + 1], x[:, c])
        np.testing.assert_array_equal(y[:, 3 * c, :, 1:], x[:, c, :, :-1])
        np.testing.assert_array_equal(y[:, 3 * c + 2, :, :-1], x[:, c, :, 1:])
        assert not y[:, 3 * c, :, 0].any() and not y[:, 3 * c + 2, :, -1].any()


def test_a_gt_block_against_loops(rng):
    """One block in float64, with the dilated depth-wise conv and the attention written out as sums."""
    torch.manual_seed(1)
    block, dilation, time = GTBlock(16, 2, Widths(()), "block").double().eval(), 2, 9
    x = torch.from_numpy(rng.standard_normal((1, 16, time, 33)))
    past, h = (torch.randn_like(s.double()) for s in block.start(1))
    with torch.no_grad():
        y, _, _ = block(x, past, h)
        spread = torch.cat([past, block.spread(neighbours(x[:, :8]))], 2)
        conv, norm, act = block.depthwise
        z = torch.zeros(1, 16, time, 33, dtype=torch.float64)
        padded = torch.nn.functional.pad(spread, (1, 1))
        for t in range(time):
            for i in range(3):
                for j in range(3):
                    z[:, :, t] += conv.weight[:, 0, i, j, None] * padded[:, :, t + i * dilation, j : j + 33]
        z = block.join(act(norm(z + conv.bias[:, None, None])))
        gains = []
        weights = block.attention
        for t in range(time):
            energy = z[0, :, t].square().mean(-1)
            ri, zi, ni = (weights.weight_ih_l0 @ energy + weights.bias_ih_l0).chunk(3)
            rh, zh, nh = (weights.weight_hh_l0 @ h[0, 0] + weights.bias_hh_l0).chunk(3)
            update = torch.sigmoid(zi + zh)
            h = (update * h[0, 0] + (1 - update) * torch.tanh(ni + torch.sigmoid(ri + rh) * nh))[None, None]
            gains.append(torch.sigmoid(block.gain(h[0, 0])))
        z = z * torch.stack(gains, 1)[None, :, :, None]
    np.testing.assert_allclose(y[:, 0::2], z, atol=1e-12)
    np.testing.assert_array_equal(y[:, 1::2], x[:, 8:])


def test_the_mask_is_within_one():
    torch.manual_seed(2)
    model = models.build_preset("gtcrn").eval()
    spectrum = torch.randn(1, 5, BINS, 2)
    with torch.no_grad():
        y, _ = model(spectrum, model.init_state(1))
    assert (y.norm(dim=-1) <= 2**0.5 * spectrum.norm(dim=-1) + 1e-6).all()
