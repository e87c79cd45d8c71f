"""The MAC counter against hand formulas, and ptflops' rules against ptflops."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from test_count import KEYS as COLUMNS

from setk import cost, models
from setk.cost import macs, ptflops
from setk.cost.ledger import frame_inputs
from setk.cost.timing import timing
from setk.audio.stft import STFT
from setk.engines import TorchEngine
from setk.core.errors import UserError
from setk.nn.gru import GroupedGRU, PathLinear


@pytest.fixture(params=range(3))
def size(request, rng):
    """Draw a random size from `low` to `high`; three times."""
    return lambda low=1, high=9: int(rng.integers(low, high + 1))


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


def zeros(*shapes):
    return tuple(torch.zeros(shape, device="meta") for shape in shapes)


def counted(module, *shapes, **options):
    return macs.count(module, lambda _: zeros(*shapes), **options).total


def quoted(module, *shapes, **options):
    return ptflops.count(module, lambda _: zeros(*shapes), **options).total


def out_length(n, kernel, stride=1, pad=0, dilation=1):
    return (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1


def test_conv1d(size):
    b, i, o, n, k, s, p, d = size(), size(), size(), size(30, 40), size(), size(1, 3), size(0, 4), size(1, 3)
    conv = nn.Conv1d(i, o, k, s, p, d)
    assert counted(conv, (b, i, n)) == b * o * i * k * out_length(n, k, s, p, d)


def test_conv2d_grouped_and_without_bias(size):
    b, g, i, o, h, w, kh, kw = size(), size(2, 4), size(), size(), size(9, 15), size(9, 15), size(1, 4), size(1, 4)
    conv = nn.Conv2d(g * i, g * o, (kh, kw), (2, 1), (1, 0), groups=g, bias=False)
    assert counted(conv, (b, g * i, h, w)) == b * g * o * i * kh * kw * out_length(h, kh, 2, 1) * out_length(w, kw)


def test_depthwise_conv(size):
    c, n, k = size(2), size(9, 20), 2 * size(0, 2) + 1
    assert counted(nn.Conv1d(c, c, k, padding="same", groups=c), (1, c, n)) == c * n * k


def test_transposed_convs_cost_what_their_input_spreads(size):
    b, g, i, o, h, w, k = size(), size(2, 3), size(), size(), size(), size(), size(2, 4)
    assert counted(nn.ConvTranspose1d(i, o, k, 2, 1, 1), (b, i, w + 2)) == b * i * o * k * (w + 2)
    grouped = nn.ConvTranspose2d(g * i, g * o, (k, 3), (2, 1), groups=g)
    assert counted(grouped, (b, g * i, h, w)) == b * g * i * o * k * 3 * h * w


def test_linear_of_any_rank_with_and_without_bias(size):
    a, b, i, o = size(), size(), size(), size()
    assert counted(nn.Linear(i, o), (a, b, i)) == counted(nn.Linear(i, o, bias=False), (a, b, i)) == a * b * i * o
    assert counted(nn.Linear(i, o), (i,)) == i * o


@pytest.mark.parametrize("kind, gates", [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers(size, kind, gates):
    b, t, i, h = size(), size(), size(), size()
    assert counted(kind(i, h, batch_first=True), (b, t, i)) == b * t * gates * h * (i + h)
    both = gates * h * (i + h) + gates * h * (2 * h + h)
    assert counted(kind(i, h, 2, bidirectional=True), (t, b, i)) == 2 * b * t * both


def test_recurrent_cells(size):
    b, i, h = size(), size(), size()
    assert counted(nn.GRUCell(i, h), (b, i)) == b * 3 * h * (i + h)
    assert counted(nn.LSTMCell(i, h), (b, i)) == b * 4 * h * (i + h)


def test_grouped_gru_and_path_linear(size):
    g, b, t, k, i, h = size(2), size(), size(), size(), size(), size()
    assert counted(GroupedGRU(g, i, h), (g, b, t, k, i)) == g * b * t * k * 3 * h * (i + h)
    assert counted(GroupedGRU(2, i, h, reverse=(False, True)), (1, b, t, k, i)) == 2 * b * t * k * 3 * h * (i + h)
    assert counted(PathLinear(g, i, h), (g, b, t, i)) == g * b * t * i * h


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention(size, need_weights):
    b, q, k, heads, e = size(), size(), size(), size(1, 3), size()
    e *= heads
    expected = b * (2 * q * e * e + 2 * k * e * e + 2 * q * k * e)
    module = nn.MultiheadAttention(e, heads, batch_first=True)
    assert counted(module, (b, q, e), (b, k, e), (b, k, e), need_weights=need_weights) == expected


def test_transformer_layer_does_not_hide_in_its_fast_path(size):
    b, t, e, f = size(), size(), 2 * size(), size()
    layer = nn.TransformerEncoderLayer(e, 2, f, batch_first=True)
    assert counted(layer, (b, t, e)) == b * (4 * t * e * e + 2 * t * t * e + 2 * t * e * f)


def test_attention_function(size):
    b, h, q, k, e, v = size(), size(), size(), size(), size(), size()
    assert counted(Call(F.scaled_dot_product_attention), (b, h, q, e), (b, h, k, e), (b, h, k, v)) == b * h * q * k * (
        e + v
    )


def test_contractions(size):
    a, b, m, k, n = size(), size(), size(), size(2), size()  # over one element, einsum is a plain product
    assert (
        counted(Call(lambda x, y: torch.einsum("abmk,bnk->abmn", x, y)), (a, b, m, k), (b, n, k)) == a * b * m * k * n
    )
    assert counted(Call(torch.matmul), (a, b, m, k), (k, n)) == a * b * m * k * n
    assert counted(Call(torch.matmul), (b, m, k), (k,)) == b * m * k
    assert counted(Call(torch.dot), (k,), (k,)) == k
    assert counted(Call(lambda x, y: torch.complex(x, x) @ torch.complex(y, y)), (m, k), (k, n)) == 4 * m * k * n


def test_norms_activations_and_masks_are_free():
    model = nn.Sequential(
        nn.BatchNorm1d(4),
        nn.PReLU(),
        nn.LayerNorm(6),
        nn.Sigmoid(),
        nn.GroupNorm(2, 4),
        nn.ELU(),
        Call(lambda x: x * x + x),
    )
    assert counted(model, (2, 4, 6)) == 0


def test_an_op_of_unknown_cost_is_an_error_that_names_op_and_layer():
    model = nn.Sequential(nn.Linear(4, 4), Call(lambda x: torch.fft.rfft(x)))
    with pytest.raises(
        UserError, match=r"op aten._fft_r2c in layer 1 is not in the cost model; enter it in COUNTED or FREE"
    ):
        counted(model, (2, 4))


def test_an_op_of_somebody_else_is_an_error():
    @torch.library.custom_op("setk_test::twist", mutates_args=())
    def twist(x: torch.Tensor) -> torch.Tensor:
        return x.flip(0)

    with pytest.raises(
        UserError, match=r"op setk_test.twist in the model is not in the cost model; let the layer compute"
    ):
        counted(Call(lambda x: twist(x)), (4,))


def test_macs_go_to_the_innermost_module_and_shared_parameters_count_once():
    linear = nn.Linear(3, 5)
    model = nn.Sequential(linear, nn.Sequential(nn.ReLU(), Call(lambda x: x @ x.mT)), nn.Linear(7, 3), linear)
    rows = {row.layer: row for row in macs.count(model, lambda _: zeros((7, 3))).layers()}
    assert {path: row.macs_per_second for path, row in rows.items()} == {
        "0": 2 * 7 * 3 * 5,
        "1.1": 7 * 5 * 7,
        "2": 7 * 7 * 3,
    }
    assert {path: row.params for path, row in rows.items()} == {"0": 20, "1.1": 0, "2": 24}
    assert rows["2"].output == "7x3" and rows["2"].type == "Linear"


def test_the_model_itself_is_left_as_it_was():
    model = models.build_preset("fspen").train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cost.report(model)
    assert model.training and not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# FSPEN, whose figures papers quote.

FIXED = {"fspen": 4844 + 3104 + 2608 + 2656 + 7326 + 2600, "fspen-79k": 4844 + 2784 + 2608 + 2656 + 6338 + 2600}
NORMS = {"fspen": 2048, "fspen-79k": 32}


def fspen(preset="fspen", **changes):
    return models.build("fspen", models.config_values("fspen", preset, changes))


def per_second(model, convention="setk"):
    return cost.report(model, convention)["macs_per_second"]


@pytest.mark.parametrize("preset", FIXED)
@pytest.mark.parametrize("paths", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_fspen_parameters_follow_the_formula(preset, paths, blocks):
    params = models.count_parameters(fspen(preset, groups=paths, dpe_blocks=blocks))["params"]
    assert params == FIXED[preset] + blocks * (3792 + NORMS[preset] + 1904 * paths)


def test_fspen_figures():
    report = cost.report(fspen())
    assert list(report) == list(COLUMNS)
    assert report["params"] == 86354 and report["macs_per_second"] == 72_528_000
    assert report["latency_ms"] == 32 and report["synops_per_second"] is None
    assert report["stft_macs_per_second"] == 62.5 * (2 * 1.25 * 512 * 9 + 2 * 512)
    assert per_second(fspen("fspen-79k")) == 70_352_000


@pytest.mark.parametrize("preset, published", [("conv_tasnet", 4_914_376_704), ("fqse", 4_963_479_552)])
def test_conv_tasnet_costs_what_is_published(preset, published):
    """One second is 999 frames: 16.37 M for each convolution at the ends, of which FQSE has three more (its second plane, the
    encoder and decoder of the residual), 65.47 M for each 1x1, 1.53 M for each depthwise one."""
    per_frame = (
        2 * 512 * 32 + 2 * 512 * 128 + 24 * (3 * 128 * 512 + 512 * 3) + (3 * 512 * 32 if preset == "fqse" else 0)
    )
    assert per_second(models.build_preset(preset)) == 999 * per_frame == published


def test_effifusion_gan_costs_over_two_seconds_what_its_fact_sheet_says():
    """321 frames; a block's share of attention, 2 x 64 MACs for each pair of frames or bins, is a fifth."""
    rows = macs.count(models.build_preset("effifusion_gan"), frame_inputs(321)).macs
    parts = {
        part: sum(n for path, n in rows.items() if path.startswith(part)) / 1e9
        for part in ("", "encoder", "blocks", "magnitude", "phase")
    }
    assert parts == pytest.approx(
        {"": 42.79, "encoder": 3.35, "blocks": 35.66, "magnitude": 1.89, "phase": 1.90}, abs=0.006
    )
    attention = sum(n for path, n in rows.items() if path.endswith("attention"))
    assert attention == 4 * 2 * 64 * (101 * 321**2 + 321 * 101**2)
    assert per_second(models.build_preset("effifusion_gan-small")) < 1.5e9


