"""A translated model as C: OUT.c holds the kernels that it uses, its constants, its program and its interface; OUT.h declares it."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Mapping, NamedTuple, Sequence

import numpy as np

from setk.engines.compiled import numbers_crc32
from setk.native import int8
from setk.native.arena import FUNCTIONS, OPERATIONS, SPACES
from setk.native.program import Program
from setk.native.translate import Translated

SPACES_IN_TEXT = {"CONSTANTS", "STATE"}  # cases of from() in kernels.h, not of a program
KERNELS = ("vector.h", "kernels.h", "products.h", "layers.h", "transform.h", "late.h", "program.h")
UNPACK_FUNCTION = """
#ifndef SETK_WEIGHTS_INT8
/* Once, in memory that all streams read. */
static void unpack(void)
{
    static int done = 0;
    if (done) return;
    for (int i = 0; i < (int)(sizeof floats / sizeof *floats); i++) constants[i] = floats[i];
    run_program(unpacking_program, (int)(sizeof unpacking_program / sizeof *unpacking_program), NULL, constants, NULL, NULL);
    done = 1;
}
#endif
"""
UNPACK_CALL = """
#ifndef SETK_WEIGHTS_INT8
    unpack();
#endif"""
UNPACK_NOTE = """
 * The weights are int8. The first call makes floats of them, in memory of this file: make it before other threads start. With
 * -DSETK_WEIGHTS_INT8 they stay int8, and process() makes floats of those in use."""
# What the header of the float form says where that of the integer form differs.
FLOAT_FORM = {
    "MEMORY_TYPE": "float",
    "PROCESS_NAME": "PREFIX_process",
    "ALIGNMENT_NOTE": ", aligned as float",
    "LIMIT_TYPE": "float",
    "PROCESS_TEXT": """/* Read one hop of samples between -1 and 1, and write one. `in` and `out` may be the same. `scratch` need not be cleared. A sample
 * that is NaN, infinite, denormal or beyond +-10000 counts as silence. */
void PREFIX_process(PREFIX_state *state, void *scratch, const float *in, float *out);

/* The same for 16-bit samples; the output is rounded and limited. */""",
}
_SECTION = re.compile(r"^/\* ---- ((?:[A-Z0-9_]+ ?)+):", re.M)
_CASE = re.compile(r"^\s+case ([A-Z0-9_]+):.*\n", re.M)


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
        elif op == "NARROW":
            total += a[0] * a[1] * sum(a[7 + 4 * i + 3] for i in range(a[6]))
        elif op == "CELL":
            total += a[0] * a[1] * a[2] * 3 * (a[7] + a[12])
        elif op == "SPARSE_PRODUCT":
            total += a[0] * a[1]
        elif op == "DEPTHWISE":
            total += a[0] * a[1] * a[2] * a[3]
        elif op == "SCAN":
            total += a[0] * a[1] * a[2] * a[2] * 3
    return total


class Cost(NamedTuple):
    """What a program costs; `multiply_adds` are of a hop."""

    multiply_adds: int
    hops_per_second: float
    bytes: Mapping[str, int]
    latency_ms: float


class History(NamedTuple):
    """The newest `past` samples before a hop in the state of a program, from `at` on; `split`: the even ones before the odd."""

    at: int
    past: int
    split: bool


def history(program: Program) -> History:
    """Where a program keeps its input."""
    for row in rows(program.words):
        op, a = OPERATIONS[row[0]], [int(x) for x in row[2:]]
        if op == "ANALYSE":
            return History(a[3] & 0xFFFFFFF, a[0] - a[1], True)
        if op == "FRAME":
            return History((a[2] & 0xFFFFFFF) + a[1], a[0] - a[1], False)
    raise ValueError("a program that reads no samples")


