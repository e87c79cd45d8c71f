"""The commands: argument parsing and one loop each."""

import importlib.util
import sys

# Commands need typer before they can report that it is missing, so it is looked for here. Its import takes too long for that.
if importlib.util.find_spec("typer") is None:
    from setk.core import packages

    print(f"setk: {packages.explain(ModuleNotFoundError(name='typer'))}", file=sys.stderr)
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
