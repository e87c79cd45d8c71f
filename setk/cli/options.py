"""Options that several commands have, and how a command declares one of its own."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from setk.cli.titles import ADVANCED, INPUT, OUTPUT, PARALLEL

Context = typer.Context


def check_part(part: Optional[str]) -> Optional[str]:
    """Refuse a wrong --part before anything is printed."""
    if part is not None:
        from setk.data.lists import parse_part

        parse_part(part)
    return part


Part = Annotated[
    Optional[str],
    typer.Option(
        "--part",
        callback=check_part,
        rich_help_panel=PARALLEL,
        metavar="K/N",
        help="Every N-th utterance from the K-th, as one array job.",
    ),
]
MaxFail = Annotated[
    int,
    typer.Option(rich_help_panel=PARALLEL, metavar="N", min=0, help="Failed utterances that still count as success."),
]
AllowCommands = Annotated[
    bool, typer.Option("--allow-commands", rich_help_panel=INPUT, help="Run list entries that end in '|'.")
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print one JSON object per line, not a table.")
]
Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        rich_help_panel=ADVANCED,
        metavar="KEY=VALUE",
        help="Change a value of the model's config under the same weights; may be repeated.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        rich_help_panel=ADVANCED,
        help="Run TorchScript (.ts), C (.c) or a shared library (.so), which can execute any code.",
    ),
]
Stft = Annotated[
    Optional[str],
    typer.Option(
        "--stft",
        rich_help_panel=ADVANCED,
        metavar="WINDOW,HOP,TYPE[,RATE]",
        help="Transform of an .onnx of another project, as in 512,256,sqrt-hann (default: its metadata; 16000 Hz).",
    ),
]


def option(*names: str, group: str, **settings: Any) -> Any:
    """An option that the help lists under the title `group`; the rest as for typer.Option."""
    return typer.Option(*names, rich_help_panel=group, **settings)


def argument(metavar: str, help: str) -> Any:
    """An argument, as help and error messages call it."""
    return typer.Argument(metavar=metavar, help=help)