def memory(translated: Translated, kept: Program | None = None) -> dict[str, int]:
    """Bytes of constants, of the state of a stream, and of scratch memory (see struct PREFIX_state in template.c)."""
    program, alignment = translated.program, 64
    constants = program.constants.nbytes
    if kept:
        constants = 4 * program.floats + sum(part.nbytes for part in int8.packed(program))
    return {
        "constants": constants,
        "state": 4 * (program.state + translated.delay - history(program).past + 3) + alignment,
        "scratch": 4 * (_scratch(program, kept) + 2 * translated.transform.hop) + alignment,
    }


def interface(form: Mapping[str, str]) -> str:
    """The template of OUT.h for a form of the program; `form` has the keys of FLOAT_FORM."""
    template = text("template.h", "setk.export.c")
    for name, value in form.items():
        template = template.replace(name, value)
    return template


def header(translated: Translated, prefix: str, facts: str, kept: Program | None = None) -> str:
    """The text of OUT.h; `facts` goes into its first line."""
    body = _fill(interface(FLOAT_FORM), translated, prefix, kept).replace("FACTS", facts, 1)
    return body.replace("UNPACK_NOTE", "" if kept is None else UNPACK_NOTE)


def source(
    translated: Translated,
    prefix: str,
    comment: str,
    expected: np.ndarray,
    hops: int,
    decibels: int,
    kept: Program | None = None,
) -> str:
    """The text of OUT.c. `expected`: the last samples that the checkpoint makes of `hops` hops of the test signal (see template.c),
    which the self-test compares with its own at `decibels`, a multiple of 10. `kept`: the program that keeps weights as int8; the
    file then has no others."""
    program = translated.program
    body = _fill(text("template.c", "setk.export.c"), translated, prefix, kept)
    past = history(program)
    for name, value in {
        "LINE_FLOATS": translated.delay - past.past,
        "HISTORY_AT": past.at,
        "HISTORY_SPLIT": int(past.split),
        "HISTORY_PAST": past.past,
    }.items():
        body = body.replace(name, str(value))
    body = body.replace("SCRATCH_FLOATS", str(_scratch(program, kept))).replace("STATE_FLOATS", str(program.state))
    unpacking = _unpacking(program)
    body = body.replace(
        "CONSTANTS_TEXT",
        _float_constants(program) if kept is None else _int8_constants(program, kept, unpacking),
    )
    body = body.replace("ABOUT_TEXT", _about(translated, prefix, kept))
    body = body.replace("RESET_TEXT", _program("reset_program", program.reset))
    body = body.replace("UNPACK_FUNCTION", "" if kept is None else UNPACK_FUNCTION)
    body = body.replace("UNPACK_CALL", "" if kept is None else UNPACK_CALL)
    body = body.replace("EXPECTED_TEXT", _floats("expected", expected))
    for name, value in {
        "TEST_HOPS": hops,
        "EXPECTED_HOPS": len(expected) // translated.transform.hop,
        "LEAST_RATIO": f"1e{decibels // 10}",
        "LEAST_EXPONENT": decibels // 10,
    }.items():
        body = re.sub(rf"\b{name}\b", str(value), body)
    programs = [program.words, program.reset, *([] if kept is None else [kept.words, unpacking])]
    return "\n".join([comment, f'#include "{prefix}.h"', "#include <stddef.h>", "", kernels(programs), body])


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


