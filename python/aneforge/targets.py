"""Chips and their families: what each computes, its limits, and what it makes of a graph.

Everything here is from tables and reports of others; nothing was run on an engine by this project. A family is a `Family`, its
number, or a name of it or of one of its chips, such as `"a14"`, `"h14g"` or `"M2"`.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from aneforge import _env, _native
from aneforge._blame import is_integer, some, warn
from aneforge._judge import CrossChipFP16Warning
from aneforge._native import Tensor
from aneforge._operand import within

__all__ = [
    "CHIPS",
    "Chip",
    "FP16_SLICE_SAT",
    "Family",
    "MIN_FAMILY",
    "NodeReport",
    "Preflight",
    "Q4_X16_SAT",
    "UnknownNameError",
    "arch_family",
    "cross_compile_check",
    "detect_family",
    "has_texture_engine",
    "limit",
    "native_streams",
    "op_status",
    "predict_fp16_divergence",
    "preflight",
    "supports_mil",
]

FP16_SLICE_SAT = 4094.0
"""The largest magnitude that a slice past 0 on the last axis keeps on A13 and A14: 65504/16, as there is no number between
4094 and 4096."""

Q4_X16_SAT = FP16_SLICE_SAT
"""The same by another name."""


class Family(IntEnum):
    """A generation of engines; those of one family accept the same programs."""

    OLDER = 1
    """A11 and A12 class, which run no MIL program."""
    A13 = 2
    """M1."""
    A14 = 3
    """M2."""
    A15 = 4
    """M3, which nobody has measured."""
    A16 = 5
    """M4, M5 and later."""


MIN_FAMILY = Family.A13
"""The oldest family that runs programs."""


class Chip(NamedTuple):
    """A chip that the engine's compiler knows by name."""

    name: str
    """The compiler's name."""
    family: Family
    """Its family."""
    cores: int | None
    """Cores of its engine, where they are known."""
    description: str
    """What it is, or is said to be."""
    note: str
    """What is doubtful about it; empty for most."""


CHIPS: tuple[Chip, ...] = tuple(
    Chip(name, Family(number), cores, what, note) for name, number, cores, what, note in _native.chips()
)
"""Every chip, oldest family first."""


class UnknownNameError(ValueError, KeyError):
    """There is no chip, family or limit of this name."""

    def __str__(self) -> str:
        return str(self.args[0])


class NodeReport(NamedTuple):
    """A node, and what a family makes of it."""

    op: str
    """Its op."""
    shape: tuple[int, ...]
    """Its shape."""
    status: str
    """`native`, `decompose` (written with other ops) or `reject`."""
    oversize: bool
    """Whether something of it is larger than the family takes it."""
    why: str
    """What is too large; empty otherwise."""
    at: str
    """The line that built it."""


class Preflight(NamedTuple):
    """What a family makes of a graph, without compiling it. A node that is too large is in the list of its status, too."""

    family: Family
    """The family."""
    native: list[NodeReport]
    """Nodes that its engine computes."""
    decompose: list[NodeReport]
    """Nodes that are written with others."""
    reject: list[NodeReport]
    """Nodes that it does not compute."""
    oversize: list[NodeReport]
    """Nodes that are too large."""

    @property
    def ok(self) -> bool:
        """Whether nothing is rejected or too large. Compiling checks more."""
        return not self.reject and not self.oversize


def arch_family(name: str) -> Family:
    """The family of a chip, by its name (`"h14g"`), that of a Mac's chip (`"M2"`) or of the family (`"a14"`).

    Raises:
        UnknownNameError: a ValueError and KeyError, for other names.
    """
    if not isinstance(name, str):
        raise TypeError(f"arch_family: name must be a string, got {type(name).__name__}")
    return _family("arch_family", name)


def _family(where: str, family: object, called: str = "family") -> Family:
    """A family from its number, or from a name."""
    if isinstance(family, str):
        number = _native.chip_family(family)
        if number is None:
            known = " ".join(chip.name for chip in CHIPS)
            raise UnknownNameError(f"{where}: unknown target {family!r}; known are m1 to m5, a13 to a17, and {known}")
        return Family(number)
    if not is_integer(family):
        raise TypeError(f"{where}: {called} must be a Family, its number or a name, got {type(family).__name__}")
    try:
        return Family(family)
    except ValueError:
        raise ValueError(f"{where}: families are numbered from 1 (OLDER) to 5 (A16), got {family}") from None


def supports_mil(family: Family | int | str) -> bool:
    """Whether a family runs programs at all."""
    return _family("supports_mil", family) >= MIN_FAMILY


def has_texture_engine(family: Family | int | str) -> bool:
    """Whether a family has the unit that resizes, samples and warps images."""
    return _native.has_texture_engine(_family("has_texture_engine", family))


def op_status(op: str, family: Family | int | str) -> str:
    """What becomes of an op on a family: `native`, `decompose` (written with other ops) or `reject`.

    Ops that are not known to be missing anywhere are native wherever programs run.
    """
    if not isinstance(op, str):
        raise TypeError(f"op_status: op must be a string, got {type(op).__name__}")
    return _native.op_status(op, _family("op_status", family))


