"""GroupedGRU: every form is G nn.GRUs. The kernel's tests are skipped, saying so, where it is not built."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from setk.nn import gru
from setk.nn.exporting import exporting
from setk.nn.gru import GroupedGRU

FORMS = ["kernel", "loop", "separate"]
SIZES = [  # G, B, T, K, I, H, reverse, one input for all groups
    (8, 2, 5, 4, 16, 16, False, False),
    (2, 7, 9, 1, 16, 16, (False, True), True),
    (3, 1, 1, 1, 5, 8, False, False),
    (1, 3, 4, 2, 16, 32, True, False),
    (2, 1, 6, 5, 40, 24, (True, False), False),
    (3, 2, 3, 3, 1, 1, (False, True, True), True),
    (1, 5, 11, 1, 33, 16, (True,), True),
]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def run(form: str, module: GroupedGRU, x, h):
    if form == "kernel":
        if not gru.kernel_available():
            pytest.skip("the GRU kernel is not built (python setup.py build_ext --inplace)")
        return module._by_kernel(x, h)
    return {"loop": module._loop, "separate": module._separate}[form](x, h)


def reference(module: GroupedGRU, x, h):
    """The groups one by one, as nn.GRU."""
    ys, lasts = [], []
    for g, reverse in enumerate(module.reverse):
        cell = nn.GRU(module.input_size, module.hidden_size).to(x.dtype)
        weights = {f"{name}_l0": p[g] for name, p in module.named_parameters()}
        xg = x[g if len(x) > 1 else 0]
        b, t, k, _ = xg.shape
        steps = xg.transpose(0, 1).reshape(t, b * k, -1)
        steps = steps.flip(0) if reverse else steps
        y, last = torch.func.functional_call(cell, weights, (steps, h[g].reshape(1, b * k, -1)))
        y = y.flip(0) if reverse else y
        ys.append(y.view(t, b, k, -1).transpose(0, 1))
        lasts.append(last.view(b, k, -1))
    return torch.stack(ys), torch.stack(lasts)


def case(size, dtype=torch.float32):
    g, b, t, k, i, h, reverse, shared = size
    module = GroupedGRU(g, i, h, reverse).to(dtype)
    x = torch.randn(1 if shared else g, b, t, k, i, dtype=dtype, requires_grad=True)
    return module, x, torch.randn(g, b, k, h, dtype=dtype, requires_grad=True)


def gradients(outputs, seeds, module, x, h):
    return torch.autograd.grad(outputs, [x, h, *module.parameters()], seeds)


def near(a, b, tolerance=1e-6):
    """Within `tolerance` of the largest value."""
    assert a.shape == b.shape
    assert (a - b).abs().max() <= tolerance * max(1, b.abs().max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_equals_separate_grus(form, size):
    module, x, h = case(size)
    expected = reference(module, x, h)
    got = run(form, module, x, h)
    seeds = [torch.randn_like(e) for e in expected]
    for a, b in zip(got, expected):
        near(a, b)
    for a, b in zip(gradients(got, seeds, module, x, h), gradients(expected, seeds, module, x, h)):
        near(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_large_sums_and_saturated_gates(form):
    torch.manual_seed(0)  # rounding alone differs by more for some other inputs, in torch's own GRU too
    module, x, h = case((2, 60, 40, 1, 16, 16, (False, True), True))
    x = (30 * x).detach().requires_grad_()
    expected, got = reference(module, x, h), run(form, module, x, h)
    seeds = [torch.randn_like(e) for e in expected]
    for a, b in zip(got, expected):
        near(a, b, 5e-6)
    for a, b in zip(gradients(got, seeds, module, x, h), gradients(expected, seeds, module, x, h)):
        near(a, b, 1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_chunks_equal_the_whole(form):
    module, x, h = case(SIZES[0])
    with torch.no_grad():
        whole, last = run(form, module, x, h)
        state, parts = h, []
        for frame in x.split(1, 2):
            y, state = run(form, module, frame, state)
            parts.append(y)
    near(torch.cat(parts, 2), whole)
    near(state, last)


def test_any_strides():
    """Views are read where they lie: bands taken from [B, T, bands, I], gradients from a transpose."""
    module, x, h = case(SIZES[0])
    bands = x.detach().permute(1, 2, 0, 3, 4).contiguous().requires_grad_()
    y, _ = module(bands.permute(2, 0, 1, 3, 4), h)
    expected, _ = module(x, h)
    assert torch.equal(y, expected)
    seed = torch.randn(y.transpose(1, 4).shape)
    (a,) = torch.autograd.grad(y.transpose(1, 4), bands, seed)
    (b,) = torch.autograd.grad(expected, x, seed.transpose(1, 4).contiguous())
    assert torch.equal(a.permute(2, 0, 1, 3, 4), b)


def test_expanded_input_is_a_shared_one():
    module, x, h = case(SIZES[1])
    y, last = module(x.expand(2, -1, -1, -1, -1), h)
    expected, expected_last = module(x, h)
    assert torch.equal(y, expected) and torch.equal(last, expected_last)
    seed = torch.randn_like(y)
    near(*(torch.autograd.grad(out, x, seed)[0] for out in (y, expected)))


def test_state_starts_at_zero_and_only_the_last_may_be_used():
    module, x, h = case(SIZES[4])
    near(module(x)[0], module(x, torch.zeros_like(h))[0], 0)
    (a,) = torch.autograd.grad(module(x, h)[1].sum(), h)
    (b,) = torch.autograd.grad(reference(module, x, h)[1].sum(), h)
    near(a, b)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_is_seen_and_infinity_saturates(form, bad):
    module, x, h = case((1, 6, 3, 1, 16, 16, False, False))
    with torch.no_grad():
        x[0, 2, 1, 0, 3] = bad
    expected, got = reference(module, x, h)[0], run(form, module, x, h)[0]
    assert torch.equal(got.isnan(), expected.isnan())
    near(got.nan_to_num(), expected.nan_to_num())
    if bad != bad:
        assert got[0, 2, 1:].isnan().all() and not got[0, [0, 1, 3, 4, 5]].isnan().any()
        grads = gradients([got.sum()], None, module, x, h)
        assert all(g.isnan().any() for g in grads)


@pytest.mark.parametrize("form", FORMS)
def test_same_bits_again(form):
    module, x, h = case((2, 9, 12, 3, 16, 16, (False, True), True))
    seeds = None
    results = []
    for _ in range(3):
        out = run(form, module, x, h)
        seeds = seeds or [torch.randn_like(o) for o in out]
        results.append([*out, *gradients(out, seeds, module, x, h)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@pytest.mark.parametrize("form", ["loop", "separate"])
def test_gradient_in_float64(form):
    module, x, h = case((2, 1, 3, 2, 3, 4, (False, True), True), torch.float64)
    names = [name for name, _ in module.named_parameters()]

    def function(x, h, *weights):
        for name, p in zip(names, weights):
            delattr(module, name)
            setattr(module, name, p)
        return run(form, module, x, h)

    weights = [p.detach().requires_grad_() for p in module.parameters()]
    assert torch.autograd.gradcheck(function, (x, h, *weights))


def test_forms_are_chosen():
    """float64 and autocast work, and meta tensors count the multiply-accumulates of separate GRUs."""
    module, x, h = case(SIZES[1], torch.float64)
    near(module(x, h)[0], reference(module, x, h)[0], 1e-12)
    module, x, h = case(SIZES[1])
    with torch.autocast("cpu", torch.bfloat16):
        near(module(x, h)[0].float(), reference(module, x, h)[0].float(), 5e-2)
    g, b, t, k, i, n, reverse, _ = SIZES[0]
    with torch.device("meta"):
        counted = GroupedGRU(g, i, n, reverse)
        with FlopCounterMode(display=False) as counter:
            counted(torch.empty(g, b, t, k, i))
    assert counter.get_total_flops() == 2 * g * b * t * k * 3 * n * (i + n)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    "size",
    [
        (8, 1, 1, 4, 16, 16, False, False),
        (2, 3, 5, 1, 16, 16, (False, True), True),
        (3, 2, 4, 2, 5, 8, (True, False, True), False),
    ],
)
def test_exported_form(size):
    """Plain operations of a graph, equal to the layer."""
    module, x, h = case(size)
    x, h = x.detach(), h.detach()
    expected = module(x, h)
    with torch.no_grad(), exporting(module):
        traced = torch.jit.trace(module, (x, h))
    assert "setk::" not in str(traced.inlined_graph)
    for a, b in zip(traced(x, h), expected):
        near(a, b)
    assert "forward" not in vars(module)


@pytest.mark.skipif(not gru.kernel_available(), reason="the GRU kernel is not built")
def test_the_kernel_is_an_operator_of_torch():
    """Its shapes, strides and gradients are registered as torch's own checks want them, and it is one node of a graph."""
    for size in (SIZES[0], SIZES[1]):
        module, x, h = case(size)
        weights = [p.detach().requires_grad_() for p in module.parameters()]
        torch.library.opcheck(gru._gru, (x, h, *weights, list(module.reverse)))
    exported = torch.export.export(module, (x.detach(), h.detach()))
    assert [str(node.target) for node in exported.graph.nodes if "setk" in str(node.target)] == ["setk.gru.default"]
    near(exported.module()(x, h)[0], module(x, h)[0])
    with pytest.raises(TypeError, match="expected float32"):
        module(x.half(), h.half())


