"""python -m setk COMMAND ...: run se-COMMAND. Without a command, list them."""

from __future__ import annotations

import importlib
import sys

from setk.cli import COMMANDS


def usage() -> str:
    """The commands, one per line."""
    lines = ["Usage: python -m setk COMMAND [ARGS]...", "", "Commands:"]
    lines += [f"  {name:<9}{what}" for name, what in COMMANDS.items()]
    return "\n".join([*lines, "", "python -m setk COMMAND --help shows the options of one command."])


def main() -> int:
    """Run the command that sys.argv names as se-COMMAND does, or print the list. The exit status."""
    command = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if command in ("-h", "--help"):
        print(usage())
        return 0
    if command not in COMMANDS:
        from setk.core.errors import nearest

        print(f"setk: no command is called '{command}'; {nearest(command, COMMANDS)}", file=sys.stderr)
        return 2
    module = importlib.import_module(f"setk.cli.{command}")
    sys.argv[:2] = [module.__file__]
    module.main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