def test_a_causal_model_costs_the_same_at_any_length():
    totals = [sum(row.macs_per_second for row in macs.layers(fspen(), seconds)) for seconds in (0.01, 0.1, 1.0)]
    assert totals == [72_528_000] * 3


def test_attention_over_time_costs_more_the_longer_the_signal():
    class Attending(models.Model):
        def __init__(self):
            super().__init__()
            self.transform, self.attend = STFT(512, 256), nn.MultiheadAttention(2, 1, batch_first=True)

        def init_state(self, batch):
            return ()

        def forward(self, spectrum, state):
            x = spectrum.mean(2)
            return self.attend(x, x, x)[0], state

    def total(seconds):
        return sum(row.macs_per_second for row in macs.layers(Attending(), seconds))

    assert total(1.984) == pytest.approx(62.5 * (4 * 4 + 2 * 2 * 124)) and total(0.992) == pytest.approx(
        62.5 * (4 * 4 + 2 * 2 * 62)
    )


@pytest.mark.full
def test_fspen_paths_are_free_and_every_block_costs_the_same():
    assert len({per_second(fspen(groups=p)) for p in (1, 8, 32)}) == 1
    one, two, three = (per_second(fspen(dpe_blocks=d)) for d in (1, 2, 3))
    assert two - one == three - two == 62.5 * 32 * 16 * (2 * 3 * 32 + 32 + 3 * 32 + 16)


