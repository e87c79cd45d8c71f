"""se-score --compare: two score tables, tested against scipy and run as a real process."""

from __future__ import annotations

import json
import math
import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import MINI
from scipy import stats

from setk.core.errors import UserError
from setk.scoring import compare, table
from setk.scoring.report import comparison

HEAD = "utt\tstoi\tlsd\terror"


def write(path, *rows, head=HEAD):
    """A score table of lines whose fields are separated by blanks here."""
    path.write_text("\n".join([head, *("\t".join(row.split(" ", head.count("\t"))) for row in rows)]) + "\n")
    return path


@pytest.fixture
def tables(tmp_path):
    """A and B with 30 common utterances; in B stoi is higher and lsd lower; b.tsv lacks one, and both have a nan."""
    rng = np.random.default_rng(8)
    a = rng.uniform(0.5, 0.9, (32, 2))
    b = a + [0.05, -0.5] + rng.normal(0, [0.02, 0.2], a.shape)
    rows = [[f"u{i:02} {x[0]!r} {x[1]!r} " for i, x in enumerate(scores.tolist())] for scores in (a, b)]
    rows[0][3] = f"u03 nan {float(a[3, 1])!r} stoi: too short"
    rows[1][4] = "u04 nan nan no such file"
    return (write(tmp_path / "a.tsv", *rows[0][:31]), write(tmp_path / "b.tsv", *rows[1][1:][::-1]), a, b)


def read(out: str) -> dict[str, dict[str, float]]:
    """metric -> column -> value of the table that --compare prints."""
    head, *rows = (line.split("\t") for line in out.splitlines())
    assert head == "metric n mean_a mean_b diff low high p_bootstrap p_wilcoxon better".split()
    return {row[0]: dict(zip(head[1:], map(float, row[1:]), strict=True)) for row in rows}


def test_wilcoxon_is_exact_for_few_pairs(rng):
    for n in [*range(1, 51), 50, 50]:
        d = rng.standard_normal(n) + rng.uniform(-1, 1)
        assert compare.wilcoxon(d) == pytest.approx(stats.wilcoxon(d, method="exact").pvalue, abs=1e-9)


def test_equal_differences_of_decimals_are_ties(rng):
    steps, a = rng.integers(-2, 3, 40), rng.integers(1000, 4500, 40)
    steps[:3] = (-1, 1, 2)
    found = compare.paired("pesq_wb", a / 1000, (a + steps) / 1000)
    assert found.p_wilcoxon == compare.wilcoxon(np.sort(steps).astype(float))


@pytest.mark.parametrize("kind", ["ties", "zeros and ties", "many"])
def test_wilcoxon_is_approximated_otherwise(rng, kind):
    for _ in range(50):
        d = rng.standard_normal(rng.integers(51, 300)) + 0.1
        if kind != "many":
            d = np.append(np.round(3 * d[: rng.integers(3, 300)]), [2, 2, -2])
            d = np.append(d, [0, 0]) if kind == "zeros and ties" else d[d != 0]
        expected = stats.wilcoxon(d, zero_method="pratt", correction=True, method="asymptotic").pvalue
        assert compare.wilcoxon(d) == pytest.approx(expected, abs=1e-9)


def test_wilcoxon_golden_values():
    assert compare.wilcoxon(np.array([1.0, 2, 3, 4, 5])) == 2 / 2**5
    assert compare.wilcoxon(np.zeros(7)) == 1.0
    # Cushny and Peebles' hours of sleep, as Student quoted them; the nine that are not 0, two of them tied.
    assert compare.wilcoxon(np.array([1.2, 2.4, 1.3, 1.3, 0, 1.0, 1.8, 0.8, 4.6, 1.4])) < 0.01


def test_the_interval_is_that_of_scipy_up_to_its_own_chance(rng):
    d = rng.standard_normal(40) ** 2 - 0.7
    low, high, p = compare.interval(d)
    theirs = stats.bootstrap((d,), np.mean, method="percentile", n_resamples=10_000).confidence_interval
    assert (low, high) == pytest.approx(tuple(theirs), abs=0.1 * d.std() / math.sqrt(len(d)) * 3)
    assert compare.interval(-d)[2] == pytest.approx(p, rel=0.2, abs=0.01)


