"""What every se-* command shares in its help: option groups, examples, -h, --version, --quiet, --print-completion."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Iterator, Optional

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from setk.cli.titles import GENERAL as LAST_GROUP

DEFAULT_GROUP = "Options"
ALIASES = {"shard": "part"}  # options by their earlier names, which no help shows


SETTINGS: dict[str, Any] = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 100,
    "token_normalize_func": lambda name: ALIASES.get(name, name),
}


class _Manners:
    """Help in groups, examples as they are written, and the options that all commands have. `epilog` holds the examples."""

    params: list[Any]
    epilog: str | None

    def __init__(
        self, *args: Any, params: list[Any] | None = None, context_settings: dict[str, Any] | None = None, **rest: Any
    ):
        super().__init__(  # type: ignore[call-arg]
            *args,
            params=[*(params or []), *_common()],
            context_settings={**SETTINGS, **(context_settings or {})},
            **rest,
        )

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options by group."""
        for title, group in by_group(parameters(self, ctx)).items():
            with formatter.section(title):
                formatter.write_dl([(parameter.label, parameter.help) for parameter in group])

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """`[OPTIONS] MODEL [NOISY]`: arguments by their metavars, optional ones in brackets."""
        pieces = ["[OPTIONS]"]
        for parameter in parameters(self, ctx):
            if parameter.argument:
                name = parameter.names[0]
                pieces.append(name if parameter.required or name.startswith("[") else f"[{name}]")
        return pieces

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, line by line."""
        if not self.epilog:
            return
        with formatter.section("Examples"):
            for line in example_lines(self.epilog):
                formatter.write(f"  {line}".rstrip() + "\n")


class Command(_Manners, TyperCommand):
    """A command, or a subcommand."""


class Group(_Manners, TyperGroup):
    """A command that has subcommands."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the subcommands, then the options."""
        self.format_commands(ctx, formatter)
        _Manners.format_options(self, ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["COMMAND", "[OPTIONS]", "..."]


@dataclass(frozen=True)
class Parameter:
    """An option or argument as help and reference pages show it."""

    names: tuple[str, ...]  # of an option, short ones first; of an argument its metavar
    value: str  # what an option accepts; empty for a flag
    help: str  # with default and range
    group: str
    required: bool
    argument: bool = False

    @property
    def label(self) -> str:
        return ", ".join(self.names) + (f" {self.value}" if self.value else "")

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of an option that accepts one of a few."""
        values = tuple(self.value.split("|"))
        return (
            values
            if len(values) > 1 and all(value.replace("-", "_").isidentifier() and value.islower() for value in values)
            else ()
        )


# What typer calls a value without a metavar of its own -> what the help calls it.
_VALUES = {
    "int": "N",
    "int range": "N",
    "float": "X",
    "float range": "X",
    "str": "TEXT",
    "path": "PATH",
    "list[str]": "TEXT",
}


def parameters(command: Any, ctx: typer.Context) -> list[Parameter]:
    """The arguments and options of a command, hidden ones excepted."""
    found = []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None or getattr(param, "hidden", False):
            continue
        name, _, kind = record[0].partition(" <")
        text = re.sub(r"x>=([-.\d]+)", r"at least \1", record[1])
        if param.param_type_name == "argument":
            found.append(
                Parameter(
                    (name if param.metavar else name.upper(),), "", text, "Arguments", param.required, argument=True
                )
            )
            continue
        names = tuple(sorted((*param.opts, *param.secondary_opts), key=len))
        kind = kind.rstrip(">")
        value = "" if param.is_flag else param.metavar or _VALUES.get(kind, kind)
        group = LAST_GROUP if param.name == "help" else getattr(param, "rich_help_panel", None) or DEFAULT_GROUP
        found.append(Parameter(names, value, text, group, param.required))
    return found


def by_group(found: list[Parameter]) -> dict[str, list[Parameter]]:
    """Parameters by the title of their group: arguments first, general options last, others as they first occur."""
    groups: dict[str, list[Parameter]] = {"Arguments": []}
    for parameter in found:
        groups.setdefault(parameter.group, []).append(parameter)
    general = groups.pop(LAST_GROUP, [])
    return {title: group for title, group in {**groups, LAST_GROUP: general}.items() if group}


def example_lines(examples: str) -> Iterator[str]:
    """The lines of an examples text, without the indentation that they share."""
    import inspect

    yield from inspect.cleandoc(examples).splitlines()


def _common() -> list[Any]:
    """The options that every command has, as parameters of a command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_options)
    return list(get_command(app).params)


# fmt: off
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", expose_value=False, callback=lambda value: _set_quiet(value), rich_help_panel=LAST_GROUP, help="Print only errors to standard error.")] = False,
    completion: Annotated[Optional[str], typer.Option("--print-completion", metavar="SHELL", is_eager=True, expose_value=False, callback=lambda value: _print_completion(value), rich_help_panel=LAST_GROUP, help="Print the completion script for bash, zsh or fish and exit.")] = None,
    version: Annotated[bool, typer.Option("--version", is_eager=True, expose_value=False, callback=lambda value: _print_version(value), rich_help_panel=LAST_GROUP, help="Print the versions of setk, torch and ONNX Runtime and exit.")] = False,
) -> None:
    # fmt: on
    """Options that every command has."""


def _set_quiet(value: bool) -> None:
    if value:
        from setk.cli import shell

        shell.quiet = True


def _print_completion(shell_name: str | None) -> None:
    if shell_name is None:
        return
    from setk.cli import manual

    typer.echo(manual.completion(shell_name), nl=False)
    raise typer.Exit


def _print_version(value: bool) -> None:
    if not value:
        return
    import setk
    from setk.core import provenance

    installed = provenance.versions("torch", "onnxruntime")
    libraries = ", ".join(f"{name} {number}" for name, number in installed.items())
    revision = provenance.git_revision()
    typer.echo(f"setk {setk.__version__}{f' ({revision})' if revision else ''}{f', {libraries}' if libraries else ''}")
    raise typer.Exit