@pytest.mark.full
@pytest.mark.parametrize("seconds", [1.0, 2.5])
def test_layers_sum_to_the_report(seconds):
    for convention in cost.CONVENTIONS:
        rows = cost.layers(fspen(), convention, seconds)
        report = cost.report(fspen(), convention, seconds=seconds)
        assert sum(row.macs_per_second for row in rows) == report["macs_per_second"]
        assert sum(row.params for row in rows) == report["params"]


def test_an_unknown_convention_is_an_error():
    with pytest.raises(UserError, match="known: setk, ptflops"):
        cost.report(fspen(), "thop")


def test_timing_is_plausible(untrained):
    took = timing(TorchEngine(untrained), hops=20, seconds=0.5)
    assert 0 < took["hop_ms_median"] <= took["hop_ms_p99"] < 1000 and 0 < took["rtf"] < took["rtf_stream"] < 10


# The rules of ptflops, first against the published sheet, then against the tool.


def test_published_figures_of_fspen():
    assert per_second(fspen(), "ptflops") == pytest.approx(79.3e6, rel=0.01)
    assert per_second(fspen(), "ptflops") == pytest.approx(80e6, rel=0.02)
    assert per_second(fspen("fspen-79k"), "ptflops") == pytest.approx(77.1e6, rel=0.01)


