"""What every se-* command shares in its help: option groups, examples, -h, --version, --quiet, --print-completion."""

from __future__ import annotations

from typing import Annotated, Any, Iterator, Optional

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

DEFAULT_GROUP = "Options"
LAST_GROUP = "General"


class _Manners:
    """Help in groups, examples as they are written, and the options that all commands have. `epilog` holds the examples."""

    params: list[Any]
    epilog: str | None

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:
        """Write the arguments, then the options by group, in the order in which groups first occur."""
        for title, rows in grouped(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_epilog(self, ctx: typer.Context, formatter: Any) -> None:
        """Write the examples, line by line."""
        if not self.epilog:
            return
        with formatter.section("Examples"):
            for line in example_lines(self.epilog):
                formatter.write(f"  {line}".rstrip() + "\n")


class Command(_Manners, TyperCommand):
    """A command, or a subcommand."""

    def __init__(self, *args: Any, params: list[Any] | None = None, context_settings: dict[str, Any] | None = None, **rest: Any):
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100, **(context_settings or {})}
        super().__init__(*args, params=[*(params or []), *_common()], context_settings=settings, **rest)


class Group(_Manners, TyperGroup):
    """A command that has subcommands."""

    def __init__(self, *args: Any, params: list[Any] | None = None, context_settings: dict[str, Any] | None = None, **rest: Any):
        settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100, **(context_settings or {})}
        super().__init__(*args, params=[*(params or []), *_common()], context_settings=settings, **rest)

    def format_options(self, ctx: typer.Context, formatter: Any) -> None:
        """Write the subcommands, then the options."""
        self.format_commands(ctx, formatter)
        _Manners.format_options(self, ctx, formatter)


def grouped(command: Any, ctx: typer.Context) -> dict[str, list[tuple[str, str]]]:
    """Help records (option, text) of a command by the title of their group: arguments first, general options last."""
    groups: dict[str, list[tuple[str, str]]] = {}
    last: list[tuple[str, str]] = []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None:
            continue
        if param.param_type_name == "argument":
            groups.setdefault("Arguments", []).append(record)
        elif param.name == "help" or group_of(param) == LAST_GROUP:
            last.append(record)
        else:
            groups.setdefault(group_of(param), []).append(record)
    return {**groups, LAST_GROUP: last}


def group_of(param: Any) -> str:
    """The title under which the help lists an option."""
    return getattr(param, "rich_help_panel", None) or DEFAULT_GROUP


def example_lines(examples: str) -> Iterator[str]:
    """The lines of an examples text, without the indentation that they share."""
    import inspect

    yield from inspect.cleandoc(examples).splitlines()


def _common() -> list[Any]:
    """The options that every command has, as parameters of a command."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(_options)
    return list(get_command(app).params)


def _options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", expose_value=False, callback=lambda value: _set_quiet(value),
                                        rich_help_panel=LAST_GROUP, help="Print only errors to standard error.")] = False,
    completion: Annotated[Optional[str], typer.Option(
        "--print-completion", metavar="SHELL", is_eager=True, expose_value=False, callback=lambda value: _print_completion(value),
        rich_help_panel=LAST_GROUP, help="Print the completion script for bash, zsh or fish and exit.")] = None,
    version: Annotated[bool, typer.Option("--version", is_eager=True, expose_value=False, callback=lambda value: _print_version(value),
                                          rich_help_panel=LAST_GROUP, help="Print the versions of setk, torch and ONNX Runtime and exit.")] = False,
) -> None:
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