def test_p_agrees_with_its_interval():
    noise = np.random.default_rng(1).standard_normal(30)
    for shift in np.linspace(-0.6, 0.6, 25):
        low, high, p = compare.interval(np.sort(noise + shift))
        assert (p < 0.05) == (low > 0 or high < 0)
    assert compare.interval(noise + 9)[2] == 2 / 10_001 and compare.interval(np.zeros(5)) == (0, 0, 1)


@pytest.mark.parametrize("beyond, p", [(249, 0.04999), (250, 0.05020), (251, 0.05039)])
@pytest.mark.parametrize("sign", [1, -1])
def test_p_at_the_boundary_of_the_interval(monkeypatch, sign, beyond, p):
    """An interval that ends between two draws can exclude 0 with p just above 0.05."""
    means = sign * np.repeat([-1e-9, 1.0], [beyond, 10_000 - beyond])
    monkeypatch.setattr(compare, "bootstrap_means", lambda values: means)
    low, high, found = compare.interval(np.zeros(2))
    assert (low > 0 or high < 0) == (beyond <= 250) and found == pytest.approx(p, abs=1e-5)


def test_two_tables(se, tables):
    path_a, path_b, a, b = tables
    done = se("score", "--compare", path_a, path_b)
    rows = read(done.out)
    assert done.returncode == 0 and list(rows) == ["stoi", "lsd"]
    for column, (name, left_out) in enumerate({"stoi": (0, 3, 4), "lsd": (0, 4)}.items()):
        kept = [i for i in range(31) if i not in left_out]
        x, y, row = a[kept, column], b[kept, column], rows[name]
        better = (y < x) if name == "lsd" else (y > x)
        assert row["n"] == len(kept) and row["better"] == pytest.approx(better.mean())
        assert [row["mean_a"], row["mean_b"], row["diff"]] == pytest.approx(
            [x.mean(), y.mean(), (y - x).mean()], abs=1e-12
        )
        assert row["low"] < row["diff"] < row["high"] and row["p_bootstrap"] == 2 / 10_001
        assert row["p_wilcoxon"] == pytest.approx(stats.wilcoxon(y - x, method="exact").pvalue, abs=1e-9)
        assert f"se-score: {name}: B is better: {y.mean():.3f} against {x.mean():.3f}" in done.err
    assert rows["lsd"]["diff"] < 0 and "2 pairs lack a score" in done.err and "1 pair lacks a score" in done.err
    assert f"only {path_a} has 1 utterance: u00\n" in done.err and f"only {path_b} has 1 utterance: u31\n" in done.err


def test_the_other_way_round_and_from_a_pipe(se, tables):
    path_a, path_b, *_ = tables
    there = read(se("score", "--compare", path_a, path_b).out)
    done = se("score", "--compare", path_b, "-", "--jsonl", input=path_a.read_bytes())
    back = [json.loads(line, parse_constant=pytest.fail) for line in done.out.splitlines()]
    assert [row["metric"] for row in back] == ["stoi", "lsd"] and done.err.count("B is worse") == 2
    for row in back:
        one = there[row["metric"]]
        assert row["diff"] == pytest.approx(-one["diff"], abs=1e-12) and row["p_wilcoxon"] == pytest.approx(
            one["p_wilcoxon"]
        )
        assert row["better"] == pytest.approx(1 - one["better"])


def test_little_to_compare(se, tmp_path):
    a = write(tmp_path / "a.tsv", "x 0.5 1.0 ", "y nan 2.0 bad")
    b = write(tmp_path / "b.tsv", "x nan 1.5 bad", "y 0.5 nan bad")
    done = se("score", "--compare", a, b)
    rows = read(done.out)
    assert (
        done.returncode == 0
        and rows["stoi"]["n"] == 0
        and math.isnan(rows["stoi"]["diff"])
        and rows["lsd"]["diff"] == 0.5
    )
    assert math.isnan(rows["lsd"]["low"]) and rows["lsd"]["p_wilcoxon"] == 1.0
    assert "stoi: nothing to compare; 2 pairs lack a score" in done.err and "one utterance proves nothing" in done.err
    records = [
        json.loads(line, parse_constant=pytest.fail)
        for line in se("score", "--compare", a, b, "--jsonl").out.splitlines()
    ]
    assert records[0]["diff"] is None and records[1]["diff"] == 0.5


