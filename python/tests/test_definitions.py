"""Every program of the conformance suite, held against coremltools' definitions of the ops it uses.

The programs are those under `tests/ir/emit`. Each statement is built again with coremltools' builder, which checks names,
parameters, types and ranks, and infers the result's type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import Function, types

EMITTED = sorted((Path(__file__).parents[2] / "tests" / "ir" / "emit").glob("*.mil"))

TOKEN = re.compile(r'\s*("[^"]*"|-?0x[0-9a-f.]+p[+-]\d+|-?[\d.]+|[@\w]+|[^\s\w])')
NUMPY = {"fp16": np.float16, "fp32": np.float32, "int32": np.int32, "uint32": np.uint32, "bool": np.bool_}
DTYPES = {"fp16": types.fp16, "bool": types.bool, "uint8": types.uint8}

Type = tuple[str, tuple[int, ...] | None]


class Reader:
    """The tokens of one line of a program."""

    def __init__(self, line: str) -> None:
        self.tokens = TOKEN.findall(line)

    def next(self, expected: str | None = None) -> str:
        token = str(self.tokens.pop(0))
        assert expected in (None, token), f"expected {expected}, found {token}"
        return token

    def eat(self, token: str) -> bool:
        if self.tokens[:1] == [token]:
            self.tokens.pop(0)
            return True
        return False

    def many(self, opening: str, closing: str) -> Iterator[None]:
        """Once per element of a list in brackets."""
        self.next(opening)
        while not self.eat(closing):
            yield
            self.eat(",")

    def type(self) -> Type:
        name = self.next()
        if name != "tensor":
            return name, None
        self.next("<")
        name = self.next()
        self.next(",")
        shape = tuple(int(self.next()) for _ in self.many("[", "]"))
        self.next(">")
        return name, shape

    def port(self) -> tuple[Type, str]:
        return self.type(), self.next()

    def literal(self) -> Any:
        dtype, shape = self.type()
        self.next("(")
        if self.eat("BLOBFILE"):
            self.tokens.clear()
            # The record's contents do not matter, but that they differ does.
            return np.linspace(0.5, 1.0, int(np.prod(shape)), dtype=np.float16).reshape(shape)
        if shape is not None:
            return np.array([int(self.next()) for _ in self.many("[", "]")], NUMPY[dtype])
        word = self.next()
        self.next(")")
        if dtype == "string":
            return word.strip('"')
        if dtype == "bool":
            return np.bool_(word == "true")
        return NUMPY[dtype](float.fromhex(word) if "x" in word else float(word))

    def argument(self, values: dict[str, Any]) -> Any:
        if self.tokens[0] == "(":
            return [values[self.next()] for _ in self.many("(", ")")]
        return values[self.next()] if self.tokens[0] in values else self.literal()


def build(program: str) -> None:
    """Builds a program again; coremltools raises where a statement is not what it defines."""
    head = re.search(r"func main<ios18>(\(.*\)) \{\n(.*)\n    \} -> \((.*)\);", program, re.DOTALL)
    assert head is not None
    reader = Reader(head[1])
    ports = [reader.port() for _ in reader.many("(", ")")]
    inputs = {name: mb.placeholder(shape=shape, dtype=DTYPES[dtype]) for (dtype, shape), name in ports}
    with Function(inputs, opset_version=ct.target.iOS18) as function:
        values: dict[str, Any] = dict(function.inputs)
        for line in head[2].splitlines():
            statement(Reader(line), values)
        function.set_outputs([values[name] for name in head[3].split(", ")])


def statement(reader: Reader, values: dict[str, Any]) -> None:
    declared = [reader.port()]
    while reader.eat(","):
        declared.append(reader.port())
    reader.next("=")
    op = reader.next()
    arguments = {}
    for _ in reader.many("(", ")"):
        name = reader.next()
        reader.next("=")
        arguments[name] = reader.argument(values)
    if op == "const":
        while reader.next() != "val":
            pass
        reader.next("=")
        values[declared[0][1]] = mb.const(val=reader.literal())
        return
    made = getattr(mb, op)(**arguments)
    results = made if isinstance(made, (list, tuple)) else [made]
    for result, ((dtype, shape), name) in zip(results, declared, strict=True):
        assert (result.dtype, tuple(result.shape)) == (DTYPES[dtype], shape), name
        values[name] = result


@pytest.mark.parametrize("path", EMITTED, ids=lambda path: path.stem)
def test_programs_are_what_the_op_definitions_allow(path: Path) -> None:
    for case, program in enumerate(path.read_text().split("// case ")[1:]):
        try:
            build(program)
        except Exception as error:
            pytest.fail(f"{path.stem} case {case}: {error}\n{program}")
