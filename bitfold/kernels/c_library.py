"""Loads the kernel library by cffi in ABI mode: its own header says what it declares."""

import os
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias

import cffi

from bitfold.errors import InputError
from bitfold.kernels.rows import Row

Foreign: TypeAlias = Any  # what cffi makes carries no types

LIBRARY_VARIABLE = "BITFOLD_KERNEL_LIBRARY"
_HERE = Path(__file__).parent
_HEADER = _HERE / "csrc" / "include" / "bitfold_kernels.h"
_SUFFIXES = (".so", ".dylib", ".dll")


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded kernel library: ``ffi`` and ``lib`` are cffi's objects."""

    path: Path
    ffi: Foreign
    lib: Foreign
    rows: tuple[Row, ...]
    features: frozenset[str]


def find_library() -> Path | None:
    """The library named by BITFOLD_KERNEL_LIBRARY, else the one beside this package, else None."""
    named = os.environ.get(LIBRARY_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(
                f"no kernel library at {named}",
                where=LIBRARY_VARIABLE,
                todo="Point it at libbitfold_kernels.so or unset it.",
            )
        return Path(named)
    candidates = (_HERE / f"libbitfold_kernels{suffix}" for suffix in _SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


@cache
def load_library(path: Path) -> Library:
    """The library at ``path``; raises InputError where it does not load or fit."""
    ffi = cffi.FFI()
    header = _HEADER.read_bytes()
    ffi.cdef(_declarations(header.decode()))
    try:
        lib = ffi.dlopen(str(path))
    except OSError as error:
        raise InputError(f"the kernel library does not load: {error}", where=str(path)) from error
    _check_abi(ffi, lib, sha256(header).hexdigest(), path)
    return Library(path, ffi, lib, _rows(ffi, lib), _features(ffi, lib))


def _check_abi(ffi: Foreign, lib: Foreign, digest: str, path: Path) -> None:
    """Raise InputError where the library was built from another header than ours."""
    try:
        built = ffi.string(lib.bf_abi()).decode()
    except AttributeError:
        built = "an older one"
    sizes = lib.bf_step_bytes(), ffi.sizeof("bf_step")
    if (built, sizes[0]) == (digest, sizes[1]):
        return
    what = f"is {built[:12]}, ours {digest[:12]}" if built != digest else f"has steps of {sizes}"
    raise InputError(
        f"the kernel library was built from another header: its {_HEADER.name} {what}",
        where=str(path),
        todo="Build the library again: cmake --build <build folder>",
    )


def _declarations(header: str) -> str:
    """The header without its preprocessor lines."""
    return "\n".join(line for line in header.splitlines() if not line.startswith("#"))


def _rows(ffi: Foreign, lib: Foreign) -> tuple[Row, ...]:
    table = lib.bf_kernel_table()
    rows: list[Row] = []
    while table[len(rows)].op != ffi.NULL:
        entry = table[len(rows)]
        op, layout, isa, needs, symbol = (
            ffi.string(text).decode()
            for text in (entry.op, entry.layout, entry.isa, entry.needs, entry.symbol)
        )
        rows.append(Row(op, layout, isa, frozenset(needs.split()), symbol, "c"))
    return tuple(rows)


def _features(ffi: Foreign, lib: Foreign) -> frozenset[str]:
    bits = lib.bf_host_isa()
    names: list[str] = []
    while lib.bf_feature_name(len(names)) != ffi.NULL:
        names.append(ffi.string(lib.bf_feature_name(len(names))).decode())
    return frozenset(name for bit, name in enumerate(names) if bits >> bit & 1)
