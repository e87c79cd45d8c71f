"""The commands of a program. typer parses and documents them; its import takes as long as the enhancement of a minute of
audio, so that a command line without values of options runs without it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, Callable, Mapping, NamedTuple, Sequence, TypeVar

from setk.core.errors import UserError

if TYPE_CHECKING:
    import typer

F = TypeVar("F", bound=Callable[..., Any])


class Plain(NamedTuple):
    """What a command accepts without typer: arguments, by their parameters, all text; and options of that name without a value."""

    arguments: Sequence[str]
    flags: Sequence[str] = ()


class PlainLine(NamedTuple):
    """A command line that needs no parser: takes the part of typer.Context. `params`: value of every parameter; `given`:
    parameter -> what the command line calls it."""

    params: Mapping[str, Any]
    given: Mapping[str, str]


class App:
    """Commands that `command` adds. Calling it parses a command line (that of the process) and runs one of them."""

    def __init__(self, examples: str | None = None, **options: Any):
        self._examples, self._options = examples, options
        self._commands: list[tuple[Callable[..., Any], dict[str, Any]]] = []
        self._callback: Callable[..., Any] | None = None
        self._plain: Plain | None = None

    def add(self, function: F, plain: Plain | None, **options: Any) -> F:
        """Make a function a command; `plain` is for one that is the only command. Returns the function."""
        self._commands.append((function, options))
        self._plain = plain
        return function

    def callback(self) -> Callable[[F], F]:
        """Decorator: the docstring of the function describes the commands together."""

        def register(function: F) -> F:
            self._callback = function
            return function

        return register

    @functools.cached_property
    def parser(self) -> typer.Typer:
        """The same commands as a Typer without boxes and colors: plain help suits grep too, and starts faster."""
        import typer

        from setk.cli.command import Command, Group

        made = typer.Typer(
            cls=Group,
            epilog=self._examples,
            add_completion=False,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            **self._options,
        )
        if self._callback:
            made.callback()(self._callback)
        for function, options in self._commands:
            made.command(cls=Command, **options)(function)
        return made

    def __call__(self, args: Sequence[str] | None = None, **options: Any) -> Any:
        """Run the command of `args` (None: of the process). `options` are for typer, what is returned is its."""
        words = sys.argv[1:] if args is None else args
        if self._plain and (line := plain_line(self._commands[0][0], self._plain, words)):
            return self._commands[0][0](**{**line.params, "ctx": line})
        return self.parser(args, **options)


def plain_line(function: Callable[..., Any], plain: Plain, words: Sequence[str]) -> PlainLine | None:
    """The parameters of a command by a command line of its arguments and flags alone; None for any other line."""
    flags = {f"--{name}": name for name in plain.flags}
    texts = [word for word in words if word not in flags]
    if not words or len(texts) > len(plain.arguments) or any(text[:1] == "-" and text != "-" for text in texts):
        return None
    values: dict[str, Any] = {
        name: parameter.default for name, parameter in inspect.signature(function).parameters.items() if name != "ctx"
    }
    given = dict(zip(plain.arguments, texts))
    values.update(given)
    labels = {name: name for name in given}
    for word in set(words) & flags.keys():
        values[flags[word]], labels[flags[word]] = True, word
    return PlainLine(values, labels)


def new_app(examples: str | None = None, **options: Any) -> App:
    """An App; `options` as those of typer.Typer."""
    return App(examples, **options)


def command(
    app: App, name: str | None = None, *, examples: str, plain: Plain | None = None, **options: Any
) -> Callable[[F], F]:
    """Decorator that makes a function a command of `app`, with the examples that its help shows."""
    return lambda function: app.add(function, plain, name=name, epilog=examples, **options)


def only(ctx: typer.Context | PlainLine, where: str, *names: str) -> None:
    """Raise UserError if the command line has a parameter that is not in `names`: ignored, it would promise what is not done.

    `where` ends the sentence "--jobs does not apply ...", as in "with --compare".
    """
    refuse(ctx, where, *(name for name in ctx.params if name not in names))


def refuse(ctx: typer.Context | PlainLine, where: str, *names: str) -> None:
    """Raise UserError if the command line has one of the parameters `names`; the counterpart of `only`."""
    for name, label in given(ctx).items():
        if name in names:
            raise UserError(f"{label} does not apply {where}; remove it")


def given(ctx: typer.Context | PlainLine) -> Mapping[str, str]:
    """Parameter -> what the command line calls it, of those that it has."""
    if isinstance(ctx, PlainLine):
        return ctx.given
    found = {}
    for param in ctx.command.params:
        source = ctx.get_parameter_source(param.name)
        if source and source.name == "COMMANDLINE":
            found[param.name] = param.opts[0] if param.param_type_name == "option" else (param.metavar or param.name)
    return found
