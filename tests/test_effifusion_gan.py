"""EffiFusion-GAN's network: the sizes of its readings, and what its outputs mean."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from setk import models
from setk.core.errors import UserError
from setk.models.effifusion_gan import Config, DILATIONS, Dense, MultiScale, SubPixel

torch.set_num_threads(1)
V1 = {"kernels": (3,), "separable": False, "second_norm": False}


def built(**values):
    return models.build("effifusion_gan", values)


@pytest.mark.parametrize(
    "values, params",
    [
        ({}, 1_079_584),
        ({"second_norm": False}, 1_078_560),
        ({"kernels": (3,)}, 1_070_944),
        ({"kernels": (3, 11)}, 1_093_984),
        ({"kernels": (3, 11, 23, 31)}, 1_151_584),
        ({"kernels": (3,), "transposed": True}, 1_078_101),
        ({**V1, "transposed": True}, 2_048_849),  # MP-SENet, as published: 2.05 M
        (V1, 2_073_932 + 1024),  # the sheet's has a 1x1 at its input
    ],
    ids=str,
)
def test_sizes_of_the_fact_sheet(values, params):
    assert models.count_parameters(built(**values))["params"] == params


@pytest.mark.parametrize(
    "values, message",
    [
        ({"heads": 3}, "heads=3"),
        ({"channels": 6, "heads": 2}, "4 kernels"),
        ({"kernels": (3, 4)}, "odd"),
        ({"separable": False}, "single width"),
    ],
)
def test_impossible_configs_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        built(**values)


@pytest.fixture(params=[{}, {"transposed": True, "kernels": (3,)}, V1], ids=str)
def tiny(request):
    torch.manual_seed(2)
    return built(channels=8, blocks=1, heads=2, dropout=0.0, **request.param).eval()


@torch.no_grad()
def test_the_outputs_level_is_the_inputs(tiny, rng):
    wave = torch.from_numpy(rng.standard_normal((1, int(rng.integers(2000, 9000)))).astype("float32")) * 0.1
    out = tiny.enhance(wave)
    assert out.abs().max() > 1e-4
    for gain in (1e-2, 10.0):
        assert (tiny.enhance(gain * wave) / gain - out).abs().max() < 1e-3 * out.abs().max()


@torch.no_grad()
def test_a_mask_of_one_keeps_the_magnitude_and_the_phase_is_that_of_the_phase_decoder(rng):
    noisy = torch.from_numpy(rng.standard_normal((2, 20, 201, 2)).astype("float32"))
    size = noisy.square().sum(-1).sqrt()
    for turned in (False, True):
        model = built(channels=8, blocks=1, heads=2, turned=turned).eval()
        model.magnitude.slope.zero_()
        for head, bias in ((model.phase.real, 0.6), (model.phase.imag, -0.8)):
            head.weight.zero_(), head.bias.fill_(bias)
        out, _ = model(noisy, ())
        turn = torch.view_as_complex(noisy) / size if turned else torch.ones(())
        expected = torch.view_as_real(size * turn * torch.tensor(0.6 - 0.8j))
        torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_dense_block_convolves_all_that_came_before_newest_first(rng):
    block, x = Dense(Config(channels=8)), torch.randn(1, 8, 24, 15)
    found, wanted = [x], block(x)
    for layer, dilation in zip(block.layers, DILATIONS):
        (depthwise, pointwise), norm, act = layer
        y, kernels = torch.cat(found, 1), [(3, 3), (3, 5), (3, 7)]
        quarter = y.shape[1] // 4
        parts = y[:, : 2 * quarter], y[:, 2 * quarter : 3 * quarter], y[:, 3 * quarter :]
        y = torch.cat(
            [
                F.conv2d(
                    part,
                    conv.weight,
                    conv.bias,
                    padding=(dilation, width // 2),
                    dilation=(dilation, 1),
                    groups=part.shape[1],
                )
                for conv, part, (_, width) in zip(depthwise.convs, parts, kernels)
            ],
            1,
        )
        assert isinstance(depthwise, MultiScale) and [tuple(c.weight.shape[2:]) for c in depthwise.convs] == kernels
        found.insert(0, act(F.instance_norm(pointwise(y), weight=norm.weight, bias=norm.bias)))
    torch.testing.assert_close(wanted, found[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_sub_pixels_interleave_two_groups_of_channels():
    up, x = SubPixel(4, separable=True), torch.randn(2, 4, 5, 7)
    both, out = up.conv(x), up(x)
    assert torch.equal(out[..., 0::2], both[:, :4]) and torch.equal(out[..., 1::2], both[:, 4:])


@torch.no_grad()
def test_attention_is_torchs_own_between_two_norms():
    attention = built(channels=8, blocks=1, heads=2).blocks[0].time.attention.eval()
    nn.init.normal_(attention.after.bias)
    whole = nn.MultiheadAttention(8, 2, batch_first=True)
    whole.load_state_dict(
        {
            "in_proj_weight": attention.qkv.weight,
            "in_proj_bias": attention.qkv.bias,
            "out_proj.weight": attention.out.weight,
            "out_proj.bias": attention.out.bias,
        }
    )
    x = torch.randn(3, 11, 8)
    y = attention.before(x)
    torch.testing.assert_close(
        attention(x), attention.after(whole(y, y, y, need_weights=False)[0]), atol=1e-5, rtol=1e-4
    )
