"""The rows that the tests of the kernel table run: this machine's, or those of another one.

BITFOLD_KERNEL_REPLAY holds a command, ``qemu-aarch64 -L … build/neon/kernel_replay`` for example,
that runs single steps on the other machine (tests/replay/kernel_replay.c). Steps are chosen, packed
and compared here, so its rows meet the same tests. ``make neon`` sets it.
"""

import atexit
import os
import shlex
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import cffi
import numpy as np

from bitfold.kernels import c_backend, c_library, features
from bitfold.kernels.c_library import Library
from bitfold.kernels.c_steps import pack_step, row_fits
from bitfold.kernels.packed_step import PackedProgram, PackedStep
from bitfold.kernels.packing import round_up
from bitfold.kernels.program_bounds import check_bounds
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ALIGNMENT, Buffer, Step

REPLAY_VARIABLE = "BITFOLD_KERNEL_REPLAY"


def replay_command() -> list[str]:
    """The command of the other machine, without its last argument; empty where there is none."""
    return shlex.split(os.environ.get(REPLAY_VARIABLE, ""))


def c_rows() -> tuple[Row, ...]:
    """Rows of the table under test."""
    return replay().table.rows if replay_command() else c_backend.c_rows()


def host_features() -> frozenset[str]:
    """Features of the machine under test."""
    return replay().table.features if replay_command() else features.host_features()


def compile_c(steps, *, input, arena_bytes, force=None, threads=1):
    """``c_backend.compile_c``, or the same for the other machine."""
    compiler = compile_replayed if replay_command() else c_backend.compile_c
    return compiler(steps, input=input, arena_bytes=arena_bytes, force=force, threads=threads)


def check_packed(steps, rows, arena_bytes):
    """What ``rows`` are given for ``steps`` is accepted when it comes from a file."""
    packed = tuple(pack_step(step, row) for step, row in zip(steps, rows, strict=True))
    symbols, reasons = tuple(row.symbol for row in rows), ("",) * len(rows)
    places = steps[0].out, steps[-1].out, round_up(arena_bytes, ALIGNMENT)
    check_bounds(
        PackedProgram(symbols, reasons, packed, *places), {row.symbol: row for row in rows}
    )


def read_table(command: Sequence[str]) -> Library:
    """The table that the other machine lists; a library without functions."""
    ffi = cffi.FFI()
    ffi.cdef(c_library._declarations(c_library._HEADER.read_text()))
    listing = subprocess.run([*command, "table"], capture_output=True, text=True, check=True)
    rows, names = [], []
    for kind, *words in map(str.split, listing.stdout.splitlines()):
        if kind == "row":
            op, layout, isa, symbol, *needs = words
            rows.append(Row(op, layout, isa, frozenset(needs), symbol, "c"))
        elif kind == "feature":
            names += words
        else:
            assert (kind, words) == ("step", [str(ffi.sizeof("bf_step"))])
    return Library(
        path=Path(command[-1]), ffi=ffi, lib=None, rows=tuple(rows), features=frozenset(names)
    )


