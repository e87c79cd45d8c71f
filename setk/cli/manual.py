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
from typing import Any, Iterator

from setk.cli.command import LAST_GROUP, example_lines, group_of
from setk.core.errors import UserError

COMMANDS = {
    "prep": "prepare corpora: lists, mixtures, resampling, shards",
    "train": "train a model from a configuration",
    "enhance": "enhance files, lists and pipes",
    "score": "score enhanced speech",
    "quant": "quantize, export and compare models",
    "prune": "make a model smaller",
    "count": "count parameters, operations and time",
}
SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Parameter:
    """An option or argument as the reference shows it."""

    names: tuple[str, ...]           # ("--list",); of an argument its metavar
    value: str                       # metavar of what it accepts; empty for a flag
    help: str                        # with default and range
    group: str
    choices: tuple[str, ...] = ()
    argument: bool = False


@dataclass(frozen=True)
class Page:
    """A command, or a subcommand, as the reference shows it."""

    name: str                        # "se-prep mix"
    summary: str                     # first sentence
    body: str                        # the help text
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
    parameters = tuple(_parameter(param, ctx) for param in command.get_params(ctx) if not getattr(param, "hidden", False))
    subcommands = tuple(_page(sub, f"{name} {key}", ctx) for key, sub in sorted(getattr(command, "commands", {}).items()) if not sub.hidden)
    usage = f"{name} {' '.join(command.collect_usage_pieces(ctx))}"
    return Page(name, text.split("\n\n")[0].replace("\n", " "), text, usage, parameters,
                tuple(example_lines(command.epilog)) if command.epilog else (), subcommands)


def _parameter(param: Any, ctx: Any) -> Parameter:
    record = param.get_help_record(ctx) or ("", "")
    if param.param_type_name == "argument":
        return Parameter((record[0],), "", record[1], "Arguments", _choices(param), argument=True)
    names = tuple(sorted((*param.opts, *param.secondary_opts), key=len))
    value = record[0].split(" ", 1)[1].strip() if not param.is_flag and " " in record[0].split(", ")[-1] else ""
    group = LAST_GROUP if param.name == "help" else group_of(param)
    return Parameter(names, value.split(" / ")[0], record[1], group, _choices(param))


def _choices(param: Any) -> tuple[str, ...]:
    """The values of an option that is one of a few."""
    import enum

    annotation = getattr(getattr(param, "runtime", None), "annotation", None) or getattr(param, "annotation", None)
    if inspect.isclass(annotation) and issubclass(annotation, enum.Enum):
        return tuple(member.value for member in annotation)
    return tuple(getattr(getattr(param, "type", None), "choices", ()))


def by_group(page: Page) -> dict[str, list[Parameter]]:
    """Parameters by group: arguments first, general options last."""
    groups: dict[str, list[Parameter]] = {}
    for parameter in page.parameters:
        groups.setdefault(parameter.group, []).append(parameter)
    general = groups.pop(LAST_GROUP, [])
    return {**groups, LAST_GROUP: general}


def _label(parameter: Parameter) -> str:
    return ", ".join(parameter.names) + (f" {parameter.value}" if parameter.value else "")


# Man pages

def man(command: str) -> str:
    """The man page se-COMMAND.1 in roff."""
    top = page(command)
    lines = [f'.TH {top.name.upper()} 1 "" "setk" "User Commands"', ".SH NAME", f"{_roff(top.name)} \\- {_roff(COMMANDS[command])}",
             ".SH SYNOPSIS", *(f".B {_roff(one.usage)}\n.br" for one in top.subcommands or (top,)), ".SH DESCRIPTION",
             *_roff_paragraphs(top.body)]
    for one in (top, *top.subcommands):
        if one is not top:
            lines += [f".SH {_roff(one.name.upper())}", f".B {_roff(one.usage)}", ".PP", *_roff_paragraphs(one.body)]
        for group, parameters in by_group(one).items():
            if not parameters or (one is not top and group == LAST_GROUP):
                continue
            lines.append(f"{'.SS' if one is not top else '.SH'} {_roff(group.upper() if one is top else group)}")
            for parameter in parameters:
                lines += [".TP", f".B {_roff(_label(parameter))}", _roff(parameter.help)]
        if one.examples:
            lines += [".SS Examples" if one is not top else ".SH EXAMPLES", ".nf", *map(_roff, one.examples), ".fi"]
    lines += [".SH EXIT STATUS", "0: everything was done. 1: some utterances failed; each is named on standard error. "
              "2: the command line or a configuration is wrong.", ".SH SEE ALSO",
              ", ".join(f".BR se\\-{other} (1)" if i == 0 else f"se\\-{other}(1)"
                        for i, other in enumerate(name for name in COMMANDS if name != command))]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _roff_paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield _roff(" ".join(paragraph.split()))
        yield ".PP"


# Completions

def completion(shell: str) -> str:
    """The completion script of all commands for a shell. Raises UserError on a shell that is not known."""
    if shell not in SHELLS:
        raise UserError(f"--print-completion {shell}: unknown shell; use {', '.join(SHELLS)}")
    pages = [page(command) for command in COMMANDS]
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](pages)