def by_tool(module, args, hooks=None, **options):
    """MACs as the installed ptflops counts them; the arguments go around it, since it divides by the batch."""
    tool = pytest.importorskip("ptflops")

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, unused):
            return self.module(*args, **options)

    with redirect_stdout(StringIO()):
        total, _ = tool.get_model_complexity_info(
            Whole(),
            (1,),
            as_strings=False,
            print_per_layer_stat=False,
            backend="pytorch",
            custom_modules_hooks=hooks or {},
            input_constructor=lambda _: {"unused": torch.zeros(1, 1)},
        )
    return total


MODULES = [
    (nn.Conv1d(4, 6, 3, 2, 1, groups=2), (2, 4, 11)),
    (nn.Conv2d(2, 3, (2, 3), bias=False), (2, 2, 7, 8)),
    (nn.ConvTranspose1d(4, 6, 3, 2), (2, 4, 11)),
    (nn.ConvTranspose2d(4, 2, 3, groups=2), (2, 4, 5, 6)),
    (nn.Linear(5, 7), (2, 3, 5)),
    (nn.Linear(5, 7, bias=False), (2, 3, 5)),
    (nn.BatchNorm1d(4), (2, 4, 6)),
    (nn.BatchNorm2d(4, affine=False), (2, 4, 6, 5)),
    (nn.InstanceNorm2d(4, affine=True), (2, 4, 6, 5)),
    (nn.LayerNorm(6), (2, 4, 6)),
    (nn.GroupNorm(2, 4), (2, 4, 6)),
    (nn.ELU(), (2, 4)),
    (nn.ReLU(), (2, 4)),
    (nn.PReLU(), (2, 4)),
    (nn.LeakyReLU(), (2, 4)),
    (nn.GELU(), (2, 4)),
    (nn.SiLU(), (2, 4)),
    (nn.ReLU6(), (2, 4)),
    (nn.Softmax(-1), (2, 4)),
    (nn.Sigmoid(), (2, 4)),
    (nn.Tanh(), (2, 4)),
    (nn.GRU(3, 4, 2, bidirectional=True, batch_first=True), (2, 5, 3)),
    (nn.LSTM(3, 4, 2), (5, 2, 3)),
    (nn.RNN(3, 4, bias=False), (5, 2, 3)),
    (nn.GRUCell(3, 4), (5, 3)),
    (nn.LSTMCell(3, 4), (5, 3)),
    (Call(lambda x: F.elu(x) + F.relu(x) * x), (3, 4)),
    (Call(lambda x: torch.mul(torch.add(x, 1), x[:1])), (3, 4)),
    (Call(lambda x: torch.matmul(x, x.mT) @ x), (3, 4)),
    (Call(lambda x: torch.baddbmm(x[:, :, :1], x, x.mT)), (2, 3, 4)),
]


@pytest.mark.parametrize("module, shape", MODULES, ids=[type(m).__name__ for m, _ in MODULES])
def test_rules_equal_the_tool(module, shape):
    assert quoted(module, shape) == by_tool(module, [torch.zeros(shape)])


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_rule_equals_the_tool(need_weights):
    module, shapes = nn.MultiheadAttention(8, 2, batch_first=True), [(2, 7, 8), (2, 5, 8), (2, 5, 8)]
    tool = by_tool(module, [torch.zeros(s) for s in shapes], need_weights=need_weights)
    assert quoted(module, *shapes, need_weights=need_weights) == tool