@pytest.mark.parametrize(
    "args, reason",
    [
        (("a.tsv", "c.tsv"), "no metric in common: stoi, lsd here, estoi there"),
        (("a.tsv", "d.tsv"), "no utterance in common: 1 here, 1 others"),
        (("-", "-"), "standard input"),
        (("a.tsv", "a.tsv", "--jobs", "2"), "--jobs does not apply with --compare"),
        (("a.tsv", "a.tsv", "--noisy", "n"), "--noisy does not apply with --compare without --html"),
        (("a.tsv", "a.tsv", "a.tsv"), "two systems are called 'a'; name one of them, as in other=a.tsv"),
        (("a.tsv", "a.tsv", "b.tsv"), "b.tsv: no such score table"),
        (("a.tsv",), "requires 2 arguments"),
        (("a.tsv", "nowhere.tsv"), "nowhere.tsv: no such score table"),
        (("a.tsv", "."), "is a directory"),
        (("a.tsv", "/dev/null"), "/dev/null:1: is empty"),
    ],
)
def test_usage_errors(se, tmp_path, args, reason):
    write(tmp_path / "a.tsv", "x 0.5 1.0 ")
    write(tmp_path / "c.tsv", "x 0.5 ", head="utt\testoi\terror")
    write(tmp_path / "d.tsv", "y 0.5 1.0 ")
    args = [tmp_path / arg if arg.endswith(".tsv") else arg for arg in args]
    done = se("score", "--compare", *args)
    assert (done.out, done.returncode) == ("", 2) and reason in done.err


def test_several_tables_against_the_first(se, tables, tmp_path):
    path_a, path_b, *_ = tables
    path_c = tmp_path / "c.tsv"
    path_c.write_text("".join(path_b.read_text().splitlines(keepends=True)[:21]))
    done = se("score", "--compare", path_a, path_b, f"third={path_c}")
    assert done.returncode == 0 and "a.tsv has, and another table lacks, 12 utterances" in done.err
    head, *rows = (line.split("\t") for line in done.out.splitlines())
    assert head == ["system", *compare.COLUMNS]
    assert [row[:2] for row in rows] == [[name, metric] for name in ("b", "third") for metric in ("stoi", "lsd")]
    # On the utterances of all, B and the third are equal.
    assert rows[0][2:] == rows[2][2:] and int(rows[0][2]) == 19
    objects = [
        json.loads(line) for line in se("score", "--compare", path_a, path_b, path_c, "--jsonl").out.splitlines()
    ]
    assert [one["system"] for one in objects] == ["b", "b", "c", "c"]
    assert [repr(one["diff"]) for one in objects] == [row[5] for row in rows]


class Page(HTMLParser):
    """The rows of the tables with players: utterance -> (name, scores, whether it has a player)."""

    def __init__(self, text):
        super().__init__()
        self.cards, self.heading, self.cells, self.player = {}, None, None, False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "article":
            self.heading = ""
        elif tag == "tr" and self.heading is not None:
            self.cells, self.player = [], False
        elif tag in ("th", "td") and self.cells is not None:
            self.cells.append("")
        elif tag == "audio":
            self.player = dict(attrs)["src"].startswith("data:audio/flac;base64,")

    def handle_endtag(self, tag):
        if tag == "article":
            self.heading = None
        elif tag == "tr" and self.heading is not None:
            name, *scores, _ = self.cells
            self.cards.setdefault(self.heading, []).append((name, scores, self.player))
            self.cells = None

    def handle_data(self, data):
        if self.cells:
            self.cells[-1] += data
        elif self.heading == "":
            self.heading = data


