"""se-count as a process: what it writes, says and returns."""

from __future__ import annotations

import csv
import json
import subprocess

import pytest
from conftest import ROOT, command
from setk import engines

KEYS = [
    "model",
    "params",
    "params_total",
    "params_nonzero",
    "bytes",
    "macs_per_second",
    "stft_macs_per_second",
    "synops_per_second",
    "latency_ms",
    "convention",
]
HOPS = ["hop_us_native", "hop_us_onnx", "hop_us_torch"]


def table(text):
    return list(csv.DictReader(text.splitlines(), delimiter="\t"))


@pytest.mark.full
def test_json_has_the_agreed_keys(se):
    done = se("count", "fspen", "--json")
    row = json.loads(done.out)
    assert done.returncode == 0 and done.err == "" and list(row) == KEYS
    assert (
        row["model"] == "fspen"
        and row["params"] == 86354
        and row["macs_per_second"] == 72_528_000
        and row["synops_per_second"] is None
    )


@pytest.mark.full
def test_time_adds_its_keys(se):
    row = json.loads(se("count", "fspen-79k", "--json", "--time").out)
    assert list(row) == KEYS + ["hop_ms_median", "hop_ms_p99", "rtf", "rtf_stream", *HOPS, "start_s", "peak_mib"]


@pytest.mark.full
def test_an_included_model_is_timed_by_every_engine(se):
    row = json.loads(se("count", "fspen", "--json", "--time").out)
    native = engines.open("fspen").__class__.__name__ == "NativeEngine"
    assert [row[key] is not None for key in HOPS] == [native, True, True]
    assert all(0 < row[key] < 1e6 for key in HOPS if row[key] is not None)
    assert set(engines.every("setk/pretrained/fspen.pt")) == {"torch"}


@pytest.mark.full
def test_several_models_are_rows_of_one_table(se):
    rows = table(se("count", "fspen", "fspen-79k", "--convention", "ptflops").out)
    assert [row["model"] for row in rows] == ["fspen", "fspen-79k"] and list(rows[0]) == KEYS
    assert rows[0]["macs_per_second"] == "79498755" and rows[0]["synops_per_second"] == "nan"


def test_seconds_is_the_length_that_is_counted(se):
    rows = [json.loads(se("count", "effifusion_gan", "--json", "--seconds", s).out) for s in (1, 2)]
    assert list(rows[0]) == KEYS and list(rows[1]) == [*KEYS, "seconds"] and rows[1]["seconds"] == 2
    assert rows[1]["macs_per_second"] == 21_319_624_000 > rows[0]["macs_per_second"]
    layers = table(se("count", "effifusion_gan", "--seconds", 2, "--layers").out)
    assert sum(float(layer["macs_per_second"]) for layer in layers) == rows[1]["macs_per_second"]


@pytest.mark.full
def test_layers_sum_to_the_total_and_json_carries_them(se):
    row = json.loads(se("count", "fspen", "--layers", "--json").out)
    layers = table(se("count", "fspen", "--layers").out)
    assert list(layers[0]) == ["model", "layer", "type", "output", "params", "macs_per_second"]
    for key in ("params", "macs_per_second"):
        assert sum(float(layer[key]) for layer in layers) == row[key] == sum(layer[key] for layer in row["layers"])


def test_a_checkpoint_tells_its_size_on_disk(se, untrained):
    row = json.loads(se("count", untrained, "--json").out)
    assert row["bytes"] == untrained.stat().st_size and row["params"] == row["params_nonzero"] == 86354


def test_a_conf_is_counted_as_it_stands(se, tmp_path):
    conf = tmp_path / "small.yaml"
    conf.write_text("model: fspen\npreset: fspen-79k\nconfig: {dpe_blocks: 1}\n")
    assert json.loads(se("count", conf, "--json").out)["params"] == 78998 - 2 * (3792 + 32 + 8 * 1904)


@pytest.mark.parametrize(
    "conf, said",
    [
        ("modell: fspen\n", "did you mean 'model'?"),
        ("model: fspem\n", "did you mean 'fspen'?"),
        ("model: fspen\nconfig: {group: 4}\n", "did you mean 'groups'?"),
    ],
)
def test_a_bad_conf_is_one_clear_line(se, tmp_path, conf, said):
    path = tmp_path / "bad.yaml"
    path.write_text(conf)
    done = se("count", path)
    assert done.returncode == 2 and said in done.err and done.err.count("\n") == 1 and done.out == ""


@pytest.mark.parametrize(
    "args, said",
    [
        (["fspne"], "did you mean 'fspen'?"),
        (["no/such.pt"], "no such checkpoint"),
        (["no.yaml"], "no such configuration"),
        (["fspen", "--convention", "thop"], "thop"),
        ([], "MODEL"),
    ],
)
def test_mistakes_exit_2_and_leave_stdout_clean(se, args, said):
    done = se("count", *args)
    assert done.returncode == 2 and said in done.err and done.out == ""


@pytest.mark.full
def test_a_reader_that_stops_is_quiet():
    argv = " ".join(command("count", "fspen", "fspen-79k", "--layers"))
    done = subprocess.run(["bash", "-c", f"{argv} | head -1"], cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 0 and done.stderr == b"" and done.stdout.startswith(b"model\tlayer\t")


@pytest.mark.full
def test_a_model_that_is_not_causal_is_timed_on_whole_signals(se):
    row = json.loads(se("count", "fqse-small", "--time", "--json").out)
    assert (
        row["rtf"] > 0 and row["start_s"] > 0 and row["latency_ms"] is row["hop_ms_median"] is row["rtf_stream"] is None
    )


def test_a_list_without_utterances_measures_nothing(se, tmp_path):
    (tmp_path / "empty.scp").touch()
    done = se("count", "dpsnn", "--list", tmp_path / "empty.scp")
    assert done.returncode == 2 and "empty.scp: lists no utterances" in done.err, done.err
