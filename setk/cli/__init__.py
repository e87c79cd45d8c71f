"""The commands: argument parsing and one loop each."""

import sys

from setk.core import packages

# Every command imports typer before it can report anything, so it is looked for here.
try:
    import typer  # noqa: F401
except ModuleNotFoundError as e:
    print(f"setk: {packages.explain(e)}", file=sys.stderr)
    sys.exit(2)