def _words(one: Page) -> str:
    return " ".join(name for parameter in one.parameters if not parameter.argument for name in parameter.names)


def _bash(pages: list[Page]) -> str:
    lines = ["# bash completion of the se-* commands. Install as a file in bash-completion's folder, or source it.",
             "_setk() {", "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words= values=",
             '    case "${COMP_WORDS[0]##*/} ${COMP_WORDS[1]-}" in']
    for top in pages:
        for sub in top.subcommands:
            lines += [f'        "{sub.name}") words="{_words(sub)}" ;;']
        names = " ".join(sub.name.split()[-1] for sub in top.subcommands)
        lines += [f'        "{top.name} "*) words="{" ".join(filter(None, [names, _words(top)]))}" ;;']
    lines += ["    esac", '    case "$previous" in']
    for option, choices in sorted(_choice_options(pages).items()):
        lines.append(f'        {option}) values="{" ".join(choices)}" ;;')
    lines += ["    esac", '    if [[ $values ]]; then COMPREPLY=($(compgen -W "$values" -- "$current"))',
              '    elif [[ $current == -* ]]; then COMPREPLY=($(compgen -W "$words" -- "$current"))',
              '    else COMPREPLY=($(compgen -f -W "$(printf \'%s\\n\' $words | grep -v ^-)" -- "$current")); fi', "}",
              f"complete -o filenames -F _setk {' '.join(top.name for top in pages)}"]
    return "\n".join(lines) + "\n"


def _choice_options(pages: list[Page]) -> dict[str, tuple[str, ...]]:
    """Option name -> its values, of options that are one of a few."""
    found = {}
    for top in pages:
        for one in (top, *top.subcommands):
            for parameter in one.parameters:
                if parameter.choices and not parameter.argument:
                    found[parameter.names[-1]] = parameter.choices
    return found


def _zsh(pages: list[Page]) -> str:
    lines = [f"#compdef {' '.join(top.name for top in pages)}", "# zsh completion of the se-* commands.", "_setk() {", "    case $service in"]
    for top in pages:
        lines.append(f"        {top.name})")
        if top.subcommands:
            lines += ["            local -a subcommands=(", *(f"                {_zsh_quoted(sub.name.split()[-1], sub.summary)}" for sub in top.subcommands),
                      "            )", "            if ((CURRENT == 2)); then _describe command subcommands; return; fi", "            case $words[2] in"]
            for sub in top.subcommands:
                lines += [f"                {sub.name.split()[-1]}) shift words; ((CURRENT--)); _arguments \\",
                          *_zsh_arguments(sub, "                    "), "                    ;;"]
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
            action = f":value:({' '.join(parameter.choices)})" if parameter.choices else ":value:_files" if parameter.value else ""
            yield f"{indent}'*{name}[{text}]{action}' \\"
    yield f"{indent}'*:file:_files'"


def _fish(pages: list[Page]) -> str:
    lines = ["# fish completion of the se-* commands."]
    for top in pages:
        for one in (top, *top.subcommands):
            condition = ""
            if one is not top:
                name = one.name.split()[-1]
                lines.append(f"complete -c {top.name} -n __fish_use_subcommand -f -a {name} -d {_fish_quoted(one.summary)}")
                condition = f" -n '__fish_seen_subcommand_from {name}'"
            for parameter in one.parameters:
                if parameter.argument:
                    continue
                names = "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in parameter.names)
                value = f" -x -a '{' '.join(parameter.choices)}'" if parameter.choices else " -r" if parameter.value else ""
                lines.append(f"complete -c {top.name}{condition}{names}{value} -d {_fish_quoted(parameter.help)}")
    return "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# Pages of docs/

def markdown(command: str) -> str:
    """docs/commands/se-COMMAND.md."""
    top = page(command)
    lines = [f"# {top.name}", "", "<!-- Generated by python -m setk.cli.manual; edit the command's options instead. -->"]
    for one in (top, *top.subcommands):
        if one is not top:
            lines += ["", f"## {one.name}"]
        lines += ["", *_markdown_text(one.body), "", "```text", one.usage, "```"]
        for group, parameters in by_group(one).items():
            if not parameters or (one is not top and group == LAST_GROUP):
                continue
            lines += ["", f"**{group}**", "", "| option | meaning |", "|---|---|"]
            lines += [f"| `{_label(parameter)}` | {_cell(parameter.help)} |" for parameter in parameters]
        if one.examples:
            lines += ["", "**Examples**", "", "```text", *one.examples, "```"]
    return "\n".join(lines) + "\n"


def _markdown_text(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from (" ".join(paragraph.split()).replace("<", "\\<"), "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<")


def generated() -> dict[str, str]:
    """Path in the checkout -> text of every generated page."""
    files = {}
    for command in COMMANDS:
        files[f"man/se-{command}.1"] = man(command)
        files[f"docs/commands/se-{command}.md"] = markdown(command)
    files["completions/setk.bash"] = completion("bash")
    files["completions/_setk"] = completion("zsh")
    files["completions/setk.fish"] = completion("fish")
    return files


def main() -> None:
    root = Path(__file__).parents[2]
    stale = [name for name, text in generated().items() if not (root / name).is_file() or (root / name).read_text() != text]
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
