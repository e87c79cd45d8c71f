"""resolved.py CONFIG INIT [KEY=VALUE...]: the complete settings of a training from INIT, or from random weights if it is empty, as YAML."""

import sys

import yaml

from setk.cli import shell
from setk import checkpoint
from setk.core import config
from setk.training import settings


def main(conf: str, init: str, *overrides: str) -> None:
    if init:
        checkpoint.read(checkpoint.find(init))
    yaml.safe_dump(config.plain(settings.resolve(conf, overrides, init or None)), sys.stdout, sort_keys=False)


if __name__ == "__main__":
    shell.script(lambda: main(*sys.argv[1:]), "resolved.py")
