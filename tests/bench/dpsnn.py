"""DPSNN against a straight loop over its frames in torch: ratios of CPU-time medians, one thread.

    python tests/bench/dpsnn.py [repeats]

Forms are timed in turn, so that a busy machine troubles all of them alike; trust the ratios, not the seconds. The hop
through ONNX Runtime is that of a graph of one frame, exported here.
"""

import io
import statistics
import sys
import time
import warnings

import torch
from torch.nn import functional as F

from setk import models
from setk.nn import spiking_operators
from setk.nn.exporting import exporting


class Step(torch.autograd.Function):
    """1 where u is above 0, or reaches it; `slope` of u is its gradient."""

    @staticmethod
    def forward(ctx, u, reach, slope):
        ctx.save_for_backward(slope)
        return (u >= 0 if reach else u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None


def gaussians(u):
    """Slope of the recurrent neurons and of the binary features."""
    normal = torch.distributions.Normal
    zero, width = u.new_zeros(()), u.new_tensor(0.5)
    middle, left, right = normal(zero, width), normal(-width, 6 * width), normal(width, 6 * width)
    return 0.5 * (1.15 * middle.log_prob(u).exp() - 0.15 * (left.log_prob(u).exp() + right.log_prob(u).exp()))


def frame_by_frame(model, frames):
    """Frames [B, T, window] of whole signals to output frames, one after another, as published code runs; no segments."""
    context = model.blocks[0].scnn.conv.kernel_size[0] - 1
    silence = torch.zeros_like(frames[:, :1]).expand(-1, context - 1, -1)
    history, out = [[] for _ in model.blocks], []
    neurons = None
    for f, frame in enumerate(torch.cat([silence, frames], 1).unbind(1)):
        e = F.relu(model.encoder(frame))
        z = model.binary.dense(model.norm(e)) - model.binary.threshold
        s = Step.apply(z, False, gaussians(z.detach()))
        history[0] = [*history[0], s][-context - 1 :]
        if f < context:
            if f == context - 1:
                out.append(torch.zeros_like(frame))
            continue
        if neurons is None:
            zeros = s.new_zeros(s.shape)
            history[1:] = [[zeros] * (context + 1) for _ in history[1:]]
            neurons = [dict(v=0.0, m=zeros, s=zeros, eta=zeros + 1.6) for _ in model.blocks]
            r = zeros
        every = []
        for j, (block, b) in enumerate(zip(model.blocks, neurons)):
            if j:
                history[j] = [*history[j], s][-context - 1 :]
            d = block.scnn.conv(torch.stack(history[j], -1))[..., 0]
            b["v"] = b["v"] + (d - b["v"]) * torch.sigmoid(block.scnn.w)
            s = Step.apply(b["v"] - 1, True, 1 / (1 + (torch.pi * (b["v"].detach() - 1)) ** 2))
            b["v"] = b["v"] * (1 - s.detach())
            n = block.srnn
            alpha, ro = torch.sigmoid(n.alpha), torch.sigmoid(n.ro)
            b["eta"] = ro * b["eta"] + (1 - ro) * b["s"]
            theta = 1.6 + 0.184 * b["eta"]
            b["m"] = alpha * b["m"] + (1 - alpha) * (n.dense(s) + n.recurrent(b["s"])) - theta * b["s"]
            u = b["m"] - theta
            b["s"] = s = Step.apply(u, False, gaussians(u.detach()))
            every.append(s)
        a = torch.sigmoid(model.readout.alpha)
        r = a * r + (1 - a) * model.readout.dense(torch.cat(every, -1))
        q = torch.where(r > model.readout.threshold, r, torch.zeros_like(r))
        out.append(model.decoder(e * torch.sigmoid(model.mask(q))) + model.decoder_bias)
    return torch.stack(out, 1)


def in_onnx(model):
    """A function that runs one hop of the model, exported, in ONNX Runtime."""
    import onnxruntime

    state = model.init_state(1)
    names, data = [f"state_{i}" for i in range(len(state))], io.BytesIO()
    with exporting(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 1, model.config.window), state),
            data,
            dynamo=False,
            opset_version=17,
            input_names=["frames", *names],
            output_names=["out", *(f"next_{name}" for name in names)],
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(data.getvalue(), options)
    values = dict(zip(names, (s.numpy() for s in state)))

    def hop(frame):
        out, *after = session.run(None, {"frames": frame.numpy(), **values})
        values.update(zip(names, after))
        return out

    return hop


def in_torch(model):
    state = model.init_state(1)

    def hop(frame):
        nonlocal state
        out, state = model(frame, state)
        return out

    return hop


def table(what: str, forms: dict, repeats: int, per: float) -> None:
    """CPU milliseconds / `per` of each form, and how many times the first form's speed."""
    times = {form: [] for form in forms}
    for repeat in range(repeats + 1):
        for form, function in forms.items():
            start = time.process_time()
            function()
            if repeat:  # the first warms up
                times[form].append((time.process_time() - start) / per)
    median = {form: statistics.median(t) for form, t in times.items()}
    first = next(iter(median.values()))
    for form, t in median.items():
        print(f"{what:32} {form:16} {1e3 * t:9.3f} ms  {first / t:7.1f} x")


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"kernel {'built' if spiking_operators.kernel_available() else 'not built: the loop is timed'}")
    model = models.build_preset("dpsnn").eval()
    frames = model.transform.analysis(0.1 * torch.randn(1, 16000))
    batch = model.transform.analysis(0.1 * torch.randn(8, 16000))
    start = model.init_state(1)

    with torch.no_grad():
        table(
            "1 s of audio, offline",
            {
                "straight loop": lambda: frame_by_frame(model, frames),
                "setk": lambda: model(frames, start),
            },
            repeats,
            1,
        )
        hops = {"torch": in_torch(model), "ONNX Runtime": in_onnx(model)}
        table(
            "a hop of 2.5 ms",
            {form: lambda hop=hop: [hop(frames[:, t : t + 1]) for t in range(200)] for form, hop in hops.items()},
            repeats,
            200,
        )

    model.train()
    kernel = spiking_operators._kernel

    def without_kernel():
        spiking_operators._kernel = None
        model.whole(batch).square().mean().backward()
        spiking_operators._kernel = kernel

    table(
        "training step, 8 signals of 1 s",
        {
            "straight loop": lambda: frame_by_frame(model, batch).square().mean().backward(),
            "setk, no kernel": without_kernel,
            "setk": lambda: model.whole(batch).square().mean().backward(),
        },
        repeats,
        1,
    )


if __name__ == "__main__":
    main()
