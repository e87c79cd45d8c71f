"""se-quant import: files in the layouts of DPSNN, FQSE and GTCRN, against forwards that read their tensors by their names.

The files are made here, with random weights; the sizes, names and equations are those of the public repositories.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from test_dpsnn import logistic, noise, spikes_of

from setk import checkpoint
from setk.core.errors import UserError
from setk.export import importers
from setk.models.gtcrn import erb_matrix

torch.set_num_threads(1)


def tensors(seed, shapes, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: scale * torch.randn(shape, generator=generator) / max(1, shape[-1] if len(shape) > 1 else 4) ** 0.5
        for name, shape in shapes.items()
    }


# DPSNN, one block: 24 tensors.

DPSNN = {
    "readout_threshold": (),
    "encoder_1d.weight": (256, 1, 80),
    "encoder_1d.bias": (256,),
    "ln.weight": (256,),
    "ln.bias": (256,),
    "proj.weight": (256, 256, 1),
    "proj.bias": (256,),
    "proj.threshold": (),
    "repeats.0.0.dconv.weight": (256, 1, 5),
    "repeats.0.0.dconv.bias": (256,),
    "repeats.0.0.neuron.w": (),
    "repeats.0.1.neuro.alpha": (256,),
    "repeats.0.1.neuro.ro": (256,),
    "repeats.0.1.dense.weight": (256, 256),
    "repeats.0.1.dense.bias": (256,),
    "repeats.0.1.recurrent.weight": (256, 256),
    "repeats.0.1.recurrent.bias": (256,),
    "srnn_readout.neuro.alpha": (256,),
    "srnn_readout.dense.weight": (256, 256),
    "srnn_readout.dense.bias": (256,),
    "mask.weight": (256, 256, 1),
    "mask.bias": (256,),
    "decoder_1d.weight": (256, 1, 80),
    "decoder_1d.bias": (1,),
}


def dpsnn_file(path, change=lambda content: None):
    weights = tensors(3, DPSNN)
    weights["encoder_1d.weight"] *= 8
    weights["ln.weight"] += 1
    weights["proj.weight"] /= 16  # its last axis has one element
    weights["mask.weight"] /= 16
    weights["repeats.0.0.dconv.weight"] = 3 * weights["repeats.0.0.dconv.weight"].abs()
    weights["repeats.0.1.dense.weight"] *= 4
    weights["repeats.0.1.dense.bias"] += 2
    content = {
        "epoch": 478,
        "global_step": 5269,
        "pytorch-lightning_version": "2.0.0",
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(81.5)}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.01}]}],
        "lr_schedulers": [],
        "hyper_parameters": dict(L=80, stride=40, N=256, B=256, H=256, X=1, sr=16000, context_dim=160),
    }
    change(content)
    torch.save(content, path)
    return path


def dpsnn_reference(weights, x):
    """Signal [n] to the output and the spikes of both phases [T, 256], in float64, a frame at a time, four frames of silence before it."""
    w = {name: tensor.double().numpy() for name, tensor in weights.items()}
    x = np.concatenate([np.zeros(160), x.astype(np.float64)])
    out, binary, convolved, recurrent = np.zeros(len(x)), [], [], []
    v, m, s, eta, r = 0.0, np.zeros(256), np.zeros(256), np.full(256, 1.6), np.zeros(256)
    alpha, ro = logistic(w["repeats.0.1.neuro.alpha"]), logistic(w["repeats.0.1.neuro.ro"])
    a = logistic(w["srnn_readout.neuro.alpha"])
    for f in range((len(x) - 80) // 40 + 1):
        e = np.maximum(w["encoder_1d.weight"][:, 0] @ x[40 * f : 40 * f + 80] + w["encoder_1d.bias"], 0)
        n = (e - e.mean()) / np.sqrt(e.var() + 1e-5) * w["ln.weight"] + w["ln.bias"]
        binary.append((w["proj.weight"][..., 0] @ n + w["proj.bias"] - w["proj.threshold"] > 0).astype(float))
        if f < 4:
            continue
        taps = np.stack(binary[-5:], 1)
        d = (w["repeats.0.0.dconv.weight"][:, 0] * taps).sum(1) + w["repeats.0.0.dconv.bias"]
        v = v + (d - v) * logistic(w["repeats.0.0.neuron.w"])
        fired = (v - 1 >= 0).astype(float)
        v = np.where(fired > 0, 0, v)
        convolved.append(fired)
        current = w["repeats.0.1.dense.weight"] @ fired + w["repeats.0.1.dense.bias"]
        current = current + w["repeats.0.1.recurrent.weight"] @ s + w["repeats.0.1.recurrent.bias"]
        eta = ro * eta + (1 - ro) * s
        theta = 1.6 + 0.184 * eta
        m = alpha * m + (1 - alpha) * current - theta * s
        s = (m - theta > 0).astype(float)
        recurrent.append(s)
        r = a * r + (1 - a) * (w["srnn_readout.dense.weight"] @ s + w["srnn_readout.dense.bias"])
        q = np.where(r > w["readout_threshold"], r, 0)
        mask = logistic(w["mask.weight"][..., 0] @ q + w["mask.bias"])
        out[40 * f : 40 * f + 80] += w["decoder_1d.weight"][:, 0].T @ (e * mask) + w["decoder_1d.bias"]
    return out[160:], np.stack(binary[4:]), np.stack(convolved), np.stack(recurrent)


@torch.no_grad()
def test_dpsnn_of_lightning_has_the_spikes_of_the_loop(se, tmp_path):
    file = dpsnn_file(tmp_path / "epoch=478.ckpt")
    done = se("quant", "import", file, tmp_path / "dpsnn.pt")
    assert done.returncode == 0 and "dpsnn" in done.err, done.err
    model, about = checkpoint.load(tmp_path / "dpsnn.pt")
    assert (
        about["provenance"]["layout"] == "dpsnn" and about["config"]["hop"] == 40 and about["config"]["context"] == 0.01
    )
    x = noise(np.random.default_rng(12), 8000)[0]
    expected, *layers = dpsnn_reference(torch.load(file)["state_dict"], x)
    found = spikes_of(model)
    got = model.enhance(torch.from_numpy(x[None]))[0].numpy()
    assert np.abs(got - expected)[:-40].max() < 1e-5 * np.abs(expected).max()
    for name, spikes in zip(("binary", "blocks.0.scnn", "blocks.0.srnn"), layers, strict=True):
        assert 0.02 < spikes.mean() < 0.98, name
        assert np.array_equal(found[name][0][0].numpy()[1 : 1 + len(spikes)], spikes), name


# FQSE.

N, B, H, S, L, BLOCKS = 16, 6, 8, 6, 8, 6  # filters, bottleneck, hidden, skip, window, blocks in three repeats of two


def fqse_weights(seed, fqse=True, on_grid=True):
    """A state dict in FQSE's layout; `on_grid`: 0 is a level of every activation range."""
    shapes = {"encoder.conv1d.weight": (N, 2 if fqse else 1, L), "decoder.convTr1d.weight": (N, 1, L)}
    peaks = {"encoder": (N, 1, 1), "decoder": (1, 1, 1)}
    ranges = ["encoder", "decoder", "mul", "masker.bottleneck.0", "masker.bottleneck.1", "masker.mask_net.0"]
    ranges += ["masker.mask_net.1", *(f"masker.adds.{i}" for i in range(BLOCKS - 1))]
    convs = {"masker.bottleneck.1": (B, N, 1), "masker.mask_net.1": (N, S, 1)}
    norms = {"masker.bottleneck.0": N}
    shapes["masker.mask_net.0.nl.weight"] = (1,)
    for i in range(BLOCKS):
        at = f"masker.TCN.{i}"
        convs |= {f"{at}.shared_block.0": (H, B, 1), f"{at}.shared_block.3": (H, 1, 3)}
        convs |= {f"{at}.res_conv": (B, H, 1), f"{at}.skip_conv": (S, H, 1)}
        norms |= {f"{at}.shared_block.2": H, f"{at}.shared_block.5": H}
        shapes |= {f"{at}.shared_block.{k}.nl.weight": (1,) for k in (0, 3)}
        ranges += [f"{at}.shared_block.{k}" for k in (0, 2, 3, 5)] + [
            f"{at}.{x}" for x in ("res_conv", "skip_conv", "add")
        ]
    for name, size in convs.items():
        shapes |= {f"{name}.conv1d.weight": size, f"{name}.conv1d.bias": size[:1]}
        peaks[name] = (size[0], 1, 1)
    for name, size in norms.items():
        shapes |= {f"{name}.groupnorm.weight": (size,), f"{name}.groupnorm.bias": (size,)}
    if fqse:
        block = "decoder.residual_error_block"
        shapes[f"{block}.residual_encoder.weight"] = (N, 1, L)
        peaks[block] = (N, 1, 1)
        ranges += [block, "decoder.residual"]
    else:
        ranges.append("encoder.in_quantizer")
    weights = tensors(seed, shapes, 0.7)
    for name in norms:
        weights[f"{name}.groupnorm.weight"] += 1
    generator = torch.Generator().manual_seed(seed + 1)
    for name, size in peaks.items():
        low, high = -0.3 - torch.rand(size, generator=generator), 0.3 + torch.rand(size, generator=generator)
        weights |= {f"{name}.weight_fake_quantize.{end}_range": x for end, x in (("min", low), ("max", high))}
    for name in ranges:
        low, high = (-2.0, 2.0) - torch.rand(2, generator=generator).numpy() * (1, -1)
        if on_grid:
            step = (
                2 * int(torch.randint(20, 45, (), generator=generator)) + 1
            ) / 4096  # exact in float32, and products are no ties
            low = -int(torch.randint(60, 190, (), generator=generator)) * step
            high = low + 255 * step
        key = {
            "decoder.residual": "decoder.activation_fake_quantize_residual",
            "encoder.in_quantizer": "encoder.in_quantizer",
        }
        key = key.get(name, f"{name}.activation_fake_quantize")
        weights |= {f"{key}.min_range": torch.tensor([low]).float(), f"{key}.max_range": torch.tensor([high]).float()}
    return weights