def loud_noise(hops: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
    """What test_signal() of the templates is made of: noise of -32768 ... 32767 [hops, hop], and how loud each hop is [hops, 1]."""
    random, noise = 1, np.empty(hops * hop, np.int64)
    for i in range(len(noise)):
        random = (random * 1664525 + 1013904223) & 0xFFFFFFFF
        noise[i] = (random >> 16) - 32768
    return noise.reshape(hops, hop), 1 + np.arange(hops)[:, None] % 8


def comment(title: str, checkpoint: str | None, cost: Cost, *more: str) -> str:
    """The comment at the top of a .c."""
    per_second = cost.multiply_adds * cost.hops_per_second / 1e6
    size = cost.bytes
    lines = [
        title,
        "",
        f"Checkpoint: SHA-256 {checkpoint or 'not known'}",
        f"Cost: {cost.multiply_adds} multiply-adds per hop, {per_second:.1f} M per second",
        f"Memory: {size['constants']} bytes of constants, {size['state']} of state for each stream, {size['scratch']} of scratch",
        f"Algorithmic latency: {cost.latency_ms:.1f} ms",
        *more,
    ]
    return "/* " + "\n * ".join(lines).replace(" * \n", " *\n") + "\n */"


def about_text(
    prefix: str, model: str, checkpoint: str | None, rate: int, hop: int, delay: int, size: dict[str, int], samples: str
) -> str:
    """JSON as a string of C. setk.engines.compiled finds it in a shared library by its first key. `samples`: "float" or "int16"."""
    about = {
        "setk_c": 1,
        "prefix": prefix,
        "model": model,
        "checkpoint": checkpoint,
        "sample_rate": rate,
        "hop": hop,
        "delay": delay,
        "state_bytes": size["state"],
        "scratch_bytes": size["scratch"],
        "samples": samples,
        "numbers_crc32": "00000000",  # see sealed()
    }
    lines = [json.dumps(part) for part in re.split("(?<=,) ", json.dumps(about))]
    return "\n    " + "\n    ".join(line[:-1] + ' "' if i < len(lines) - 1 else line for i, line in enumerate(lines))


def sealed(source: str) -> str:
    """The text of OUT.c with the checksum of its numbers in what it states."""
    empty, filled = (
        json.dumps(f'"numbers_crc32": "{crc}"')[1:-1] for crc in ("00000000", numbers_crc32(source.encode()))
    )
    assert source.count(empty) == 1
    return source.replace(empty, filled)


def _about(translated: Translated, prefix: str, kept: Program | None) -> str:
    about = translated.about
    return about_text(
        prefix,
        about["model"],
        about["provenance"].get("sha256"),
        about["sample_rate"],
        translated.transform.hop,
        translated.delay,
        memory(translated, kept),
        "float",
    )


def _scratch(program: Program, kept: Program | None) -> int:
    """Floats of scratch memory that suffice for either program."""
    return max(program.scratch, kept.scratch if kept else 0)


def _fill(template: str, translated: Translated, prefix: str, kept: Program | None) -> str:
    transform, rate, size = translated.transform, translated.about["sample_rate"], memory(translated, kept)
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


def _float_constants(program: Program) -> str:
    return "\n".join(
        [
            _floats("constants", program.constants, aligned=True),
            "static const Model model = {constants, NULL, NULL};",
            "",
            _program("program", program.words),
        ]
    )


def _int8_constants(program: Program, kept: Program, unpacking: np.ndarray) -> str:
    """The weights of `program` as int8, and either the program that keeps them or one that unpacks them when it starts."""
    weights, steps = int8.packed(program)
    return "\n".join(
        [
            _floats("floats", program.constants[: program.floats], aligned=True),
            _bytes("weights", weights),
            _floats("steps", steps),
            "",
            "#ifdef SETK_WEIGHTS_INT8",
            "static const Model model = {floats, weights, steps};",
            _program("program", kept.words),
            "#else",
            f"ALIGNED static float constants[{len(program.constants)}];",
            "static const Model model = {constants, weights, steps};",
            _program("program", program.words),
            _program("unpacking_program", unpacking),
            "#endif",
        ]
    )


def _unpacking(program: Program) -> np.ndarray:
    """The words that write all weights as floats to where the constants are, which are the scratch memory of this program."""
    words, step = [np.zeros(0, np.int32)], 0
    for first, count, length, columns in program.blocks:
        blocks = count // length
        to = SPACES["scratch"] << 28 | first
        words.append(
            np.array(
                [OPERATIONS.index("EXPAND"), 6, blocks, length, columns, first - program.floats, step, to], np.int32
            )
        )
        step += blocks * columns
    return np.concatenate(words)


def _bytes(name: str, data: np.ndarray) -> str:
    lines = [", ".join(map(str, data[i : i + 32])) for i in range(0, len(data), 32)]
    return f"static const int8_t {name}[{len(data)}] = {{\n" + ",\n".join(lines) + "\n};"


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
