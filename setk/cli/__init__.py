"""The commands: argument parsing and one loop each."""

import sys

from setk.core import packages

# Every command imports typer before it can report anything, so it is looked for here.
try:
    import typer  # noqa: F401
except ModuleNotFoundError as e:
    print(f"setk: {packages.explain(e)}", file=sys.stderr)
    sys.exit(2)

COMMANDS = {
    "prep": "prepare corpora: data directories, shards, checks",
    "train": "train a model from a config",
    "enhance": "enhance a file, a list or a pipe",
    "score": "score enhanced speech against clean speech",
    "count": "count parameters, MACs, latency and time of a model",
    "quant": "quantize, export and compare models",
    "prune": "remove channels of a model and train it again",
}