def fqse_reference(w, x):
    """One signal x [n] through FQSE in float64, by its tensors: quantizers with a real offset, splitter and combiner."""
    w = {name: tensor.double() for name, tensor in w.items()}

    def rounded(y, key):
        low, high = w[f"{key}.min_range"], w[f"{key}.max_range"]
        step = (high - low) / 255
        return step * torch.clamp(torch.round((y - low) / step), 0, 255) + low

    def act(y, name):
        return rounded(y, f"{name}.activation_fake_quantize")

    def weight(name, tensor):
        low, high = (w[f"{name}.weight_fake_quantize.{end}_range"] for end in ("min", "max"))
        step = torch.maximum(low.abs(), high.abs()) / 128
        return step * torch.clamp(torch.round(w[tensor] / step), -128, 127)

    def conv(y, name, after=lambda y: y, **options):
        y = F.conv1d(y, weight(name, f"{name}.conv1d.weight"), w[f"{name}.conv1d.bias"], **options)
        return act(after(y), name)

    def norm(y, name):
        return act(F.group_norm(y, 1, w[f"{name}.groupnorm.weight"], w[f"{name}.groupnorm.bias"], 1e-8), name)

    def prelu(name):
        return lambda y: F.prelu(y, w[f"{name}.nl.weight"])

    planes, peak = x.double()[None, None], 1.0
    if w["encoder.conv1d.weight"].shape[1] == 2:
        peak = planes.abs().max()
        planes = planes / peak
        first = torch.clamp(torch.floor(planes * 128), -128, 127) / 128
        rest = torch.clamp(torch.floor((2 * 128 * (planes - first) - 1) * 128), -128, 127) / 128
        planes = torch.cat([first, rest], 1)
    else:
        planes = rounded(planes, "encoder.in_quantizer")
    encoding = act(F.conv1d(planes, weight("encoder", "encoder.conv1d.weight"), stride=L // 2), "encoder")
    y, skips = conv(norm(encoding, "masker.bottleneck.0"), "masker.bottleneck.1"), []
    for i in range(BLOCKS):
        at = f"masker.TCN.{i}.shared_block"
        z = norm(conv(y, f"{at}.0", prelu(f"{at}.0")), f"{at}.2")
        dilation = 2 ** (i % 2)
        z = conv(z, f"{at}.3", prelu(f"{at}.3"), padding=dilation, dilation=dilation, groups=H)
        z = norm(z, f"{at}.5")
        y = act(y + conv(z, f"masker.TCN.{i}.res_conv"), f"masker.TCN.{i}.add")
        skips.append(conv(z, f"masker.TCN.{i}.skip_conv"))
    total = skips[0]
    for i, skip in enumerate(skips[1:]):
        total = act(total + skip, f"masker.adds.{i}")
    mask = conv(act(prelu("masker.mask_net.0")(total), "masker.mask_net.0"), "masker.mask_net.1", F.relu)
    features = act(mask * encoding, "mul")
    kernel = weight("decoder", "decoder.convTr1d.weight")
    out = act(F.conv_transpose1d(features, kernel, stride=L // 2), "decoder")
    block = "decoder.residual_error_block"
    if f"{block}.residual_encoder.weight" in w:
        again = F.conv1d(out, weight(block, f"{block}.residual_encoder.weight"), stride=L // 2)
        rest = F.conv_transpose1d(act(features - again, block), kernel, stride=L // 2)
        out = out + rounded(rest, "decoder.activation_fake_quantize_residual") / 256
    return out[0, 0] * peak


def snr(expected, found):
    return float(10 * torch.log10(expected.square().sum() / (found - expected).square().sum()))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("fqse", [True, False], ids=["FQSE", "vanilla"])
@torch.no_grad()
def test_fqse_computes_what_its_tensors_do(se, tmp_path, rng, fqse, wrapped):
    weights = fqse_weights(4, fqse)
    torch.save({"state_dict": weights} if wrapped else weights, tmp_path / "trained_model.pth")
    done = se("quant", "import", tmp_path / "trained_model.pth", tmp_path / "q.pt")
    assert done.returncode == 0, done.err
    model, about = checkpoint.load(tmp_path / "q.pt")
    assert about["quantization"]["method"] == ("fqse" if fqse else "vanilla")
    assert model.config.splitter == 1 + fqse and model.config.residual == fqse
    x = torch.from_numpy(rng.standard_normal(4 * 60).astype(np.float32)) / 4
    expected = fqse_reference(weights, x)
    found = model.double().enhance(x.double()[None])[0]
    assert expected.std() > 1e-3 and snr(expected, found) > 100


def test_ranges_off_the_grid_move_by_half_a_level_at_most(tmp_path):
    torch.save(fqse_weights(4, on_grid=False), tmp_path / "trained_model.pth")
    model, _ = importers.load(tmp_path / "trained_model.pth")
    for name, quantizer in model.activation_quantizers.items():
        scale, zero = quantizer.grid()
        assert abs(float(-scale * zero - quantizer.lo.detach())) <= float(scale) / 2 * 1.0001, name


# GTCRN.


def gtcrn_weights(seed):
    shapes = {}

    def conv(name, *weight):
        # A transposed convolution's output channels are of the second axis.
        outputs = weight[0]
        if name == "decoder.de_convs.4.conv":
            outputs = 2
        elif "decoder" in name and ".point_conv" in name:
            outputs = weight[1]
        shapes.update({f"{name}.weight": weight, f"{name}.bias": (outputs,)})
        return outputs

    def norm(name, size):
        shapes.update({f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    for name, weight in (
        ("encoder.en_convs.0", (16, 9, 1, 5)),
        ("encoder.en_convs.1", (16, 8, 1, 5)),
        ("decoder.de_convs.3", (16, 8, 1, 5)),
        ("decoder.de_convs.4", (16, 2, 1, 5)),
    ):
        norm(f"{name}.bn", conv(f"{name}.conv", *weight))
        if name != "decoder.de_convs.4":  # tanh
            shapes[f"{name}.act.weight"] = (1,)
    for name in (*(f"encoder.en_convs.{i}" for i in (2, 3, 4)), *(f"decoder.de_convs.{i}" for i in (0, 1, 2))):
        turned = "decoder" in name
        norm(f"{name}.point_bn1", conv(f"{name}.point_conv1", *((24, 16) if turned else (16, 24)), 1, 1))
        norm(f"{name}.depth_bn", conv(f"{name}.depth_conv", 16, 1, 3, 3))
        norm(f"{name}.point_bn2", conv(f"{name}.point_conv2", *((16, 8) if turned else (8, 16)), 1, 1))
        shapes |= {f"{name}.point_act.weight": (1,), f"{name}.depth_act.weight": (1,)}
        shapes |= gru(f"{name}.tra.att_gru", 8, 16)
        shapes |= {f"{name}.tra.att_fc.weight": (8, 16), f"{name}.tra.att_fc.bias": (8,)}
    for name in ("dpgrnn1", "dpgrnn2"):
        for path, hidden in (("intra", 4), ("inter", 8)):
            for half in (1, 2):
                shapes |= gru(f"{name}.{path}_rnn.rnn{half}", 8, hidden)
                if path == "intra":
                    shapes |= gru(f"{name}.{path}_rnn.rnn{half}", 8, hidden, "_reverse")
            shapes |= {f"{name}.{path}_fc.weight": (16, 16), f"{name}.{path}_fc.bias": (16,)}
            shapes |= {f"{name}.{path}_ln.{part}": (33, 16) for part in ("weight", "bias")}
    weights = tensors(seed, shapes, 0.8)
    for name in weights:
        if name.endswith("running_var"):
            weights[name] = 0.5 + weights[name].abs()
        elif name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(250000)
        elif name.endswith((".bn.weight", "bn1.weight", "bn2.weight", "depth_bn.weight", "_ln.weight")):
            weights[name] = 1 + weights[name] / 4
    erb = torch.from_numpy(erb_matrix())
    return {"erb.erb_fc.weight": erb, "erb.ierb_fc.weight": erb.T.contiguous(), **weights}


def gru(name, inputs, hidden, end=""):
    shapes = {f"weight_ih_l0{end}": (3 * hidden, inputs), f"weight_hh_l0{end}": (3 * hidden, hidden)}
    shapes |= {f"bias_{kind}_l0{end}": (3 * hidden,) for kind in ("ih", "hh")}
    return {f"{name}.{part}": size for part, size in shapes.items()}


def gtcrn_reference(w, spectrum):
    """A spectrum [1, F, T, 2] through GTCRN as published: transposed convolutions in the decoder, a layer of nn.GRU for each GRU."""
    w = {name: tensor.double() for name, tensor in w.items()}

    def normed(x, name):
        running = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x, *running, w[f"{name}.weight"], w[f"{name}.bias"])

    def recurrent(x, name, both=False):
        layer = torch.nn.GRU(
            x.shape[-1], w[f"{name}.weight_hh_l0"].shape[1], batch_first=True, bidirectional=both
        ).double()
        layer.load_state_dict(
            {key.removeprefix(f"{name}."): value for key, value in w.items() if key.startswith(f"{name}.")}
        )
        return layer(x)[0]

    def linear(x, name):
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def stacked(x):
        return F.unfold(x, (1, 3), padding=(0, 1)).reshape(x.shape[0], 3 * x.shape[1], *x.shape[2:])

    def strided(x, name, groups, transposed=False):
        convolve = F.conv_transpose2d if transposed else F.conv2d
        options = dict(stride=(1, 2), padding=(0, 2), groups=groups)
        x = normed(convolve(x, w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], **options), f"{name}.bn")
        return F.prelu(x, w[f"{name}.act.weight"]) if f"{name}.act.weight" in w else torch.tanh(x)

    def block(x, name, dilation, transposed=False):
        convolve = F.conv_transpose2d if transposed else F.conv2d

        def point(h, k):
            return normed(
                convolve(h, w[f"{name}.point_conv{k}.weight"], w[f"{name}.point_conv{k}.bias"]), f"{name}.point_bn{k}"
            )

        processed, passed = x.chunk(2, 1)
        h = F.prelu(point(stacked(processed), 1), w[f"{name}.point_act.weight"])
        h = F.pad(h, (0, 0, 2 * dilation, 0))
        options = dict(padding=(2 * dilation if transposed else 0, 1), dilation=(dilation, 1), groups=16)
        h = normed(
            convolve(h, w[f"{name}.depth_conv.weight"], w[f"{name}.depth_conv.bias"], **options), f"{name}.depth_bn"
        )
        h = point(F.prelu(h, w[f"{name}.depth_act.weight"]), 2)
        gain = linear(recurrent(h.square().mean(-1).transpose(1, 2), f"{name}.tra.att_gru"), f"{name}.tra.att_fc")
        h = h * torch.sigmoid(gain).transpose(1, 2)[..., None]
        return torch.stack([h, passed], 2).flatten(1, 2)

    def paths(x, name):
        x = x.permute(0, 2, 3, 1)  # [1, T, F, C]
        for path, both in (("intra", True), ("inter", False)):
            sequences = x[0] if both else x[0].transpose(0, 1)
            halves = zip(sequences.chunk(2, -1), (1, 2))
            y = torch.cat([recurrent(h, f"{name}.{path}_rnn.rnn{k}", both) for h, k in halves], -1)
            y = linear(y, f"{name}.{path}_fc")
            y = y if both else y.transpose(0, 1)
            x = x + F.layer_norm(y, (33, 16), w[f"{name}.{path}_ln.weight"], w[f"{name}.{path}_ln.bias"], 1e-8)
        return x.permute(0, 3, 1, 2)

    re, im = spectrum.double().permute(3, 0, 2, 1)  # [1, T, F]
    x = torch.stack([(re**2 + im**2 + 1e-12).sqrt(), re, im], 1)
    x = stacked(torch.cat([x[..., :65], x[..., 65:] @ w["erb.erb_fc.weight"].T], -1))
    outs = [strided(x, "encoder.en_convs.0", 1)]
    outs.append(strided(outs[-1], "encoder.en_convs.1", 2))
    for i, dilation in ((2, 1), (3, 2), (4, 5)):
        outs.append(block(outs[-1], f"encoder.en_convs.{i}", dilation))
    x = paths(paths(outs[-1], "dpgrnn1"), "dpgrnn2")
    for i, dilation in enumerate((5, 2, 1)):
        x = block(x + outs.pop(), f"decoder.de_convs.{i}", dilation, transposed=True)
    x = strided(x + outs.pop(), "decoder.de_convs.3", 2, transposed=True)
    x = strided(x + outs.pop(), "decoder.de_convs.4", 1, transposed=True)
    mask = torch.cat([x[..., :65], x[..., 65:] @ w["erb.ierb_fc.weight"].T], -1)
    return torch.stack([re * mask[:, 0] - im * mask[:, 1], im * mask[:, 0] + re * mask[:, 1]], -1)


@torch.no_grad()
def test_gtcrn_computes_what_its_transposed_convolutions_do(se, tmp_path, rng):
    weights = gtcrn_weights(6)
    torch.save({"epoch": 92, "optimizer": {"state": {}}, "model": weights}, tmp_path / "model_trained_on_vctk.tar")
    done = se("quant", "import", tmp_path / "model_trained_on_vctk.tar", tmp_path / "gtcrn.pt")
    assert done.returncode == 0, done.err
    model, _ = checkpoint.load(tmp_path / "gtcrn.pt")
    spectrum = torch.from_numpy(rng.standard_normal((1, 257, 24, 2)))
    expected = gtcrn_reference(weights, spectrum)
    model = model.double()
    found, _ = model(spectrum.transpose(1, 2), tuple(s.double() for s in model.init_state(1)))
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-9)


# What does not fit.


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda c: c["state_dict"].pop("ln.bias"), "norm.bias is missing"),
        (lambda c: c["state_dict"].pop("repeats.0.0.dconv.weight"), "repeats.0.0.dconv.weight is missing"),
        (lambda c: c["state_dict"].update(extra=torch.zeros(2)), "extra is unknown"),
        (lambda c: c["state_dict"].update({"mask.weight": torch.zeros(256, 8, 1)}), r"mask.weight is \[256, 8\], not"),
        (lambda c: c["state_dict"].update({"proj.weight": torch.zeros(256)}), "expected 3 dimensions"),
        (lambda c: c.pop("hyper_parameters"), "stride is None; expected samples"),
        (lambda c: c["hyper_parameters"].update(sr=8000), "sr is 8000"),
        (lambda c: c.pop("state_dict"), "the layout is unknown"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_line(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        importers.load(dpsnn_file(tmp_path / "a.ckpt", change))


def test_other_erb_bands_are_refused(tmp_path):
    weights = gtcrn_weights(6)
    weights["erb.erb_fc.weight"] = weights["erb.erb_fc.weight"].flip(0)
    torch.save({"model": weights}, tmp_path / "a.tar")
    with pytest.raises(UserError, match="not the matrix of 64 ERB bands"):
        importers.load(tmp_path / "a.tar")


class Payload:
    def __reduce__(self):
        return (print, ("a program",))


def test_nothing_in_a_file_is_run(tmp_path, capsys):
    path = dpsnn_file(tmp_path / "a.ckpt", lambda c: c["hyper_parameters"].update(x=Payload()))
    with pytest.raises(UserError, match="holds code"):
        importers.load(path)
    assert "a program" not in capsys.readouterr().out