def test_a_page_has_a_player_for_every_row(se, tmp_path):
    noisy = sorted((MINI / "test/noisy").glob("*.flac"))
    scores = np.random.default_rng(1).uniform(1, 4, (3, len(noisy)))
    scores[0] = 1.0
    audio = tmp_path / "noisy.scp"
    audio.write_text("".join(f"{path.stem} {path}\n" for path in noisy))
    specs = []
    for name, row in zip(("noisy", "one", "two <&>"), scores):
        lines = [f"{path.stem} {value!r} " for path, value in zip(noisy, row.tolist())]
        table = write(tmp_path / f"{len(specs)}.tsv", *lines, head="utt\tpesq_wb\terror")
        specs.append(f"{name}={table},{audio}")
    page = tmp_path / "compare.html"
    done = se("score", "--compare", *specs, "--ref", audio, "--html", page)
    assert done.returncode == 0, done.err
    text = page.read_text()
    cards = Page(text).cards
    spread = {path.stem: np.ptp(scores[:, i]) for i, path in enumerate(noisy)}
    total = {path.stem: scores[:, i].sum() for i, path in enumerate(noisy)}
    worst = sorted(total, key=total.get)[: comparison.CARDS]
    differing = sorted(spread.keys() - worst, key=spread.get, reverse=True)[: comparison.CARDS]
    assert list(cards) == [*differing, *worst]
    for utt, (_, *rows) in cards.items():
        i = [path.stem for path in noisy].index(utt)
        assert [name for name, *_ in rows] == ["noisy", "one", "two <&>", "clean"]
        assert [values for _, values, _ in rows] == [[f"{x:.3f}"] for x in scores[:, i]] + [["–"]]
        assert all(player for *_, player in rows)
    means = [f"{m:.3f}" for m in scores.mean(1)]
    assert all(mean in text for mean in means)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    again = tmp_path / "again.html"
    se("score", "--compare", *specs, "--ref", audio, "--html", again)
    strip = re.compile(r"<dt>command</dt>.*")
    assert strip.sub("", again.read_text()) == strip.sub("", text)


@pytest.mark.parametrize("spec", ["b.tsv", "B=b.tsv", "B=a.tsv,b.tsv", "a.tsv,b.tsv"])
def test_a_page_does_not_replace_a_table_that_is_compared(se, tables, spec):
    path = tables[1]
    before = path.read_bytes()
    done = se("score", "--compare", "a.tsv", spec, "--html", "b.tsv", cwd=path.parent)
    assert done.returncode == 2 and "--html b.tsv: is the input b.tsv; choose another" in done.err, done.err
    lists = path.with_name("l.scp")
    lists.write_text("u01 none.wav\n")
    for option in ("--noisy", "--ref"):
        done = se("score", "--compare", "a.tsv", "b.tsv", option, "l.scp", "--html", lists, cwd=path.parent)
        assert done.returncode == 2 and "is the input l.scp" in done.err, done.err
    own = path.with_name("own.wav")
    own.write_bytes(b"a recording")
    lists.write_text("u01 own.wav\n")
    done = se("score", "--compare", "a.tsv,l.scp", "b.tsv", "--html", "own.wav", cwd=path.parent)
    assert done.returncode == 2 and "--html own.wav: is the input own.wav" in done.err, done.err
    assert path.read_bytes() == before and own.read_bytes() == b"a recording"


def test_means_on_a_page_are_over_the_utterances_that_all_have(se, tmp_path):
    for name, values in (("a", (1.0, 2.0, 3.0, 9.0)), ("b", (1.5, 2.0, 3.5, "nan"))):
        rows = "".join(f"u{i}\t{value}\t\n" for i, value in enumerate(values))
        (tmp_path / f"{name}.tsv").write_text("utt\tpesq_wb\terror\n" + rows)
    assert se("score", "--compare", "a.tsv", "b.tsv", "--html", "p.html", cwd=tmp_path).returncode == 0
    page = (tmp_path / "p.html").read_text()
    means = re.findall(r'<th scope="row">(\w)</th><td class="num"><span class="main">([\d.]+)</span>(.*?)</td>', page)
    assert [mean[:2] for mean in means[:2]] == [("a", "2.000"), ("b", "2.333")]
    assert all("over 3 of 4" in mean[2] for mean in means[:2]) and "+0.333" in means[1][2]


