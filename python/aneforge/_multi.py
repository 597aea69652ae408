"""Programs with several results and ports that go by name, as ANEForge has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from aneforge._compile import compile
from aneforge._native import Model, SegmentedModel, Tensor
from aneforge._operand import Array, integer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Program:
    """A compiled program, whose ports go by their names in it."""

    def __init__(self, model: Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self._model, self._inputs, self._outputs = model, tuple(inputs), tuple(outputs)

    def _place(self, names: Sequence[str], port: str, what: str) -> int:
        if port not in names:
            raise ValueError(f"there is no {what} port {port!r}; the program has {', '.join(names)}")
        return names.index(port)

    def eval(self, feeds: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        """Feeds ports, runs, and reads every result. Ports that are not given keep what they hold."""
        for name, array in feeds.items():
            self.set_input(name, array)
        self.execute()
        return {name: self.read_output(name) for name in self._outputs}

    def set_input(self, name: str, array: Array) -> None:
        """Writes an input, rounded to half precision."""
        self._model._set_input(self._place(self._inputs, name, "input"), array)

    def execute(self) -> None:
        """Runs with what the ports hold."""
        self._model.execute()

    def read_output(self, name: str) -> NDArray[Any]:
        """A float32 copy of what the last run left in an output."""
        return self._model._read_output(self._place(self._outputs, name, "output"))

    def input_view(self, name: str | None = None) -> NDArray[Any]:
        """A writable float16 array over an input's own memory; by default the first."""
        return self._model.input_view(0 if name is None else self._place(self._inputs, name, "input"))

    def output_view(self, name: str | None = None) -> NDArray[Any]:
        """A read-only float16 array over an output's own memory; by default the first."""
        return self._model.output_view(0 if name is None else self._place(self._outputs, name, "output"))

    def share_buffer(self, src_op: int, out_port: str, dst_op: int, in_port: str) -> None:
        """Makes an input read what an output wrote in the run before, without a copy: state.

        Args:
            src_op: 0, as there is one program.
            out_port: the output's name.
            dst_op: 0.
            in_port: the input's name; it has the output's shape.
        """
        for name, op in (("src_op", src_op), ("dst_op", dst_op)):
            if integer(f"share_buffer: {name}", op) != 0:
                raise ValueError(f"share_buffer: {name} must be 0, as there is one program, got {op}")
        output, input = self._place(self._outputs, out_port, "output"), self._place(self._inputs, in_port, "input")
        self._model._share(output, input)

    def release(self) -> None:
        """Frees the program and its memory, but for ports that views still look at."""
        self._model.release()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class MultiModel:
    """A program with several results, called with one array per input; it returns a dict of arrays by port.

    `prog` is the program with its ports. `input_ports` and `output_ports` are pairs of a tensor and its port's name, in the
    order of arguments and of results.
    """

    def __init__(self, model: Model, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        self._model = model
        self.input_tensors, self.output_tensors = tuple(inputs), tuple(outputs)
        self.input_ports = list(zip(self.input_tensors, model.input_names, strict=True))
        self.output_ports = list(zip(self.output_tensors, model._output_ports(), strict=True))
        self.prog = Program(model, [name for _, name in self.input_ports], [name for _, name in self.output_ports])

    def __call__(self, *arrays: Any) -> dict[str, NDArray[Any]]:
        """One array per input, in the order in which the inputs were made."""
        results = self._model(*arrays)
        return {name: result for (_, name), result in zip(self.output_ports, results, strict=True)}

    def release(self) -> None:
        """Frees the program and its memory, but for ports that views still look at."""
        self._model.release()

    def __repr__(self) -> str:
        return f"Multi{self._model!r}"


def compile_multi(
    outs: Sequence[Tensor],
    build_dir: str | PathLike[str] | None = None,
    int8: bool = False,
    compress: str | None = None,
    compress_atol: float = 0.05,
    block_size: int = 32,
    **options: Any,
) -> MultiModel:
    """Compiles several results into one program whose ports go by name.

    `compile` takes several results too; this gives them as ANEForge does. With `prog.share_buffer` an input reads what an
    output wrote in the run before; `af.state` and `compile(..., carry=...)` do that by name, across models.

    Args:
        outs: the results.
        build_dir: as for `compile`.
        int8: as for `compile`.
        compress: as for `compile`.
        compress_atol: as for `compile`.
        block_size: as for `compile`.
        **options: `target`, `device`, `numerics`, `sums`, `isa`, `threads` and `norms`, as for `compile`.

    Raises:
        NotImplementedError: the graph has native layers, which cut it into several programs.
    """
    results = list(outs)
    given = {"build_dir": build_dir, "compress": compress, "compress_atol": compress_atol, "block_size": block_size}
    model = compile(results, int8, **given, **options)
    if isinstance(model, SegmentedModel):
        model.release()
        layers = "1 native layer" if model.n_netplist == 1 else f"{model.n_netplist} native layers"
        raise NotImplementedError(
            f"compile_multi: the graph has {layers} and would be several programs; use compile"
        )
    return MultiModel(model, _inputs(results), results)


def _inputs(outs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs that results are made from, in the order in which they were made."""
    seen: set[Tensor] = set()
    found: list[Tensor] = []
    pending = list(outs)
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend(node.srcs)
            if node.op == "input" and "state" not in node.attrs:
                found.append(node)
    return sorted(found, key=lambda leaf: leaf.attrs["idx"])
