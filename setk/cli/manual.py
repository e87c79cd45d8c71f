"""Man pages, shell completions and reference pages, all generated from the commands' own options.

python -m setk.cli.manual          write man/, completions/, docs/commands/ and docs/config.md of this checkout
python -m setk.cli.manual --check  exit 1 if one of them is not what the options say now
"""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Iterator

from setk.cli import COMMANDS
from setk.cli.command import LAST_GROUP, Parameter, by_group, example_lines, parameters
from setk.core.errors import UserError

if TYPE_CHECKING:
    from setk.core.keys import Key

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Page:
    """A command, or a subcommand, as the reference shows it."""

    name: str  # "se-prep mix"
    summary: str  # first sentence
    body: str  # the help text
    usage: str
    parameters: tuple[Parameter, ...]
    examples: tuple[str, ...]
    subcommands: tuple[Page, ...] = field(default_factory=tuple)


def page(command: str) -> Page:
    """The page of se-COMMAND."""
    import typer.main

    app = import_module(f"setk.cli.{command}").app
    return _page(typer.main.get_command(app), f"se-{command}", None)


def _page(command: Any, name: str, parent: Any) -> Page:
    ctx = command.context_class(command, info_name=name.rsplit(" ", 1)[-1], parent=parent)
    text = inspect.cleandoc(command.help or "")
    shown = [(key, sub) for key, sub in sorted(getattr(command, "commands", {}).items()) if not sub.hidden]
    subcommands = tuple(_page(sub, f"{name} {key}", ctx) for key, sub in shown)
    examples = tuple(example_lines(command.epilog)) if command.epilog else ()
    usage = f"{name} {' '.join(command.collect_usage_pieces(ctx))}"
    return Page(
        name,
        text.split("\n\n")[0].replace("\n", " "),
        text,
        usage,
        tuple(parameters(command, ctx)),
        examples,
        subcommands,
    )


# Man pages


def man(command: str) -> str:
    """The man page se-COMMAND.1 in roff."""
    top = page(command)
    lines = [
        f'.TH {top.name.upper()} 1 "" "setk" "User Commands"',
        ".ad l",
        ".nh",
        ".SH NAME",
        f"{_roff(top.name)} \\- {_roff(COMMANDS[command])}",
        ".SH SYNOPSIS",
        *(f".B {_roff(one.usage)}\n.br" for one in top.subcommands or (top,)),
        ".SH DESCRIPTION",
        *_roff_paragraphs(top.body),
    ]
    for one in (top, *top.subcommands):
        if one is not top:
            lines += [f".SH {_roff(one.name.upper())}", f".B {_roff(one.usage)}", ".PP", *_roff_paragraphs(one.body)]
        for group, members in by_group(list(one.parameters)).items():
            if one is not top and group == LAST_GROUP:
                continue
            lines.append(f"{'.SS' if one is not top else '.SH'} {_roff(group.upper() if one is top else group)}")
            for parameter in members:
                lines += [".TP", f".B {_roff(parameter.label)}", _roff(parameter.help)]
        if one.examples:
            lines += [".SS Examples" if one is not top else ".SH EXAMPLES", ".nf", *map(_roff, one.examples), ".fi"]
    lines += [
        ".SH EXIT STATUS",
        "0: everything was done. 1: some utterances failed; each is named on standard error. "
        "2: the command line or a configuration is wrong.",
        ".SH SEE ALSO",
        ", ".join(
            f".BR se\\-{other} (1)" if i == 0 else f"se\\-{other}(1)"
            for i, other in enumerate(name for name in COMMANDS if name != command)
        ),
    ]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _roff_paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield _roff(" ".join(paragraph.split()))
        yield ".PP"


# Completions


def completion(shell: str, commands: Iterable[str] = COMMANDS) -> str:
    """The completion script of commands for a shell. Raises UserError on a shell that is not known."""
    if shell not in SHELLS:
        raise UserError(f"--print-completion {shell}: unknown shell; use {', '.join(SHELLS)}")
    pages = [page(command) for command in commands]
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](pages)