GOOD = f"{HEAD}\nx\t0.5\t1.0\t\n"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a.wav 3\n", ":1: not a score table"),
        ('{"utt": "x", "stoi": 0.5}\n', "without --jsonl"),
        ("utt\terror\n", ":1: not a score table"),
        ("utt\tstoi\tspeed\terror\n", ":1: 'speed' is not a metric"),
        ("utt\tstoi\tstoi\terror\n", ":1: stoi has two columns"),
        (GOOD[:-5], ":2: the last line is truncated"),
        (GOOD + "y\t0.5\n", ":3: has 2 fields where the header has 4"),
        (GOOD + "y\t0.5\t1\t\tmore\n", ":3: has 5 fields"),
        (GOOD + "\n", ":3: has 1 fields"),
        (GOOD + "x\t1\t1\t\n", ":3: duplicate utterance x"),
        (GOOD + "y\thalf\t1\t\n", ":3: stoi of y is 'half'"),
        (GOOD + "y\t1\t1_0\t\n", ":3: lsd of y is '1_0'"),
        (GOOD + "y\tinf\t1\t\n", "'inf'"),
        (GOOD + "y\t\t1\t\n", ":3: stoi of y is ''"),
        (GOOD + HEAD + "\n", ":3: stoi of utt is 'stoi'"),
        (GOOD + "y\t1\t1\t\udcff\n", ":3: is not text"),
    ],
)
def test_torn_and_foreign_tables(tmp_path, text, reason):
    (tmp_path / "a.tsv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as e:
        table.read_table(str(tmp_path / "a.tsv"))
    assert reason in str(e.value) and str(e.value).startswith(str(tmp_path / "a.tsv"))


def test_tables_from_elsewhere_with_crlf(tmp_path):
    (tmp_path / "a.tsv").write_bytes(GOOD.replace("\n", "\r\n").encode())
    found = table.read_table(str(tmp_path / "a.tsv"))
    assert (len(found), found.utt(0), found.row("x"), found.row("y")) == (1, "x", {"stoi": 0.5, "lsd": 1.0}, {})


def test_tables_in_different_orders_are_compared_by_utterance(rng):
    rows = {f"u{i}": rng.normal(size=2) for i in range(40)}
    a = table.Table.of(("stoi", "lsd"), {utt: rows[utt] for utt in list(rows)[:30]})
    b = table.Table.of(("stoi", "lsd"), {utt: rows[utt] + 1 for utt in rng.permutation(list(rows)[10:])})
    for one in compare.compare(a, b, ["stoi", "lsd"]):
        assert one.n == 20 and one.diff == pytest.approx(1) and one.low == pytest.approx(1)
    chosen = np.array([12, 29])
    (one,) = compare.compare(a, b, ["lsd"], chosen)
    assert one.n == 2 and one.mean_a == pytest.approx(np.mean([rows["u12"][1], rows["u29"][1]]))


def test_a_long_table_costs_few_bytes_per_row(tmp_path):
    count = 20_000
    text = "".join(f"a-rather-long-id-{i:07d}\t0.123456789\t{i}.5\t\n" for i in range(count))
    (tmp_path / "a.tsv").write_text(HEAD + "\n" + text)
    tracemalloc.start()
    try:
        found = table.read_table(str(tmp_path / "a.tsv"))
        used = tracemalloc.get_traced_memory()[1] / count
    finally:
        tracemalloc.stop()
    assert used < 120 and found.utt(777) == "a-rather-long-id-0000777" and found.row(found.utt(777))["lsd"] == 777.5


@pytest.mark.parametrize("count, words", [(5, "no clear difference"), (6, "B is better")])
def test_few_utterances_prove_nothing(rng, count, words):
    from setk.scoring import compare

    before = rng.uniform(0.5, 0.9, count)
    assert words in compare.words(compare.paired("stoi", before, before + rng.uniform(0.05, 0.06, count)))