@pytest.mark.full
@pytest.mark.parametrize("build", ["default", "avx2", "avx512"])
def test_every_build_of_the_kernel(build):
    """The builds for the other processors, in a process in which torch takes this one for such."""
    name = {"default": "_gru_base"}.get(build, f"_gru_{build}")
    if importlib.util.find_spec(f"setk.nn.{name}") is None:
        pytest.skip(f"{name} is not built")
    if build == "avx512" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("this processor has no AVX-512")
    if os.environ.get("ATEN_CPU_CAPABILITY"):
        return  # this is such a process
    command = [sys.executable, "-m", "pytest", "-q", "-k", "separate_grus or saturate or bits", __file__]
    done = subprocess.run(command, env={**os.environ, "ATEN_CPU_CAPABILITY": build}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_wrong_sizes_are_refused():
    module, x, h = case(SIZES[0])
    with pytest.raises(ValueError, match="input"):
        module(x[:2], h)
    with pytest.raises(ValueError, match="state"):
        module(x, h[:, :1])
    with pytest.raises(ValueError, match="reverse"):
        GroupedGRU(3, 16, 16, (True, False))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("reverse", [(False, True), (False, True, False, True), (True, True), False])
@pytest.mark.parametrize("shared", [True, False])
def test_the_exported_form_is_the_same_function(reverse, shared):
    groups = 2 if isinstance(reverse, bool) else len(reverse)
    torch.manual_seed(5)
    module = GroupedGRU(groups, 5, 6, reverse)
    x, h = torch.randn(1 if shared else groups, 2, 7, 3, 5), torch.randn(groups, 2, 3, 6)
    with torch.no_grad():
        with exporting(module):
            traced = torch.jit.trace(module, (x, h))
        for mine, exported in zip(module(x, h), traced(x, h)):
            near(exported, mine)