class Replay:
    """A process that runs one step at a time on the other machine."""

    def __init__(self, command: Sequence[str]) -> None:
        self.table = read_table(command)
        self._process = subprocess.Popen(
            [*command, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        atexit.register(self.close)

    def run(
        self, symbol: str, step: "PlainStep", arena: np.ndarray, share: tuple[int, int]
    ) -> None:
        """Part ``share`` of the step; ``arena`` becomes what the kernel left."""
        constants, pointers = (
            bytes(step.data),
            b"".join(struct.pack("<QQ", *p) for p in step.places),
        )
        sizes = (len(constants), len(step.places), arena.nbytes)
        asked = struct.pack("<64s5Q", symbol.encode(), *share, *sizes)
        self._process.stdin.write(asked + constants + pointers + arena.tobytes())
        self._process.stdin.flush()
        answer = self._process.stdout.read(arena.nbytes)
        assert len(answer) == arena.nbytes, f"{symbol} did not answer"
        arena[:] = np.frombuffer(answer, np.uint8)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@cache
def replay() -> Replay:
    return Replay(replay_command())


@dataclass
class PlainStep:
    """A bf_step and what it points to as bytes, with the places of its pointers."""

    table: Library
    data: bytearray = field(default_factory=bytearray)
    places: list[tuple[int, int]] = field(default_factory=list)

    def append(self, content: bytes) -> int:
        """Where ``content`` begins: a multiple of 64, with 64 spare bytes behind what precedes."""
        self.data += bytes(round_up(len(self.data) + ALIGNMENT, ALIGNMENT) - len(self.data))
        self.data += content
        return len(self.data) - len(content)

    def point(self, at: int, content: bytes) -> None:
        """A pointer at byte ``at``, to ``content``."""
        self.places.append((at, self.append(content)))

    def fill(self, struct_name: str, start: int, values: dict) -> None:
        """Numbers into the struct at byte ``start``, arrays behind it all."""
        ffi, (block, members) = self.table.ffi, self.members(struct_name)
        ffi.memmove(block, bytes(self.data[start : start + ffi.sizeof(struct_name)]), len(block))
        target = ffi.cast(f"{struct_name} *", block)
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self.point(start + members[name].offset, value.tobytes())
            else:
                setattr(target, name, value)
        self.data[start : start + len(block)] = ffi.buffer(block)[:]

    def members(self, struct_name: str):
        ffi = self.table.ffi
        block = ffi.new("char[]", ffi.sizeof(struct_name))
        return block, dict(ffi.typeof(struct_name).fields)


def plain_step(library: Library, packed: PackedStep, scratch: int, scratch_bytes: int) -> PlainStep:
    ffi, plain = library.ffi, PlainStep(library)
    _, members = plain.members("bf_step")
    plain.data += bytes(ffi.sizeof("bf_step"))
    segments = [(s.offset, s.num_quads, int(s.flush)) for s in packed.segments]
    numbers = {"scratch": scratch, "scratch_bytes": scratch_bytes, "num_segments": len(segments)}
    plain.fill("bf_step", 0, packed.fields | numbers)
    plain.fill("bf_epilogue", members["epilogue"].offset, packed.epilogue.fields)
    if segments:
        plain.point(members["segments"].offset, np.array(segments, np.uint64).tobytes())
    if packed.extra is not None:
        name, values = packed.extra
        start = plain.append(bytes(ffi.sizeof(name)))
        plain.places.append((members["extra"].offset, start))
        plain.fill(name, start, values)
    return plain


@dataclass
class ReplayedProgram:
    """What the tests use of a ``CProgram``, run by the other machine."""

    rows: tuple[Row, ...]
    arena_bytes: int
    steps: Sequence[Step]
    packed: Sequence[PlainStep]
    scratch: int

    def run_step(self, index: int, arena: np.ndarray) -> None:
        self.run_share(index, arena, share=(0, 1))

    def run_share(self, index: int, arena: np.ndarray, *, share: tuple[int, int]) -> None:
        before, out = arena.copy(), self.steps[index].out
        replay().run(self.rows[index].symbol, self.packed[index], arena, share)
        changed = np.flatnonzero(before[: self.scratch] != arena[: self.scratch])
        inside = (changed >= out.offset) & (changed < out.offset + out.num_bytes)
        assert inside.all(), f"{self.rows[index].symbol} wrote outside of its output"


def compile_replayed(
    steps: Sequence[Step], *, input: Buffer, arena_bytes: int, force: str | None, threads: int
) -> ReplayedProgram:
    library = replay().table
    candidates = c_backend.allowed_rows(library, force)
    rows = tuple(next(row for row in candidates if row_fits(row, step)) for step in steps)
    packed = [pack_step(step, row) for step, row in zip(steps, rows, strict=True)]
    scratch = round_up(arena_bytes, ALIGNMENT)
    scratch_bytes = round_up(max(p.scratch_bytes for p in packed), ALIGNMENT)
    plain = [plain_step(library, p, scratch, scratch_bytes) for p in packed]
    return ReplayedProgram(rows, scratch + threads * scratch_bytes, steps, plain, scratch)
