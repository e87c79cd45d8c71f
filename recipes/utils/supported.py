"""supported.py METRICS BASE SYSTEM...: sentences about the differences of systems to BASE, which their scores support.

A difference is supported if it is clear (setk/scoring/compare.py) and, where there are several seeds, each seed has its sign.
"""

import sys

from setk.cli import shell
from setk.core.errors import UserError
from setk.scoring.compare import compare
from setk.scoring.specs import System, parse
from setk.scoring.systems import heading


def supported(base: System, system: System, metric: str) -> int:
    """1 or -1, the sign of a supported difference, or 0."""
    if len(base.seeds) != len(system.seeds):
        raise UserError(
            f"{system.name}: has {len(system.seeds)} seeds, {base.name} {len(base.seeds)}; train as many of each"
        )
    whole = next(compare(base.scores, system.scores, [metric]))
    if not whole.is_clear:
        return 0
    sign = 1 if whole.diff > 0 else -1
    each = [next(compare(one, other, [metric])).diff for one, other in zip(base.seeds, system.seeds)]
    return sign if all(diff * sign > 0 for diff in each) else 0


def main(metrics: str, name: str, *specs: str) -> None:
    systems = [parse(spec) for spec in specs]
    base = next((system for system in systems if system.name == name), None)
    others = [system for system in systems if system is not base]
    if base is None or not others:
        print(f"There is nothing to compare: the table needs {name} and another variant.")
        return
    for metric in metrics.split(","):
        signs = {system.name: supported(base, system, metric) for system in others}
        parts = [
            f"{words} {name}: " + ", ".join(known)
            for words, sign in (("above", 1), ("below", -1), ("not shown to differ from", 0))
            if (known := [other for other, found in signs.items() if found == sign])
        ]
        print(f"- {heading(metric)}: " + "; ".join(parts) + ".")
    if len(base.seeds) < 2:
        print("\nOne seed each: a difference between trainings may be that of their seeds.")


if __name__ == "__main__":
    shell.script(lambda: main(*sys.argv[1:]), "supported.py")
