"""Configs that are no configs: each is refused in one line, at once."""

from __future__ import annotations

import dataclasses

import pytest
from setk import models
from setk.core import config
from setk.core.errors import UserError
from setk.training import ranges, settings

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")
)


def refused(call, *words: str) -> None:
    with pytest.raises(UserError) as e:
        call()
    text = str(e.value)
    assert len(text) < 600 and "\n" not in text and all(word in text for word in words), text


@pytest.mark.parametrize(
    "text, words",
    [
        (BOMB, "references"),
        ("a: &a\n  b: *a\n", "references"),
        ("a: &a [*a]\n", "references"),
        ("a: {<<: &x {b: 1}, c: *x}\n", "references"),
        ("a: " + "[" * 5000 + "]" * 5000, "deep"),
        ("a: " + "{a: " * 5000 + "}" * 5000, "deep"),
        ("".join(" " * i + "a:\n" for i in range(200)), "deep"),
        ("a: [" + "1, " * 30000 + "]", "values"),
        ("a: " + "x" * (2 << 20), "bytes"),
        ("a: 2001-02-30\n", "cannot be read"),
        ("a: 2001-02-03T99:00:00Z\n", "cannot be read"),
        ("a: " + "9" * 6000 + "\n", "cannot be read"),
        ("a: !!int x\n", "cannot be read"),
        ("a: !!float x\n", "cannot be read"),
        ("a: !!timestamp x\n", "cannot be read"),
        ("a: !!python/object/apply:os.system [true]\n", "YAML"),
        ("[a]: 1\n", "YAML"),
        ("a: 1\nb: {c: 1, c: 2}\n", ":2: is not YAML: has 'c' twice"),
        ("? {a: 1}\n: 2\n", "YAML"),
        ("- 1\n", "key: value"),
        ("", "key: value"),
        ("\0", "YAML"),
        ("a: \x07\n", "YAML"),
    ],
)
def test_files_beyond_the_limits(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    refused(lambda: config.read_yaml(tmp_path / "a.yaml"), "a.yaml", words)


@pytest.mark.parametrize("value", ["*a", "[" * 5000, "2001-02-30", "!!int x", "9" * 6000])
def test_settings_on_the_command_line(value):
    refused(lambda: config.override({}, [f"lr={value}"]), "--set lr=")


@pytest.mark.parametrize(
    "setting",
    [
        "betas=[0.9, 1.5]", "betas=[-1, 0.9]", "betas=[0.9]", "lr=.nan", "lr=.inf", "lr=-1", "lr=1e400", "seed=1e23", "seed=" + "9" * 23,
        "seed=-1", "workers=-1", "workers=100000", "segment=1e9", "segment=.nan", "steps=100000000", "steps=0", "steps=1.5", "steps=true",
        "batch=1000000000", "clip=-1", "weight_decay=-1", "ema=1", "patience=-1", "average=-1", "warmup=-5", "augment.snr=[5, -5]",
        "augment.remix=2", "mixing.noise_speed=[0, 1]", "mixing.level=[-15, -35]", "mixing.room=-0.1", "mixing.high_voice=2", "context=-1", "losses.magnitude=.nan",
        "config.dpe_blocks=100000", "config.dpe_blocks=-1", "config.groups=0", "config.compression=.nan", "config.widths=[-1]",
        "lr=2001-02-03", "lr=[1]", "lr={}", "lr=null", "model=null", "model=[]", "model={}", "model=nope", "preset=[]", "preset=nope",
        "config=3", "config=[]", "metrics=[]", "metrics=[nope]", "metrics=pesq_wb", "losses=[]", "losses={}", "losses={nope: 1}", "best=nope",
        "quantization.observe=-1", "quantization=nope", "device=3", "mixing=3", "augment=[]", "pruning.amount=2", "pruning={amount: 1, floor: 0}", "discriminator.delay=0",
    ],
)  # fmt: skip
def test_values_out_of_range(setting):
    def resolve():
        resolved = settings.resolve("fspen", [setting])
        models.build(resolved.model, resolved.config)

    refused(resolve)


@pytest.mark.parametrize("name", sorted(config.included()))
def test_included_configs_are_in_range(name):
    settings.resolve(name)


def test_every_number_of_a_training_has_a_range():
    complete = dataclasses.replace(
        settings.Settings("fspen"), quantization=settings.Scheme(), discriminator=settings.Adversary(), teacher=settings.Teaching("fspen"), pruning=settings.Pruning(),
        augment=settings.Augment(snr=(0.0, 1.0)),
    )  # fmt: skip
    assert {key for key, _ in ranges.numbers(complete)} - ranges.RANGES.keys() == set()


@pytest.mark.parametrize(
    "name, field", [("conv_tasnet", "hidden"), ("dccrn", "units"), ("fastenhancer", "blocks"), ("gtcrn", "channels")]
)
@pytest.mark.parametrize("value", [0, -3, 10**5, 10**30])
def test_sizes_of_models(name, field, value):
    refused(lambda: models.build(name, {field: value}), field)


@pytest.mark.parametrize(
    "name, sizes", [("fastenhancer", {"window": 512, "hop": 512}), ("dccrn", {"window": 400, "hop": 400})]
)
def test_a_hop_as_long_as_its_window(name, sizes):
    refused(lambda: models.build(name, sizes), "hop")