def limit(name: str, family: Family | int | str) -> int:
    """A limit of a family's compiler: `max_tensor_dim`, `channel_extent` (axis 1 of four), `transpose_extent`,
    `conv_kw_max`, `conv_kh_max`, `conv_transpose_strided_kw_max` and `conv_transpose_strided_kh_max` (beyond which
    `compile` warns), and `reduction_transpose_extent`, from which reductions take another route.

    Raises:
        UnknownNameError: a ValueError and KeyError, for other names.
        ValueError: the family runs no programs.
    """
    which = _family("limit", family)
    limits = dict(_native.limits(which))
    if not isinstance(name, str):
        raise TypeError(f"limit: name must be a string, got {type(name).__name__}")
    if name not in limits:
        raise UnknownNameError(f"limit: unknown limit {name!r}; known are {', '.join(limits)}")
    if which < MIN_FAMILY:
        raise ValueError(f"limit: {which.name} runs no programs, and has no limits; the oldest that does is A13")
    return limits[name]


def native_streams(family: Family | int | str) -> frozenset[str]:
    """The forms of weights that a family's engine reads as they are stored, by the names of `compile(compress=)`.

    Others compile and compute the same, are expanded to half precision when a program loads, and save no traffic.
    """
    return frozenset(_native.native_streams(_family("native_streams", family)))


def predict_fp16_divergence(
    kind: str,
    shape: Sequence[int],
    a: Family | int | str,
    b: Family | int | str,
    begin: Sequence[int] | None = None,
    max_abs: float | None = None,
) -> str:
    """How results of an op of this kind differ between two families: `saturation` (magnitudes above 4094 become infinite
    on one), `ulp1` (by the last place) or `none`.

    Args:
        kind: what the op is called; `slice`, `crop`, `reduce`, `softmax`, `norm` and the like in it are understood.
        shape: its shape, which no rule asks for.
        a: a family.
        b: the other.
        begin: where a window starts, on each axis.
        max_abs: what magnitudes of its operand do not exceed, if that is known.
    """
    first, second = (_family("predict_fp16_divergence", one, called) for one, called in ((a, "a"), (b, "b")))
    if begin is not None and not isinstance(begin, (str, Tensor)):
        begin = [within("predict_fp16_divergence: begin", place, 0) for place in begin]
    return _native.divergence(kind, first, second, begin[-1] if begin else None, max_abs)


@functools.cache
def _brand() -> str:
    """The brand of a Mac's processor; nothing elsewhere."""
    if sys.platform != "darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def detect_family() -> Family:
    """The family of the engine at hand: that of `ANEFORGE_TARGET` if it is set, else that of this Mac's processor, else
    that of the chip that programs are compiled for by default (A16).

    A processor newer than the M5 counts as A16, with a warning: the newest family that is known.
    """
    named = _env.target()
    if named is not None:
        return arch_family(named)
    found = _native.family_of_brand(_brand())
    if found is None:
        return arch_family(_native.default_target())
    family = Family(found[0])
    if found[1] is not None:
        warn(
            f"detect_family: M{found[1]} is newer than the chips that are known, M1 to M5, and is taken for "
            f"{family.name}; set ANEFORGE_TARGET to choose another"
        )
    return family


def preflight(root: Tensor | Sequence[Tensor], family: Family | int | str) -> Preflight:
    """What a family makes of every node of `root`, inputs and constants too, without compiling it."""
    some("preflight", root)
    which = _family("preflight", family)
    lists = (
        [NodeReport(op, tuple(shape), status, large, why or "", at) for op, shape, status, large, why, at in rows]
        for rows in _native.preflight(root, which)
    )
    return Preflight(which, *lists)


def cross_compile_check(
    out: Tensor | Sequence[Tensor], target: Family | int | str, int8: bool = False
) -> bool:
    """Whether `out` compiles for a chip; a warning says why not.

    It is compiled as `compile` does it, and the program is checked against the rules of MIL that are known here. These are
    this project's checks, not the vendor's compiler. Where the engine at hand (`detect_family`) is of another family, a
    `CrossChipFP16Warning` says which results may differ.

    Args:
        out: the result, or several.
        target: a chip such as `"h13"`, or a family.
        int8: store weights in bytes.

    Raises:
        UnknownNameError: a ValueError and KeyError, for a chip that is not known.
        ValueError: a wrong graph.
    """
    some("cross_compile_check", out)
    if not isinstance(int8, bool):
        raise TypeError(f"cross_compile_check: int8 must be True or False, got {type(int8).__name__}")
    family = _family("cross_compile_check", target, "target")
    chip = _native.chip_for(target) if isinstance(target, str) else _native.representative(family)
    name = target if isinstance(target, str) else family.name
    report = preflight(out, family)
    if chip is None or not report.ok:
        said = [f"{node.op}: {node.why} (at {node.at})" for node in report.oversize]
        said += [f"{node.op}: {family.name} does not compute it (at {node.at})" for node in report.reject]
        if family < MIN_FAMILY:
            said = [f"{family.name} runs no MIL program"]
        more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
        warn(f"cross_compile_check: does not compile for {name}: {'; '.join(said[:3])}{more}")
        return False
    here = detect_family()
    if here != family and (lines := _native.cross_chip(out, here, family)):
        message = f"cross_compile_check: results may differ between {here.name}, at hand, and {family.name}: "
        warn(message + "; ".join(lines), CrossChipFP16Warning)
    try:
        _native.check_compiles(out, chip, int8)
    except NotImplementedError as error:
        warn(f"cross_compile_check: does not compile for {name}: {error}")
        return False
    return True
