"""A translated model as C: OUT.c holds the kernels that it uses, its constants, its program and its interface; OUT.h declares it."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Sequence

import numpy as np

from setk.native.arena import FUNCTIONS, OPERATIONS
from setk.native.translate import Translated

SPACES_IN_TEXT = {"CONSTANTS", "STATE"}  # cases of from() in kernels.h, not of a program
KERNELS = ("vector.h", "kernels.h", "products.h", "layers.h", "transform.h", "late.h", "program.h")
_SECTION = re.compile(r"^/\* ---- ((?:[A-Z_]+ ?)+):", re.M)
_CASE = re.compile(r"^\s+case ([A-Z_]+):.*\n", re.M)


def text(name: str, package: str = "setk.native") -> str:
    """A file of a package."""
    return (files(package) / name).read_text()


def rows(words: np.ndarray) -> list[np.ndarray]:
    """The rows of a program: operation, number of arguments, arguments."""
    found, at = [], 0
    while at < len(words):
        end = at + 2 + int(words[at + 1])
        found.append(words[at:end])
        at = end
    return found


def multiply_adds(words: np.ndarray) -> int:
    """Of products, convolutions and recurrent layers, in one run of a program."""
    total = 0
    for row in rows(words):
        op, a = OPERATIONS[row[0]], [int(x) for x in row[2:]]
        if op == "PRODUCT":
            total += a[0] * a[1] * a[2] * sum(a[11 + 9 * i + 8] for i in range(a[10]))
        elif op == "SPARSE_PRODUCT":
            total += a[0] * a[1]
        elif op == "DEPTHWISE":
            total += a[0] * a[1] * a[2] * a[3]
        elif op == "SCAN":
            total += a[0] * a[1] * a[2] * a[2] * 3
    return total


def memory(translated: Translated) -> dict[str, int]:
    """Bytes of constants, of the state of a stream, and of scratch memory (see struct PREFIX_state in template.c)."""
    program, alignment = translated.program, 64
    return {
        "constants": program.constants.nbytes,
        "state": 4 * (program.state + translated.delay + 3) + alignment,
        "scratch": 4 * (program.scratch + 2 * translated.transform.hop) + alignment,
    }


def header(translated: Translated, prefix: str, facts: str) -> str:
    """The text of OUT.h; `facts` goes into its first line."""
    return _fill(text("template.h", "setk.export.c"), translated, prefix).replace("FACTS", facts, 1)


def source(translated: Translated, prefix: str, comment: str, expected: np.ndarray, hops: int, decibels: int) -> str:
    """The text of OUT.c. `expected`: the last samples that the checkpoint makes of `hops` hops of the test signal (see template.c),
    which the self-test compares with its own at `decibels`, a multiple of 10."""
    program = translated.program
    body = _fill(text("template.c", "setk.export.c"), translated, prefix)
    body = body.replace("SCRATCH_FLOATS", str(program.scratch)).replace("STATE_FLOATS", str(program.state))
    body = body.replace("CONSTANTS_TEXT", _floats("constants", program.constants, aligned=True))
    body = body.replace(
        "PROGRAM_TEXT", _program("program", program.words) + "\n\n" + _program("reset_program", program.reset)
    )
    body = body.replace("EXPECTED_TEXT", _floats("expected", expected))
    for name, value in {
        "TEST_HOPS": hops,
        "EXPECTED_HOPS": len(expected) // translated.transform.hop,
        "LEAST_RATIO": f"1e{decibels // 10}",
        "LEAST_EXPONENT": decibels // 10,
    }.items():
        body = re.sub(rf"\b{name}\b", str(value), body)
    return "\n".join(
        [comment, f'#include "{prefix}.h"', "#include <stddef.h>", "", kernels([program.words, program.reset]), body]
    )


def kernels(programs: Sequence[np.ndarray]) -> str:
    """The text of the kernels that some programs use."""
    used = {OPERATIONS[row[0]] for words in programs for row in rows(words)}
    functions = {FUNCTIONS[row[2]] for words in programs for row in rows(words) if OPERATIONS[row[0]] == "MAP"}
    parts = []
    for name in KERNELS:
        whole = text(name)
        marks = list(_SECTION.finditer(whole))
        kept = whole[: marks[0].start()] if marks else whole
        for mark, end in zip(marks, [*(m.start() for m in marks[1:]), len(whole)]):
            if used & set(mark[1].split()):
                kept += whole[mark.start() : end]
        parts.append(
            _CASE.sub(lambda case: case[0] if case[1] in used | functions or case[1] in SPACES_IN_TEXT else "", kept)
        )
    return "\n".join(parts)


def _fill(template: str, translated: Translated, prefix: str) -> str:
    transform, rate, size = translated.transform, translated.about["sample_rate"], memory(translated)
    values = {
        "RATE_VALUE": rate,
        "HOP_VALUE": transform.hop,
        "DELAY_VALUE": translated.delay,
        "LATENCY_VALUE": transform.latency(translated.about["lookahead"]),
        "STATE_VALUE": size["state"],
        "SCRATCH_VALUE": size["scratch"],
    }
    for name, value in values.items():
        template = template.replace(name, str(value))
    return template.replace("PREFIX_UPPER", prefix.upper()).replace("PREFIX", prefix)


def _floats(name: str, data: np.ndarray, aligned: bool = False) -> str:
    numbers = [str(x) + "f" for x in np.asarray(data, np.float32)]
    numbers = [x if "." in x or "e" in x else x.replace("f", ".0f") for x in numbers]
    lines = [", ".join(numbers[i : i + 10]) for i in range(0, len(numbers), 10)]
    attribute = "ALIGNED " if aligned else ""
    return f"{attribute}static const float {name}[{len(numbers)}] = {{\n" + ",\n".join(lines) + "\n};"


def _program(name: str, words: np.ndarray) -> str:
    lines = []
    for row in rows(words):
        op = OPERATIONS[row[0]]
        arguments = [str(int(x)) for x in row[2:]]
        if op == "MAP":
            arguments[0] = FUNCTIONS[int(arguments[0])]
        lines.append(", ".join([op, str(row[1]), *arguments]))
    return f"static const int32_t {name}[] = {{\n" + ",\n".join(f"    {line}" for line in lines) + "\n};"