def test_what_has_no_rule_is_an_error():
    with pytest.raises(UserError, match="max_pool1d in layer 0 has no rule"):
        quoted(nn.Sequential(nn.MaxPool1d(2)), (1, 2, 8))


@pytest.mark.full
def test_the_tool_itself_reads_our_layers_with_hooks_and_as_zero_without():
    torch.manual_seed(1)
    spectrum = torch.randn(1, 63, 257, 2)
    # Of fspen the tool also counts the products inside the layers that have a hook.
    for preset, bare, close in (("lite_rtse", 282.3e6, 2e-3), ("fspen", 47.8e6, 0.02)):
        model = models.build_preset(preset).eval()
        args = [spectrum, model.init_state(1)]
        ours = per_second(model, "ptflops")
        assert by_tool(model, args, ptflops.hooks(model)) == pytest.approx(ours, rel=close)
        assert by_tool(model, args) == pytest.approx(bare, rel=0.01) and bare < 0.7 * ours


class SeparateGRUs(nn.Module):
    """GroupedGRU out of nn.GRU, as published models have them; a pair of directions is one bidirectional nn.GRU."""

    def __init__(self, grouped):
        super().__init__()
        self.both, self.hidden_size = grouped.reverse == (False, True), grouped.hidden_size
        count = 1 if self.both else grouped.groups
        self.grus = nn.ModuleList(
            nn.GRU(grouped.input_size, grouped.hidden_size, batch_first=True, bidirectional=self.both)
            for _ in range(count)
        )
        cells = (
            [(self.grus[0], "_l0"), (self.grus[0], "_l0_reverse")] if self.both else [(gru, "_l0") for gru in self.grus]
        )
        for g, (gru, suffix) in enumerate(cells):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(gru, name + suffix).data.copy_(getattr(grouped, name)[g])

    def forward(self, x, h=None):
        """As GroupedGRU's."""
        batch, time, k = x.shape[1:4]
        if self.both:
            y, last = self.grus[0](x[0].transpose(1, 2).flatten(0, 1))
            return y.view(batch, k, time, 2, -1).permute(3, 0, 2, 1, 4), last.view(2, batch, k, -1)
        runs = [
            gru(x_g.transpose(1, 2).flatten(0, 1), h_g.flatten(0, 1)[None]) for gru, x_g, h_g in zip(self.grus, x, h)
        ]
        ys = [y.view(batch, k, time, -1).transpose(1, 2) for y, _ in runs]
        return torch.stack(ys), torch.stack([last.view(batch, k, -1) for _, last in runs])


class SeparateLinears(nn.Module):
    def __init__(self, paths):
        super().__init__()
        count, outputs, inputs = paths.weight.shape
        self.linears = nn.ModuleList(nn.Linear(inputs, outputs) for _ in range(count))
        for linear, weight, bias in zip(self.linears, paths.weight.data, paths.bias.data):
            linear.weight.data.copy_(weight)
            linear.bias.data.copy_(bias)

    def forward(self, x):
        return torch.stack([linear(part) for linear, part in zip(self.linears, x)])


@pytest.mark.full
@pytest.mark.parametrize("preset", FIXED)
def test_fspen_of_plain_layers_is_the_same_network_and_the_tool_agrees(preset):
    torch.manual_seed(1)
    ours, plain = fspen(preset).eval(), fspen(preset).eval()
    plain.load_state_dict(ours.state_dict())
    for block in plain.blocks:
        block.intra, block.inter, block.inter_fc = (
            SeparateGRUs(block.intra),
            SeparateGRUs(block.inter),
            SeparateLinears(block.inter_fc),
        )
    spectrum = torch.randn(1, 63, 257, 2)
    with torch.no_grad():
        torch.testing.assert_close(
            plain(spectrum, plain.init_state(1))[0], ours(spectrum, ours.init_state(1))[0], atol=1e-4, rtol=1e-3
        )
    assert per_second(ours, "ptflops") == pytest.approx(by_tool(plain, [spectrum, plain.init_state(1)]), rel=0.01)
    for convention in (macs, ptflops):
        assert convention.count(ours, frame_inputs(2)).total == convention.count(plain, frame_inputs(2)).total
