"""Conv-TasNet against its formulas, FQSE's splitter and residual, and asteroid's checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from setk import checkpoint, models
from setk.core.errors import UserError
from setk.models.conv_tasnet import STEP, split

torch.set_num_threads(1)
TINY = {"window": 8, "filters": 12, "bottleneck": 5, "hidden": 7, "skip": 6, "blocks": 3, "repeats": 2}


def tiny(seed=1, **values):
    torch.manual_seed(seed)
    model = models.build("conv_tasnet", {**TINY, **values}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    return model


def noise(rng, *shape):
    return torch.from_numpy((rng.standard_normal(shape) * 0.1).astype(np.float32))


@pytest.mark.parametrize("preset, params", [("conv_tasnet", 5000881), ("fqse", 5033649)])
def test_sizes_are_the_published_ones(preset, params):
    assert models.count_parameters(models.build_preset(preset))["params"] == params


def by_formula(w, x, window, blocks, repeats):
    """One signal x [n], a multiple of half a window, through Conv-TasNet in float64 NumPy; w are its weights."""

    def gln(h, name):
        return (h - h.mean()) / np.sqrt(h.var() + 1e-8) * w[f"{name}.weight"][:, None] + w[f"{name}.bias"][:, None]

    def dense(h, name):
        return w[f"{name}.weight"][:, :, 0] @ h + w[f"{name}.bias"][:, None]

    def prelu(h, name):
        return np.where(h > 0, h, w[f"{name}.weight"] * h)

    hop = window // 2
    frames = np.stack([x[i : i + window] for i in range(0, len(x) - hop, hop)], 1)
    encoding = w["encoder.weight"][:, 0] @ frames
    h = dense(gln(encoding, "masker.bottleneck.0"), "masker.bottleneck.1")
    skips = 0
    for i in range(blocks * repeats):
        at, dilation = f"masker.TCN.{i}", 2 ** (i % blocks)
        z = gln(prelu(dense(h, f"{at}.shared_block.0"), f"{at}.shared_block.1"), f"{at}.shared_block.2")
        padded = np.pad(z, ((0, 0), (dilation, dilation)))
        kernel = w[f"{at}.shared_block.3.weight"][:, 0]
        taps = [padded[:, k * dilation : k * dilation + z.shape[1]] * kernel[:, k : k + 1] for k in range(3)]
        z = gln(
            prelu(sum(taps) + w[f"{at}.shared_block.3.bias"][:, None], f"{at}.shared_block.4"), f"{at}.shared_block.5"
        )
        h, skips = h + dense(z, f"{at}.res_conv"), skips + dense(z, f"{at}.skip_conv")
    mask = np.maximum(dense(prelu(skips, "masker.mask_net.0"), "masker.mask_net.1"), 0)
    pieces = w["decoder.weight"][:, 0].T @ (mask * encoding)
    y = np.zeros(len(x))
    for t in range(pieces.shape[1]):
        y[t * hop : t * hop + window] += pieces[:, t]
    return y


@torch.no_grad()
def test_the_network_is_that_of_the_formulas(rng):
    model = tiny()
    x = noise(rng, 1, 4 * int(rng.integers(20, 90)))
    w = {name: p.double().numpy() for name, p in model.state_dict().items()}
    expected = by_formula(w, x[0].double().numpy(), 8, 3, 2)
    assert np.abs(model.enhance(x)[0].numpy() - expected).max() < 1e-4 * np.abs(expected).max()


@torch.no_grad()
def test_the_residual_adds_what_was_not_decoded(rng):
    model = tiny(splitter=2, residual=True)
    kept = {}
    for name in ("mul", "decoder", "residual_encoder"):
        getattr(model, name).register_forward_hook(lambda m, a, out, name=name: kept.setdefault(name, []).append(out))
    x = noise(rng, 1, 400)
    y = model.enhance(x)
    y0, y1 = kept["decoder"]
    assert torch.allclose(y1, model.decoder(kept["mul"][0] - kept["residual_encoder"][0]), atol=1e-6)
    assert torch.allclose(y, (y0 + y1 / 256)[:, 0] * x.abs().max(), atol=1e-6)


def test_the_splitter_gives_two_planes_of_eight_bits_that_hold_fifteen(rng):
    """FQSE: x = s0 + (s1 + 1) / 256 with an error of 0 to 2^-15."""
    x = torch.cat([torch.from_numpy(rng.uniform(-1, 1, 20000)), torch.tensor([-1.0, 1.0, 0.0, -STEP, STEP])]).view(
        1, 1, -1
    )
    planes = split(x)
    codes = planes / STEP
    assert torch.equal(codes, codes.round()) and codes.min() >= -128 and codes.max() <= 127
    error = x - planes[:, :1] - (planes[:, 1:] + 1) * STEP / 2
    assert error.min() >= 0 and error.max() <= 2**-15
    assert len(codes[:, 0].unique()) > 250 and len(codes[:, 1].unique()) > 250


@torch.no_grad()
def test_level_goes_in_and_comes_out_and_silence_stays_silent(rng):
    model = tiny(splitter=2, residual=True)
    wave = noise(rng, 1, 3000)
    out = model.enhance(wave)
    for gain in (2.0**-12, 2.0**3):  # exact, so that the planes are the same
        assert torch.equal(model.enhance(gain * wave), gain * out)
    both = model.enhance(torch.cat([wave, torch.zeros_like(wave), 2.0**-9 * wave]))
    assert torch.allclose(both[:1], out, atol=1e-6) and torch.allclose(both[2:], 2.0**-9 * out, atol=1e-8)
    assert (both[1] == 0).all()


@torch.no_grad()
def test_fqse_begins_from_the_float_model(rng):
    plain, model = tiny(), tiny(2, splitter=2, residual=True)
    own = model.residual_encoder.weight.clone()
    model.adopt(plain)
    planes = split(noise(rng, 1, 1, 2000).clamp(-1, 1))
    joined = planes[:, :1] + planes[:, 1:] / 256
    assert torch.allclose(model.encoder(planes), plain.encoder(joined), atol=1e-5)
    assert torch.equal(
        model.masker.state_dict()["TCN.5.res_conv.weight"], plain.masker.state_dict()["TCN.5.res_conv.weight"]
    )
    assert torch.equal(model.residual_encoder.weight, own)
    for other in (tiny(filters=16), model):
        with pytest.raises(ValueError, match="config"):
            plain.adopt(other)


@pytest.mark.parametrize("name, value", [("window", 9), ("kernel", 2), ("splitter", 3)])
def test_sizes_that_cannot_be_are_refused(name, value):
    with pytest.raises(UserError, match=f"{name} {value}"):
        models.build("conv_tasnet", {name: value})


@pytest.fixture
def foreign(tmp_path):
    """Write a checkpoint as asteroid does, of a tiny model, changed by `change`."""

    def write(change=lambda content: None):
        weights = {}
        for name, p in tiny().state_dict().items():
            norm = name.startswith("masker.bottleneck.0") or ".shared_block.2." in name or ".shared_block.5." in name
            name = name.replace("coder.weight", "coder.filterbank._filters")
            weights[name.replace(".weight", ".gamma").replace(".bias", ".beta") if norm else name] = p
        args = {
            "fb_name": "free",
            "n_filters": 12,
            "kernel_size": 8,
            "stride": 4,
            "in_chan": 12,
            "n_src": 1,
            "bn_chan": 5,
            "hid_chan": 7,
            "skip_chan": 6,
            "conv_kernel_size": 3,
            "n_blocks": 3,
            "n_repeats": 2,
            "norm_type": "gLN",
            "mask_act": "relu",
            "out_chan": 12,
            "encoder_activation": None,
            "sample_rate": 16000,
        }
        content = {
            "model_name": "ConvTasNet",
            "model_args": args,
            "state_dict": weights,
            "infos": {"task": "enh_single"},
        }
        change(content)
        torch.save(content, tmp_path / "pytorch_model.bin")
        return tmp_path / "pytorch_model.bin"

    return write


def test_a_checkpoint_of_asteroid_becomes_ours_by_name(foreign, se, tmp_path, rng):
    done = se("quant", "import", foreign(), tmp_path / "ours.pt")
    assert done.returncode == 0, done.err
    model, about = checkpoint.load(tmp_path / "ours.pt")
    wave = noise(rng, 1, 1000)
    with torch.no_grad():
        assert torch.equal(model.enhance(wave), tiny().enhance(wave))
    assert about["provenance"]["source"].endswith("pytorch_model.bin") and len(about["provenance"]["sha256"]) == 64


@pytest.mark.parametrize(
    "change, told",
    [
        (lambda c: c["state_dict"].pop("masker.TCN.1.res_conv.bias"), "masker.TCN.1.res_conv.bias is missing"),
        (lambda c: c["state_dict"].update({"masker.extra": torch.zeros(2)}), "masker.extra is unknown"),
        (
            lambda c: c["state_dict"].update({"decoder.filterbank._filters": torch.zeros(12, 1, 4)}),
            r"decoder.weight is \[12, 1, 4\]",
        ),
        (lambda c: c["model_args"].update(norm_type="cLN"), "norm_type cLN, not gLN"),
        (lambda c: c["model_args"].update(n_src=2), "n_src 2, not 1"),
        (lambda c: c["model_args"].pop("n_blocks"), "no n_blocks"),
        (lambda c: c.update(model_name="DPRNNTasNet"), "the layout is unknown"),
    ],
)
def test_another_checkpoint_of_asteroid_is_refused(foreign, change, told):
    from setk.export import importers

    with pytest.raises(UserError, match=told):
        importers.load(foreign(change))
