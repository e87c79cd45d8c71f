"""se-score --table, --bins and --expect; se-train curves and release: tables of several systems and trainings."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from conftest import MINI, ROOT
from setk import checkpoint, models, pretrained
from setk.core.errors import UserError
from setk.scoring import expect, groups
from setk.training import curves, release


def scores(path, seed_or_values, metrics=("si_sdr",)):
    """A score table at `path`; random values for a seed."""
    values = seed_or_values
    if isinstance(values, int):
        values = np.random.default_rng(values).normal(8, 5, (40, len(metrics))).tolist()
    lines = ["\t".join(["utt", *metrics, "error"])]
    for i, row in enumerate(values):
        row = row if isinstance(row, list) else [row]
        lines.append("\t".join([f"u{i}", *map(repr, map(float, row)), ""]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def tables(tmp_path):
    metrics = ("pesq_wb", "stoi", "si_sdr")
    count = {
        "params": 86354,
        "params_nonzero": 50000,
        "macs_per_second": 72528000,
        "bytes": 10,
        "latency_ms": 32.0,
        "hop_us_native": 41.3,
        "hop_us_onnx": None,
        "convention": "setk",
    }
    (tmp_path / "count.json").write_text(json.dumps(count))
    (tmp_path / "ptflops.json").write_text(json.dumps({**count, "macs_per_second": 79500000, "convention": "ptflops"}))
    scores(tmp_path / "noisy.tsv", 1, metrics)
    scores(tmp_path / "enhanced.tsv", 2, metrics)
    return tmp_path


def cells(text):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {row[0]: dict(zip(rows[0], row)) for row in rows[2:]}


def test_a_table_has_costs_means_intervals_and_differences(tables, se):
    done = se(
        "score",
        "--table",
        "md",
        f"noisy={tables}/noisy.tsv",
        f"mine={tables}/enhanced.tsv,{tables}/count.json,{tables}/ptflops.json",
        "--against",
        "noisy",
        "--metrics",
        "pesq_wb,stoi",
    )
    assert done.returncode == 0, done.err
    table = cells(done.out)
    assert (
        table["mine"]["params"] == "86.4 k (50 k non-zero)"
        and table["mine"]["MACs/s"] == "72.5 M"
        and table["noisy"]["MACs/s"] == ""
    )
    assert table["mine"]["bytes"] == "10" and table["mine"]["latency"] == "32 ms" and table["noisy"]["latency"] == ""
    assert table["mine"]["hop, C kernels"] == "41 us" and "hop, ONNX Runtime" not in table["mine"]  # not measured
    assert table["mine"]["MACs/s, ptflops"] == "79.5 M" and "SI-SDR, dB" not in table["mine"]
    compared = se("score", "--compare", tables / "noisy.tsv", tables / "enhanced.tsv").out.splitlines()
    values = dict(zip(compared[0].split("\t"), compared[1].split("\t")))
    assert values["metric"] == "pesq_wb"
    assert (
        table["mine"]["PESQ-WB against noisy"]
        == f"{float(values['diff']):+.2f} [{float(values['low']):.2f}, {float(values['high']):.2f}], p {float(values['p_wilcoxon']):.2g}"
    )
    assert (
        table["mine"]["PESQ-WB"].split()[0] == f"{float(values['mean_b']):.2f}"
        and table["noisy"]["STOI against noisy"] == ""
    )


def test_seeds_of_a_system_are_averaged_by_utterance_and_shown(tmp_path, se):
    values = {
        name: np.random.default_rng(k).normal(8, 5, 40) for k, name in enumerate(("base1", "base2", "mine1", "mine2"))
    }
    for name, column in values.items():
        scores(tmp_path / f"{name}.tsv", column.tolist())
    of = {name: f"{name}={tmp_path}/{name}1.tsv,{tmp_path}/{name}2.tsv" for name in ("base", "mine")}
    done = se("score", "--table", "md", of["base"], of["mine"], "--against", "base")
    assert done.returncode == 0, done.err
    table = cells(done.out)
    mean = {name: (values[f"{name}1"] + values[f"{name}2"]) / 2 for name in ("base", "mine")}
    scores(tmp_path / "a.tsv", mean["base"].tolist())
    scores(tmp_path / "b.tsv", mean["mine"].tolist())
    alone = cells(se("score", "--table", "md", tmp_path / "a.tsv", tmp_path / "b.tsv", "--against", "a").out)
    each = [values[f"mine{k}"].mean() - values[f"base{k}"].mean() for k in (1, 2)]
    assert table["mine"]["SI-SDR, dB against base"] == (
        alone["b"]["SI-SDR, dB against a"] + f"; seeds {each[0]:+.2f}, {each[1]:+.2f}"
    )
    means = [values[f"mine{k}"].mean() for k in (1, 2)]
    assert table["mine"]["SI-SDR, dB"] == alone["b"]["SI-SDR, dB"] + f"; seeds {means[0]:.2f}, {means[1]:.2f}"
    scores(tmp_path / "short.tsv", values["base1"].tolist()[:30])
    done = se("score", "--table", "md", f"x={tmp_path}/base1.tsv,{tmp_path}/short.tsv")
    assert done.returncode == 2 and "the tables of the seeds differ" in done.err


def sentences(*systems):
    argv = [sys.executable, "-P", ROOT / "recipes/utils/supported.py", "si_sdr", "base", *systems]
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("pairs, words", [(5, "not shown to differ from base: more"), (8, "above base: more")])
def test_an_ablation_claims_what_a_comparison_calls_clear(tmp_path, se, pairs, words):
    base = scores(tmp_path / "base.tsv", [0.0] * pairs)
    more = scores(tmp_path / "more.tsv", [1 + k / 8 for k in range(pairs)])
    code, told = sentences(base, more)
    assert code == 0 and f": {words}." in told, told
    assert ("no clear difference" in se("score", "--compare", base, more).err) == ("not shown" in words)


def test_an_ablation_needs_as_many_seeds_of_each(tmp_path):
    files = [scores(tmp_path / f"{name}.tsv", [0.0] * 8) for name in ("base", "one", "two")]
    code, told = sentences(files[0], f"more={files[1]},{files[2]}")
    assert code == 2 and "has 2 seeds, base 1" in told


def test_published_rows_follow_in_the_same_columns_as_they_are_written(tables, se):
    file = tables / "published.tsv"
    file.write_text(
        "system\tparams\tsynops_per_second\tpesq_wb\tcsig\nPaper A\t87000\t\t2.950\t4.1\nPaper B\t\t5.5e6\t\t\n"
    )
    specs = [f"noisy={tables}/noisy.tsv", f"mine={tables}/enhanced.tsv,{tables}/count.json"]
    done = se("score", "--table", "md", *specs, "--published", file, "--against", "noisy", "--metrics", "pesq_wb,stoi")
    assert done.returncode == 0, done.err
    table = cells(done.out)
    assert list(table) == ["noisy", "mine", "Paper A", "Paper B"]
    assert {len(line.split("|")) for line in done.out.splitlines()} == {2 + 6 + 1 + 4}
    a = table["Paper A"]
    assert (a["params"], a["PESQ-WB"], a["STOI"], a["bytes"]) == ("87 k", "2.950", "", "")
    assert table["Paper B"]["SynOps/s"] == "5.5 M" and table["mine"]["SynOps/s"] == ""
    for text, words in (
        ("system\tx\nA\t1\n", "unknown column 'x'"),
        ("system\tparams\nA\tmany\n", "costs are numbers"),
        ("system\tpesq_wb\nA\t" + "1" * 140000 + "\n", "field larger than field limit"),
    ):
        file.write_text(text)
        done = se("score", "--table", "md", *specs, "--published", file)
        assert done.returncode == 2 and words in done.err


def test_names_with_quotes_and_bars_stay_as_they_are(tables, se):
    file = tables / "published.tsv"
    file.write_text('system\tpesq_wb\n"A" net\t2.0\n"B\t2.1\nC|D\t2.2\n')
    done = se("score", "--table", "md", f"{tables}/noisy.tsv", "--published", file, "--metrics", "pesq_wb")
    rows = [re.split(r"(?<!\\)\|", line.strip("|")) for line in done.out.splitlines()[2:]]
    assert [[cell.strip() for cell in row] for row in rows[1:]] == [['"A" net', "2.0"], ['"B', "2.1"], ["C\\|D", "2.2"]]


def test_tables_without_scores_and_costs_that_are_no_numbers(tables, se):
    (tables / "empty.tsv").write_text("utt\tpesq_wb\terror\n")
    (tables / "nan.tsv").write_text("utt\tpesq_wb\terror\nu0\tnan\tis silent\n")
    done = se("score", "--table", "md", tables / "empty.tsv", tables / "nan.tsv")
    assert done.returncode == 0 and "different utterances" not in done.err, done.err
    for convention in ("ptflops", "setk"):
        (tables / "bad.json").write_text(json.dumps({"macs_per_second": "x", "convention": convention}))
        done = se("score", "--table", "md", f"{tables}/noisy.tsv,{tables}/bad.json")
        assert done.returncode == 2 and "'macs_per_second' is not a number" in done.err


def test_intervals_of_large_numbers_keep_their_names():
    edges = groups.parse_bins("1000000,1000001,1000002.5")
    assert groups.bin_names(edges) == ["below 1e+06", "1e+06 to 1000001", "1000001 to 1000002.5", "1000002.5 and above"]
    assert [groups.bin_name(value, edges) for value in (1000000, 1000001)] == groups.bin_names(edges)[1:3]


def test_numbers_of_a_table_as_tsv_and_json_are_the_same(tables, se):
    specs = [f"{tables}/noisy.tsv", f"{tables}/enhanced.tsv,{tables}/count.json"]
    rows = [json.loads(line) for line in se("score", "--table", "json", *specs).out.splitlines()]
    lines = [
        line.split("\t") for line in se("score", "--table", "tsv", *specs, "--png", tables / "x.png").out.splitlines()
    ]
    assert lines[0] == list(rows[0]) and [row["system"] for row in rows] == ["noisy", tables.name]
    for row, line in zip(rows, lines[1:]):
        for value, text in zip(list(row.values())[1:], line[1:]):
            assert (value is None and text == "nan") or float(text) == value
    assert (
        rows[1]["params_nonzero"] == 50000
        and rows[0]["params"] is None
        and rows[1]["stoi_low"] < rows[1]["stoi"] < rows[1]["stoi_high"]
    )
    assert (tables / "x.png").read_bytes().startswith(b"\x89PNG")


def test_scores_by_the_snr_of_the_input(tmp_path, se):
    noisy, ours = scores(tmp_path / "noisy.tsv", [-7, 1, 5, 20]), scores(tmp_path / "ours.tsv", [3, 9, 11, 21])
    done = se(
        "score", "--table", "md", f"noisy={noisy}", f"ours={ours}", "--by", f"{noisy}:si_sdr", "--bins", "-6,0,6,12,18"
    )
    assert done.returncode == 0, done.err
    assert "| system | below -6 (1) | 0 to 6 (2) | 18 and above (1) | all |" in done.out
    assert "| ours | 3.00 | 10.00 [9.00, 11.00] | 21.00 | 11.00 [" in done.out


def test_a_group_is_counted_by_its_scores(tmp_path, se):
    (tmp_path / "kinds").write_text("u0 g\nu1 g\nu7 g\nu2 h\nu8 none\n")
    first, second = scores(tmp_path / "a.tsv", [1, math.nan, 3]), scores(tmp_path / "b.tsv", [1, 2, 3])
    head = se("score", "--table", "md", first, "--by", tmp_path / "kinds").out.splitlines()[0]
    assert head == "| system | g (1) | h (1) | none (0) | all |"
    other = scores(tmp_path / "c.tsv", 1, ("stoi",))  # has no such scores
    head = se("score", "--table", "md", first, second, other, "--by", tmp_path / "kinds").out.splitlines()[0]
    assert head == "| system | g (1-2) | h (1) | none (0) | all |"


def test_every_number_has_one_bin_and_the_edges_belong_to_the_upper_one(rng):
    edges = sorted(rng.normal(size=rng.integers(1, 6)).tolist())
    names = groups.bin_names(edges)
    assert len(set(names)) == len(edges) + 1
    for value in [*rng.normal(size=50), *edges]:
        index = names.index(groups.bin_name(value, edges))
        assert index == sum(value >= edge for edge in edges)
    assert groups.bin_name(math.nan, edges) is None


def test_a_scored_list_is_grouped_into_bins(tmp_path, se):
    summary = tmp_path / "s.json"
    for kind in ("noisy", "clean"):
        (tmp_path / f"{kind}.scp").write_text("".join((MINI / "test" / f"{kind}.scp").read_text().splitlines(True)[:2]))
    first, second = [line.split()[0] for line in (tmp_path / "noisy.scp").read_text().splitlines()]
    (tmp_path / "utt2snr").write_text(f"{first} 3.5\n{second} 17\n")
    scored = ("score", "--ref", tmp_path / "clean.scp", tmp_path / "noisy.scp", "--metrics", "si_sdr")
    done = se(
        *scored,
        "--by",
        tmp_path / "utt2snr",
        "--bins",
        "5,10",
        "--summary",
        summary,
        "--expect",
        "si_sdr=-50:50",
        cwd=ROOT,
    )
    assert done.returncode == 0, done.err
    assert list(json.loads(summary.read_text())["groups"][str(tmp_path / "utt2snr")]) == ["below 5", "10 and above"]
    done = se(
        *scored,
        "--expect",
        "si_sdr=60:70",
        cwd=ROOT,
    )
    assert done.returncode == 1 and "expected 60 to 70" in done.err and done.out.count("\n") == 3


@pytest.mark.parametrize(
    "args, words",
    [
        (["--table", "csv", "n.tsv"], ["--table csv", "md, tsv, json"]),
        (["--table", "md"], ["name the systems"]),
        (["--table", "md", "none.tsv"], ["none.tsv", "no such score table"]),
        (["--table", "md", "n.tsv,none.json"], ["none.json", "se-count MODEL --json"]),
        (["--table", "md", "n.tsv,n.json"], ["n.json", "not JSON"]),
        (["--table", "md", "n.tsv", "--metrics", "stoi"], ["'stoi'", "si_sdr"]),
        (["--table", "md", "n.tsv", "--against", "x"], ["--against x", "known: n"]),
        (["--table", "tsv", "n.tsv", "--by", "n.tsv:si_sdr"], ["Markdown"]),
        (["--table", "md", "n.tsv", "--bins", "1,2"], ["--bins needs --by"]),
        (["--table", "md", "n.tsv", "--by", "n.tsv:si_sdr", "--bins", "2,1"], ["--bins 2,1", "rise"]),
        (["--table", "md", "n.tsv", "--by", "n.tsv:si_sdr", "--bins", "a"], ["--bins a"]),
        (["--table", "md", "n.tsv", "--by", "n.tsv:stoi"], ["no column stoi"]),
        (["--table", "md", "n.tsv", "--png", "x.png"], ["no MACs"]),
        (["--table", "md", "n.tsv", "--jobs", "2"], ["--jobs does not apply with --table"]),
        (["a.wav", "b.wav", "--png", "x.png"], ["--png does not apply without --table"]),
        (["a.wav", "b.wav", "--expect", "stoi"], ["METRIC=LOW:HIGH"]),
        (["--table", "md", "n.tsv", "n=n.tsv"], ["two systems are called 'n'"]),
        (["a.wav", "b.wav", "--expect", "stoi=2:1"], ["range is empty"]),
        (["a.wav", "b.wav", "--expect", ""], ["METRIC=LOW:HIGH"]),
        (["a.wav", "b.wav", "--expect", "stoi=0:1,stoi=0.9:1"], ["stoi has two ranges"]),
        (["a.wav", "b.wav", "--expect", "srmr=1:2"], ["not among the metrics"]),
    ],
)
def test_a_wrong_table_is_one_line_and_exit_2(tmp_path, se, args, words):
    scores(tmp_path / "n.tsv", [1, 2, 3])
    (tmp_path / "n.json").write_text("x\n")
    done = se("score", *args, cwd=tmp_path)
    assert done.returncode == 2 and done.out == "" and all(word in done.err for word in words), done.err


@pytest.mark.parametrize(
    "args, file",
    [
        (["--table", "md", "fs=sc.tsv,count.json", "--png", "count.json"], "count.json"),
        (["--table", "md", "sc.tsv,count.json", "--by", "sc.tsv:stoi", "--png", "sc.tsv"], "sc.tsv"),
        (["a.wav", "b.wav", "--by", "sc.tsv:stoi", "--summary", "sc.tsv"], "sc.tsv"),
        (["a.wav", "b.wav", "--dnsmos-model", "m.onnx", "--html", "m.onnx"], "m.onnx"),
        (["a.wav", "b.wav", "--dnsmos-p808-model", "m.onnx", "--html", "m.onnx"], "m.onnx"),
    ],
)
def test_a_table_or_model_that_is_read_is_not_overwritten(tables, se, args, file):
    scores(tables / "sc.tsv", 3, ("stoi",))
    (tables / "m.onnx").write_bytes(b"model")
    before = (tables / file).read_bytes()
    done = se("score", *args, cwd=tables)
    assert done.returncode == 2 and f"{file}: is the input {file}; choose another" in done.err, done.err
    assert (tables / file).read_bytes() == before


def test_expected_means_include_their_limits_and_need_a_score():
    means = {"a": {"mean": 1.0}, "b": {"mean": None}, "c": {"mean": 2.5}}
    assert expect.unmet({"a": (1.0, 1.0)}, means) == []
    lines = expect.unmet(expect.parse("a=0:0.5,b=0:1,c=2:3"), means)
    assert [line.split()[0] for line in lines] == ["a", "b"]


def test_curves_add_up_the_hours_of_parts(tmp_path):
    for part, hours in (("first", [0.5, 1.0]), ("second", [0.25]), (".", [2.0])):
        (tmp_path / "exp" / part).mkdir(parents=True, exist_ok=True)
        rows = "".join(f"{100000 * (i + 1)}\t{h}\t0.1\t{1.5 + h}\tnan\n" for i, h in enumerate(hours))
        (tmp_path / "exp" / part / "history.tsv").write_text("step\thours\tloss\tvalid_pesq_wb\tvalid_stoi\n" + rows)
    lines = [
        line.split("\t") for line in curves.table([tmp_path / "exp"], ["first", "none", "second", "."]).splitlines()
    ]
    assert lines[0] == ["model", "part", "step", "hours", "valid_pesq_wb", "valid_stoi"]
    assert [(line[1], line[2], float(line[3])) for line in lines[1:]] == [
        ("1", "100000", 0.5),
        ("1", "200000", 1.0),
        ("2", "100000", 1.25),
        ("3", "100000", 3.25),
    ]
    assert math.isnan(float(lines[1][5])) and float(lines[1][4]) == 2.0
    (tmp_path / "exp/history.tsv").write_text("step\tvalid_pesq_wb\n5\t1.5\n")  # of before hours were counted
    assert curves.table([tmp_path / "exp"]).splitlines()[1] == "exp\t1\t5\tnan\t1.5000"
    with pytest.raises(UserError, match="has no history.tsv"):
        curves.table([tmp_path])


def test_a_released_model_has_its_test_scores(tmp_path, monkeypatch):
    checkpoint.save(
        tmp_path / "best.pt", models.build("fspen", {"groups": 2, "dpe_blocks": 1}), {"valid": {"stoi": 0.5}}
    )
    with pytest.raises(UserError, match="no such summary"):
        release.release(tmp_path, tmp_path / "out.pt")
    for name, value in (("noisy", 1.5), ("enhanced", 2.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps({"metrics": {"pesq_wb": {"mean": value}}}))
    release.release(tmp_path, tmp_path / "out.pt")
    assert checkpoint.read(tmp_path / "out.pt")["scores"] == {
        "valid": {"stoi": 0.5},
        "test_noisy": {"pesq_wb": 1.5},
        "test": {"pesq_wb": 2.5},
    }
    assert "release" in checkpoint.load(tmp_path / "out.pt")[1]["provenance"]
    for read in ("best.pt", "noisy.json"):
        with pytest.raises(UserError, match="is the input"):
            release.release(tmp_path, tmp_path / read)
    # Among the included models, it gets a line in their index.
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "included/__init__.py"))
    monkeypatch.setattr(pretrained, "INDEX", tmp_path / "included/index.json")
    release.release(tmp_path, tmp_path / "included/new.pt")
    assert pretrained.index() == {"new": checkpoint.describe(tmp_path / "included/new.pt")}
    (tmp_path / "noisy.json").write_text("[]")
    with pytest.raises(UserError, match="not a summary"):
        release.release(tmp_path, tmp_path / "out.pt")


@pytest.mark.parametrize("values", [[1, 2, math.nan], [1, 2]])
def test_means_over_different_utterances_are_remarked_on(tmp_path, se, values):
    scores(tmp_path / "a.tsv", [1, 2, 3])
    scores(tmp_path / "b.tsv", values)
    done = se("score", "--table", "json", "a.tsv", "b.tsv", cwd=tmp_path)
    assert [json.loads(line)["si_sdr_n"] for line in done.out.splitlines()] == [3, 2]
    assert "si_sdr: the means are over different utterances: a has 3 scores, b 2" in done.err
    assert se("score", "--table", "md", "a.tsv", "same=a.tsv", cwd=tmp_path).err == ""


def test_as_many_scores_of_other_utterances_are_remarked_on(tmp_path, se):
    scores(tmp_path / "a.tsv", [1, 2, math.nan])
    scores(tmp_path / "b.tsv", [1, math.nan, 2])
    assert (
        "different utterances: a has 2 scores, b 2" in se("score", "--table", "md", "a.tsv", "b.tsv", cwd=tmp_path).err
    )


def test_utterances_without_a_group_are_remarked_on(tmp_path, se):
    scores(tmp_path / "a.tsv", [1, 2, 3])
    (tmp_path / "groups").write_text("u0 x\nu1 y\n")
    done = se("score", "--table", "md", "a.tsv", "--by", "groups", cwd=tmp_path)
    assert done.returncode == 0 and "groups has no group for 1 of the utterances of a" in done.err, done.err


def test_quiet_does_not_hide_an_unexpected_mean(se):
    pair = [MINI / f"test/{kind}/mona_0001.flac" for kind in ("clean", "noisy")]
    done = se("score", "-q", *pair, "--metrics", "si_sdr", "--expect", "si_sdr=50:60")
    assert done.returncode == 1 and "unexpected mean: si_sdr" in done.err, done.err