def _words(one: Page) -> str:
    return " ".join(name for parameter in one.parameters if not parameter.argument for name in parameter.names)


def _bash(pages: list[Page]) -> str:
    function = "_setk" if len(pages) > 1 else "_" + pages[0].name.replace("-", "_")
    lines = [
        "# bash completion of the se-* commands. Install as a file in bash-completion's folder, or source it.",
        f"{function}() {{",
        "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words= values=",
        '    case "${COMP_WORDS[0]##*/} ${COMP_WORDS[1]-}" in',
    ]
    for top in pages:
        for sub in top.subcommands:
            lines += [f'        "{sub.name}") words="{_words(sub)}" ;;']
        names = " ".join(sub.name.split()[-1] for sub in top.subcommands)
        lines += [f'        "{top.name} "*) words="{" ".join(filter(None, [names, _words(top)]))}" ;;']
    lines += ["    esac", '    case "${COMP_WORDS[0]##*/} ${COMP_WORDS[1]-} $previous" in']
    for top in pages:
        for one in (*top.subcommands, top):
            pattern = f'"{one.name} "' if one is not top else f'"{one.name} "*" "'
            for parameter in one.parameters:
                if parameter.choices and not parameter.argument:
                    lines.append(f'        {pattern}{parameter.names[-1]}) values="{" ".join(parameter.choices)}" ;;')
    lines += [
        "    esac",
        '    if [[ $values ]]; then COMPREPLY=($(compgen -W "$values" -- "$current"))',
        '    elif [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$words" -- "$current"))',
        '    else COMPREPLY=($(compgen -f -W "$(printf \'%s\\n\' $words | grep -v ^-)" -- "$current")); fi',
        "}",
        f"complete -o filenames -F {function} {' '.join(top.name for top in pages)}",
    ]
    return "\n".join(lines) + "\n"


def _zsh(pages: list[Page]) -> str:
    lines = [
        f"#compdef {' '.join(top.name for top in pages)}",
        "# zsh completion of the se-* commands.",
        "_setk() {",
        "    case $service in",
    ]
    for top in pages:
        lines.append(f"        {top.name})")
        if top.subcommands:
            lines += [
                "            local -a subcommands=(",
                *(f"                {_zsh_quoted(sub.name.split()[-1], sub.summary)}" for sub in top.subcommands),
                "            )",
                "            if ((CURRENT == 2)); then _describe command subcommands; return; fi",
                "            case $words[2] in",
            ]
            for sub in top.subcommands:
                lines += [
                    f"                {sub.name.split()[-1]}) shift words; ((CURRENT--)); _arguments \\",
                    *_zsh_arguments(sub, "                    "),
                    "                    ;;",
                ]
            lines += ["            esac"]
        else:
            lines += ["            _arguments \\", *_zsh_arguments(top, "                ")]
        lines.append("            ;;")
    return "\n".join([*lines, "    esac", "}", '_setk "$@"']) + "\n"


def _zsh_quoted(name: str, text: str) -> str:
    return "'" + f"{name}:{text}".replace("'", "'\\''") + "'"


def _zsh_arguments(one: Page, indent: str) -> Iterator[str]:
    for parameter in one.parameters:
        if parameter.argument:
            continue
        text = parameter.help.translate(str.maketrans({"[": "(", "]": ")", "'": "", ":": ",", "\\": ""}))
        for name in parameter.names:
            action = (
                f":value:({' '.join(parameter.choices)})"
                if parameter.choices
                else ":value:_files"
                if parameter.value
                else ""
            )
            yield f"{indent}'*{name}[{text}]{action}' \\"
    yield f"{indent}'*:file:_files'"


