"""What is known of every op of MIL on every chip: native, bridge (by another route) or walled (not at all)."""

from __future__ import annotations

from aneforge import _native

OP_CATALOG: dict[str, dict[str, str]] = dict(_native.catalog())
"""187 ops: `category`, status on `m1`, `m2`, `m3` and `m4_m5`, `kernel`, `mil_status` and `note`."""

_FAMILIES = {"m1": 2, "m2": 3, "m3": 4, "m4_m5": 5}


def op_info(name: str) -> dict[str, str] | None:
    """The record of an op of MIL, or None for an unknown one."""
    record = OP_CATALOG.get(name)
    return None if record is None else dict(record)


def device_status(name: str, chip: str = "m1") -> str | None:
    """`native`, `bridge` or `walled`; None for an unknown op.

    `chip` is `m1` to `m5`, a family such as `a14`, or a target such as `h17s`; an unknown one is a ValueError.
    """
    column = _native.catalog_column(chip)
    record = OP_CATALOG.get(name)
    return None if record is None else record[column]


def is_native(name: str, chip: str = "m1") -> bool:
    """Whether the chip computes the op as itself."""
    return device_status(name, chip) == "native"


def ops_on(chip: str = "m1", status: str = "native") -> list[str]:
    """Names of the ops with this status on a chip, in alphabetical order."""
    status = status.strip().lower()
    if status not in ("native", "bridge", "walled"):
        raise ValueError(f"ops_on: status must be 'native', 'bridge' or 'walled', got {status!r}")
    column = _native.catalog_column(chip)
    return sorted(name for name, record in OP_CATALOG.items() if record[column] == status)


def min_native_family(name: str) -> int | None:
    """The first family that computes the op as itself: 2 for A13 (M1) to 5 for A16 (M4 and M5), or None."""
    record = OP_CATALOG.get(name, {})
    return next((family for column, family in _FAMILIES.items() if record.get(column) == "native"), None)


def walled_everywhere() -> list[str]:
    """Names of the ops that no chip runs, in alphabetical order."""
    return sorted(name for name, r in OP_CATALOG.items() if all(r[c] == "walled" for c in _FAMILIES))


def categories() -> list[str]:
    """Names of the categories, in alphabetical order."""
    return sorted({record["category"] for record in OP_CATALOG.values()})
