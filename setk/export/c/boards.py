"""Generated C on a Cortex-M: built with the example of a bare board (board.c, board.ld), run by QEMU, and measured.

Needs arm-none-eabi-gcc and qemu-system-arm (Debian: gcc-arm-none-eabi, qemu-system-arm).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Sequence

from setk.core.errors import UserError
from setk.engines.compiled import read_about

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
SECONDS = 300  # of one run, at most
# Form of the program -> how its C is compiled.
FORMS = {"float": [], "int8": ["-DSETK_WEIGHTS_INT8"], "integer": ["-DBOARD_S16", "-mfloat-abi=soft"]}


class Board(NamedTuple):
    """A core on a machine of QEMU. `floating`: flags of its floating-point unit, None without one. `tick`: nanoseconds of SysTick.
    `vectors`: where it starts; `flash`, `ram`: memories (address, length) that hold the largest model."""

    core: str
    floating: str | None
    machine: str
    tick: int
    vectors: str
    flash: tuple[str, str]
    ram: tuple[str, str]


_PSRAM, _SRAM = ("0x21000000", "12M"), ("0x20000000", "4M")
BOARDS = {
    "m3": Board("cortex-m3", None, "mps2-an385", 40, "0x00000000", _PSRAM, _SRAM),
    "m4": Board("cortex-m4", "-mfpu=fpv4-sp-d16", "mps2-an386", 40, "0x00000000", _PSRAM, _SRAM),
    "m7": Board("cortex-m7", "-mfpu=fpv5-sp-d16", "mps2-an500", 40, "0x00000000", ("0x60000000", "12M"), _SRAM),
    "m33": Board(
        "cortex-m33", "-mfpu=fpv5-sp-d16", "mps2-an505", 50, "0x10000000", ("0x80000000", "10M"), ("0x80A00000", "6M")
    ),
    "m55": Board("cortex-m55", "", "mps3-an547", 31, "0x00000000", ("0x60000000", "10M"), ("0x60A00000", "6M")),
}


class Measured(NamedTuple):
    """A program on a board: bytes of flash and of RAM (state, scratch and two buffers of a hop), the parts of RAM, the bytes of stack
    that were used, the least instructions of a hop, and the hash of the output, which is that of -DSETK_SELFTEST."""

    flash_bytes: int
    ram_bytes: int
    state_bytes: int
    scratch_bytes: int
    stack_bytes: int
    instructions_per_hop: int
    hash: str


def missing() -> str | None:
    """The program that cannot be found, with the Debian package that has it; None if nothing is missing."""
    for program, package in ((COMPILER, "gcc-arm-none-eabi"), (EMULATOR, "qemu-system-arm")):
        if not shutil.which(program):
            return f"{program} (Debian: {package})"
    return None


def has_machine(board: Board) -> bool:
    """Whether the installed QEMU emulates the board."""
    known = subprocess.run([EMULATOR, "-M", "help"], capture_output=True, text=True, check=True).stdout
    return board.machine in known


def forms(board: Board) -> list[str]:
    """The forms of a program that the board runs: without a floating-point unit that of integers alone."""
    return [form for form in FORMS if form == "integer" or board.floating is not None]


def flags(board: Board, form: str) -> list[str]:
    """How the program is compiled."""
    hard = [*board.floating.split(), "-mfloat-abi=hard"] if form != "integer" else []
    common = "-O2 -ffp-contract=off -ffreestanding -nostdlib".split()
    return [f"-mcpu={board.core}", *hard, *common, f"-DTICK={board.tick}", *FORMS[form]]


def build(board: Board, source: Path, form: str, out: Path, script: str | None = None) -> None:
    """Link OUT.c of se-quant export with the example into `out`. `script`: another linker script than that for large models.
    Raises UserError if it does not compile."""
    prefix = read_about(source)["prefix"]
    example = _text("board.c").replace("fspen", prefix).replace("FSPEN", prefix.upper())
    example = example.replace(f'#include "{prefix}.h"', f'#include "{source.stem}.h"')
    with tempfile.TemporaryDirectory(prefix="setk_board_") as folder:
        main, linker = Path(folder) / "board.c", Path(folder) / "board.ld"
        main.write_text(example)
        linker.write_text(script or _script(board))
        where = [f"-I{source.parent}", "-T", str(linker), str(main), str(source), "-lgcc", "-o", str(out)]
        _run([COMPILER, *flags(board, form), *where], f"{source}: does not compile for {board.core}")


def measure(board: Board, source: Path, form: str, script: str | None = None) -> Measured:
    """Build and run a program. Raises UserError if it does not compile or does not end."""
    with tempfile.TemporaryDirectory(prefix="setk_board_") as folder:
        elf = Path(folder) / "board.elf"
        build(board, source, form, elf, script)
        # The last line of numbers: text, data, bss.
        text, data, bss = map(int, _run(["arm-none-eabi-size", str(elf)], str(elf)).splitlines()[-1].split()[:3])
        sizes = {line.split()[-1]: line.split()[1] for line in symbols(elf, "-S") if len(line.split()) == 4}
        options = f"-M {board.machine} -nographic -semihosting -icount shift=0 -kernel".split()
        printed = _run([EMULATOR, *options, str(elf)], f"{source}: does not run on {board.machine}")
    found = dict(line.rsplit(" ", 1) for line in printed.splitlines() if " " in line)
    try:
        return Measured(
            text + data,
            data + bss,
            int(sizes["state"], 16),
            int(sizes["scratch"], 16),
            int(found["stack"], 16),
            int(found["instructions"], 16),
            found["hash high"] + found["hash low"],
        )
    except (KeyError, ValueError):
        raise UserError(f"{source}: does not run on {board.machine}: it ended with {printed[-200:]!r}") from None


def symbols(elf: Path, *options: str) -> list[str]:
    """Lines of arm-none-eabi-nm."""
    return _run(["arm-none-eabi-nm", *options, str(elf)], str(elf)).splitlines()


def _text(name: str) -> str:
    return (files("setk.export.c") / name).read_text()


def _script(board: Board) -> str:
    """board.ld for the memories of a board, the vectors apart from the rest."""
    regions = (("VECTORS (rx)", (board.vectors, "1K")), ("FLASH (rx)", board.flash), ("RAM (rwx)", board.ram))
    memory = "   ".join(f"{name} : ORIGIN = {at}, LENGTH = {size}" for name, (at, size) in regions)
    script = re.sub(r"^REGION_ALIAS.*\n", "", _text("board.ld"), flags=re.M)
    return re.sub(r"^MEMORY.*", f"MEMORY {{ {memory} }}", script, flags=re.M)


def _run(argv: Sequence[str], complaint: str) -> str:
    """What a program prints. Raises UserError with the complaint if it fails or does not end."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise UserError(f"{complaint}: it did not end in {SECONDS} s") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [""]
        raise UserError(f"{complaint}: {next((line for line in lines if 'error' in line), lines[-1])[:200]}")
    return done.stdout + done.stderr