def _fish(pages: list[Page]) -> str:
    lines = ["# fish completion of the se-* commands."]
    for top in pages:
        for one in (top, *top.subcommands):
            condition = ""
            if one is not top:
                name = one.name.split()[-1]
                lines.append(
                    f"complete -c {top.name} -n __fish_use_subcommand -f -a {name} -d {_fish_quoted(one.summary)}"
                )
                condition = f" -n '__fish_seen_subcommand_from {name}'"
            for parameter in one.parameters:
                if parameter.argument:
                    continue
                names = "".join(
                    f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in parameter.names
                )
                value = (
                    f" -x -a '{' '.join(parameter.choices)}'" if parameter.choices else " -r" if parameter.value else ""
                )
                lines.append(f"complete -c {top.name}{condition}{names}{value} -d {_fish_quoted(parameter.help)}")
    return "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# Pages of docs/


def markdown(command: str) -> str:
    """docs/commands/se-COMMAND.md."""
    top = page(command)
    lines = [
        f"# {top.name}",
        "",
        "<!-- Generated by python -m setk.cli.manual; edit the command's options instead. -->",
    ]
    for one in (top, *top.subcommands):
        if one is not top:
            lines += ["", f"## {one.name}"]
        lines += ["", *_markdown_text(one.body), "", "```text", one.usage, "```"]
        for group, members in by_group(list(one.parameters)).items():
            if one is not top and group == LAST_GROUP:
                continue
            lines += ["", f"**{group}**", "", "| option | meaning |", "|---|---|"]
            lines += [f"| `{parameter.label}` | {_cell(parameter.help)} |" for parameter in members]
        if one.examples:
            lines += ["", "**Examples**", "", "```text", *one.examples, "```"]
    return "\n".join(lines) + "\n"


def _markdown_text(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from (" ".join(paragraph.split()).replace("<", "\\<"), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


def config_page() -> str:
    """docs/config.md: every key of a training configuration, and of the models' own `config` block."""
    from setk import models
    from setk.core.keys import keys
    from setk.training.settings import Settings

    lines = [
        "# Configuration",
        "",
        "<!-- Generated by python -m setk.cli.manual; edit the dataclasses instead. -->",
        "",
        "A training configuration is a YAML file with these keys. `--set KEY=VALUE` overrides a key; dots reach nested keys. "
        "An unknown key is an error that names the nearest known key.",
        "",
        *_key_table(keys(Settings)),
    ]
    for name in models.names():
        cls = models.model_class(name)
        lines += [
            "",
            f"## config of {name}",
            "",
            f"Presets: {', '.join(f'`{preset}`' for preset in cls.presets)}.",
            "",
            *_key_table(keys(cls.Config)),
        ]
    return "\n".join(lines) + "\n"


def _key_table(rows: Iterable[Key]) -> Iterator[str]:
    yield from ("| key | type | default | unit | meaning |", "|---|---|---|---|---|")
    for key in rows:
        default = f"`{key.default}`" if key.default else ""
        yield f"| `{key.name}` | {key.type} | {default} | {key.unit} | {_cell(key.meaning)} |"


def generated() -> dict[str, str]:
    """Path in the checkout -> text of every generated page."""
    files = {}
    for command in COMMANDS:
        files[f"man/se-{command}.1"] = man(command)
        files[f"docs/commands/se-{command}.md"] = markdown(command)
    files["docs/config.md"] = config_page()
    files["completions/zsh/_setk"] = completion("zsh")
    # bash and fish look for a file of the command's name when it is first typed.
    for command in COMMANDS:
        files[f"completions/bash/se-{command}"] = completion("bash", [command])
        files[f"completions/fish/se-{command}.fish"] = completion("fish", [command])
    return files


def main() -> None:
    root = Path(__file__).parents[2]
    stale = [
        name for name, text in generated().items() if not (root / name).is_file() or (root / name).read_text() != text
    ]
    if "--check" in sys.argv[1:]:
        print(*stale, sep="\n", end="\n" if stale else "")
        sys.exit(1 if stale else 0)
    files = generated()
    for name in stale:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(files[name])
        print(name)


if __name__ == "__main__":
    main()
