"""Muon against torch's, which takes single matrices, and which matrices it finds in a model."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from setk import models
from setk.nn.gru import GroupedGRU
from setk.training.muon import Muon, orthogonalised


def descend(module, optimizer, x, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        module(x).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(24, 24), (8, 40), (40, 8)])
def test_one_matrix_moves_as_by_torchs(shape):
    found, start = [], torch.randn(shape)
    x = torch.randn(64, shape[1])
    for make in (
        lambda m: Muon(m, 0.01, (0.9, 0.99), 0.1),
        lambda m: torch.optim.Muon(m.parameters(), lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ):
        module = nn.Linear(shape[1], shape[0], bias=False)
        module.weight.data.copy_(start)
        descend(module, make(module), x, 3)
        found.append(module.weight.detach() - start)
    ours, torchs = found
    # torch's iterates in bfloat16.
    assert (ours - torchs).norm() < 0.03 * torchs.norm()


def test_orthogonalised_keeps_directions_and_evens_their_sizes():
    x = torch.randn(5, 12, 30)
    u, _, vt = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ orthogonalised(x) @ vt.mT
    sizes = inner.diagonal(dim1=-2, dim2=-1)
    assert 0.6 < sizes.min() and sizes.max() < 1.3
    assert (inner - torch.diag_embed(sizes)).abs().max() < 1e-4
    assert torch.allclose(orthogonalised(x.mT), orthogonalised(x).mT, atol=1e-5)


def test_a_stack_moves_as_its_matrices_would_alone():
    """Groups and gates of a GroupedGRU against each gate's matrix as a layer of its own."""
    gru = GroupedGRU(2, 6, 4)
    optimizer = Muon(gru, 0.01, (0.9, 0.99), 0.0)
    gradient = torch.randn_like(gru.weight_ih)
    before = gru.weight_ih.detach().clone()
    gru.weight_ih.grad = gradient.clone()
    optimizer.step()
    for g in range(2):
        for gate in range(3):
            rows = slice(4 * gate, 4 * gate + 4)
            alone = nn.Linear(6, 4, bias=False)
            alone.weight.data.copy_(before[g, rows])
            alone.weight.grad = gradient[g, rows].clone()
            Muon(alone, 0.01, (0.9, 0.99), 0.0).step()
            assert torch.allclose(gru.weight_ih[g, rows], alone.weight, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["conv_tasnet-small", "dccrn", "dpcrn_cf", "dpsnn", "effifusion_gan-small", "fspen", "lite_rtse"]
)
def test_weights_of_layers_move_by_muon_and_nothing_else(name):
    model = models.build_preset(name)
    matrices, wide, vectors = (group["params"] for group in Muon(model, 1e-3, (0.9, 0.99), 0.01).param_groups)
    assert sum(map(len, (matrices, wide, vectors))) == len(list(model.parameters()))
    names = {id(p): n for n, p in model.named_parameters()}
    assert matrices and all("weight" in names[id(p)] and "norm" not in names[id(p)] for p in matrices)
    assert all(p.ndim <= 1 for p in vectors)


def test_the_rest_moves_as_by_adamw():
    module = nn.Linear(5, 3)
    other = nn.Linear(5, 3)
    other.load_state_dict(module.state_dict())
    ours = Muon(module, 0.01, (0.9, 0.99), 0.0)
    theirs = torch.optim.AdamW(other.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)
    for _ in range(3):
        for m in (module, other):
            m.bias.grad = torch.arange(3.0) - 1
        ours.step()
        theirs.step()
    assert torch.equal(module.bias, other.bias) and torch.equal(module.weight, other.weight)


def test_a_quantized_model_has_its_weights_moved_too():
    from setk.nn.quantization import Scheme, quantize

    model = models.build_preset("conv_tasnet-small")
    plain = Muon(model, 1e-3, (0.9, 0.99), 0.0).param_groups[0]["params"]
    quantize(model, Scheme("fqse"))
    quantized = Muon(model, 1e-3, (0.9, 0.99), 0.0).param_groups[0]["params"]
    assert sum(p.numel() for p in quantized) == sum(p.numel() for p in plain)
