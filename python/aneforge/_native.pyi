"""Types of the native half of the package."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from aneforge._ops import OpMethods
from aneforge._call import Placement, Submitted
from aneforge._diagnose import AllChips, Departures, Diagnosis
from aneforge._explain import Explanation
from aneforge._profile import Profile
from aneforge._tensor import TensorMethods

__all__ = [
    "Breaker",
    "Clip",
    "Diffusion",
    "Encoder",
    "Model",
    "Reranker",
    "SearchIndex",
    "SegmentedModel",
    "Tensor",
    "Vision",
    "__version__",
    "apply",
    "array",
    "attention",
    "attention_tiles",
    "build_index",
    "cache_limit",
    "cases",
    "catalog",
    "catalog_column",
    "check_compiles",
    "check_word",
    "chip_family",
    "chip_for",
    "chips",
    "compile",
    "constant",
    "constant_values",
    "cross_chip",
    "cuts_cross_attention",
    "default_target",
    "devices",
    "divergence",
    "estimate",
    "estimate_provenance",
    "estimate_report",
    "explain",
    "family_of_brand",
    "feeds",
    "gather",
    "geglu",
    "has_texture_engine",
    "input",
    "keep_attention",
    "known_attention",
    "limits",
    "load",
    "load_clip",
    "load_diffusion",
    "load_graph",
    "load_model",
    "load_reranker",
    "load_vision",
    "max_threads",
    "native_streams",
    "notices",
    "op_status",
    "open_index",
    "ops",
    "paired_apply",
    "paired_dot",
    "paired_muls",
    "paired_of",
    "precision_risk",
    "preflight",
    "profile",
    "project_peak",
    "reduce_sum_to_matmul",
    "representative",
    "save_graph",
    "sdpa",
    "set_threads",
    "triangle",
    "truth",
    "tune",
    "tune_attention",
    "tune_precision",
    "write_text",
]

__version__: str

@final
class Tensor(OpMethods, TensorMethods):
    """A value of a lazy graph. Nothing is computed until the graph is compiled and called.

    Tensors are immutable and may be shared by any number of graphs. They compare and hash by identity of
    the node, never element by element; `x.equal(y)` compares elements.
    """

    __array_priority__: float
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """NumPy's functions of elements build the op that computes them; what has none is a TypeError."""
    def __array_function__(self, function: Any, types: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """So do some of its functions of whole arrays."""
    @property
    def shape(self) -> tuple[int, ...]:
        """Extents, outermost axis first."""
    @property
    def ndim(self) -> int:
        """The number of axes."""
    @property
    def size(self) -> int:
        """The number of elements."""
    @property
    def dtype(self) -> str:
        """The element type in the graph: `fp16`, `uint8` or `bool`."""
    @property
    def op(self) -> str:
        """The name of the op that makes it."""
    def __new__(
        cls,
        shape: Sequence[int],
        op: str,
        srcs: Sequence[Tensor] = (),
        attrs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """The node of this op, as its own function or method would make it.

        `shape` must be that of the result. `attrs` are the op's, with constant weights under their names: what
        `op`, `srcs` and `attrs` of a tensor show makes an equal one.
        """
    @property
    def srcs(self) -> tuple[Tensor, ...]:
        """The tensors it is made from, without the constants that are its weights."""
    @property
    def attrs(self) -> Mapping[str, Any]:
        """The op's attributes, and its constant weights under their names, read-only.

        A constant has one, `value`: its contents. Those of an input are a dictionary that lives as long as the
        input, for notes of your own.
        """
    @property
    def T(self) -> Tensor:
        """The axes in reverse order."""
    def _repr_html_(self) -> str:
        """What notebooks show: the node, and those before it, last first."""
    def __getitem__(self, index: Any, /) -> Tensor:
        """A window: integers, slices with any step, an ellipsis, and None for a new axis."""
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """A constant's contents. What is not computed yet has no array: TypeError says how to compute it."""
    def __iter__(self) -> NoReturn: ...
    def __bool__(self) -> bool: ...
    def __len__(self) -> int: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool:
        """Whether both are the same node."""
    def __ne__(self, other: object, /) -> bool: ...
    def __gt__(self, other: Tensor | ArrayLike, /) -> Tensor:
        """Whether `x > other`, for each element; for `where`, `select` and `astype`. So do the other comparisons."""
    def __ge__(self, other: Tensor | ArrayLike, /) -> Tensor: ...
    def __lt__(self, other: Tensor | ArrayLike, /) -> Tensor: ...
    def __le__(self, other: Tensor | ArrayLike, /) -> Tensor: ...
    def __neg__(self) -> Tensor: ...
    def __pos__(self) -> Tensor: ...
    def __abs__(self) -> Tensor: ...
    def __add__(self, other: Tensor | ArrayLike, /) -> Tensor: ...
    def __radd__(self, other: ArrayLike, /) -> Tensor: ...
    def __sub__(self, other: Tensor | ArrayLike, /) -> Tensor: ...
    def __rsub__(self, other: ArrayLike, /) -> Tensor: ...
    def __mul__(self, other: Tensor | ArrayLike, /) -> Tensor:
        """With a Python number, one op; with anything else, an element-by-element product."""
    def __rmul__(self, other: ArrayLike, /) -> Tensor: ...
    def __truediv__(self, other: Tensor | ArrayLike, /) -> Tensor: ...
    def __rtruediv__(self, other: ArrayLike, /) -> Tensor: ...
    def __pow__(self, other: Tensor | ArrayLike, modulo: None = None, /) -> Tensor: ...
    def __rpow__(self, other: ArrayLike, modulo: None = None, /) -> Tensor: ...
    def __matmul__(self, other: Tensor | ArrayLike, /) -> Tensor:
        """With a tensor, the product of two values; with a matrix `[K, N]`, a product with a weight."""
    def __rmatmul__(self, other: ArrayLike, /) -> Tensor: ...

@final
class State(Tensor):
    """A tensor whose value a device keeps from run to run.

    Graphs read it like any tensor; `compile(out, carry={state: next})` makes a run change it. Every model that reads
    or changes it shares its memory. It is made by `af.state`.
    """

    @property
    def device(self) -> str:
        """The device that keeps it."""
    @property
    def name(self) -> str:
        """Its name; empty where it has none."""
    def numpy(self) -> NDArray[np.float32]:
        """What it holds, as a float32 array."""
    def set(self, values: ArrayLike) -> None:
        """Gives it other values: an array of its shape, or a number for all."""
    def _set(self, values: Any) -> None: ...
    def view(self) -> NDArray[np.float16]:
        """A writable float16 array over its own memory. From then on its memory stays where it is, and runs that change it
        copy what becomes of it there.
        """

class Model:
    """A compiled graph, ready to be called.

    Call it with one array per input, in the order in which the inputs were made, or by name; it returns float32
    arrays.
    Calls from several threads take turns, and other Python threads run meanwhile.
    """

    def _call(self, arrays: tuple[Any, ...], named: dict[Any, Any]) -> Any: ...
    def __call__(self, /, *arrays: Any, **named: Any) -> Any:
        """One float32 array; a tuple of them when a sequence was compiled, a dict when a dict was.

        Arrays are anything that NumPy takes. Inputs that have names are also fed by them: `model(image=array)`.

        When a node makes an infinity or NaN out of finite numbers, on the host, a `PrecisionWarning` says so once; see
        `overflows`. Ctrl-C ends a long call. Raises ValueError for a wrong number of arrays or a wrong shape, TypeError for real numbers into a
        `uint8` input.
        """
    def profile(self, /, *arrays: Any, calls: int = 20, **named: Any) -> Profile:
        """Where the time goes, as medians of `calls` calls on these arrays, or on what was fed last."""
    def diagnose(
        self,
        /,
        *arrays: Any,
        target: str | None = None,
        numerics: str | None = None,
        tolerance: float = 1e-2,
        **named: Any,
    ) -> Diagnosis:
        """Computes every node twice, in half precision as a chip of this family would, and in double precision."""
    def diagnose_all_chips(self, /, *arrays: Any, tolerance: float = 1e-2, **named: Any) -> AllChips:
        """Diagnoses the model for every family of chips, and estimates its time on every chip."""
    def diff_numerics(self, /, *arrays: Any, **named: Any) -> Departures:
        """Says where settings of the arithmetic part: the first node whose bits are others, how far, and on which chips."""
    def _placement(self) -> list[tuple[str, list[str]]]: ...
    def placement(self) -> list[Placement]:
        """Where each of the model's programs runs, and how that is known."""
    def submit(self, /, *arrays: Any, **named: Any) -> Submitted:
        """Begins what `model(...)` does and comes back at once; `.result()` or `await` gives the results."""
    def _save(self, path: str) -> None: ...
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the compiled program as one file, which `load_model` and the command line read."""
    def execute(self) -> None:
        """Runs once with what the ports hold; see `input_view` and `output_view`."""
    def input_view(self, name: Tensor | int | str | None = None) -> NDArray[np.float16]:
        """A writable float16 array over an input's own memory, to be filled before `execute`.

        `name` is the input's tensor, its number or its name in the program; with one input it may be left
        out. Do not write while the model runs in another thread.
        """
    def output_view(self, index: int | str | None = None) -> NDArray[np.float16]:
        """A read-only float16 array over an output's own memory: what the last run left there.

        `index` is the output's number, or its name where results have names; by default the first.
        """
    def overflows(self) -> list[dict[str, Any]]:
        """Nodes that have made infinities or NaN out of finite numbers so far: `op`, `at`, `values` and `calls`.

        `at` is the line that built the node, `values` how many there were in the first call in which it did. The op
        is that of the compiled program. Where something infinite was fed, only elementwise ops are looked into.
        """
    def weight_report(self) -> list[dict[str, Any]]:
        """How each weight is stored that may be encoded, where `compile` was asked to `compress`: `op` and the line `at`
        which it was built, `shape`, `encoding`, whether scales of its rows stand behind the op (`scaled`), `bytes` and
        `dense_bytes` (in half precision), the relative `error`, the `calibrated` error of what the op computes (None where
        nothing was calibrated), and `why` it is not in the form that was asked for ("" if it is).
        """
    def explain(self) -> Explanation:
        """Why the program is what it is: the rules that fired or refused, the ways there were, its weights and cuts."""
    def state(self) -> dict[str, NDArray[np.float32]]:
        """What the state holds that the model reads or changes, as float32 arrays by name, or by its number where it has
        none.
        """
    def restore(self, values: Mapping[str, Any]) -> None:
        """Gives all state these values, as `state()` returned them: all of it or, where something does not fit, none."""
    def save_state(self, path: str | PathLike[str], /) -> None:
        """Writes all state that the model reads or changes to a safetensors file, under its names.

        The file is replaced as a whole: a reader finds the old state or the new one.
        """
    def load_state(self, path: str | PathLike[str], /) -> None:
        """Gives all state what `save_state` wrote: all of it or, where the file is not one of this model's state, none."""
    def copied(self) -> int:
        """Bytes that runs have copied so far, beside what ops compute: none for state, unless an array looks at its
        memory.
        """
    def _restore(self, values: dict[str, Any]) -> None: ...
    def _save_state(self, path: str) -> None: ...
    def _load_state(self, path: str) -> None: ...
    def _share(self, output: int, input: int) -> None: ...
    def _set_input(self, index: int, array: Any) -> None: ...
    def _read_output(self, index: int) -> NDArray[np.float32]: ...
    def _output_ports(self) -> list[str]: ...
    def __deepcopy__(self, memo: object, /) -> Model:
        """A model with the same program, and memory and state of its own; weights are shared."""
    def release(self) -> None:
        """Frees the program and its memory, but for ports that views still look at."""
    def describe(self) -> str:
        """The plan, and the steps and memory it runs with, as text."""
    @property
    def n_ops(self) -> int:
        """The number of ops as written; inputs and weights do not count."""
    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
    @property
    def target(self) -> str:
        """The chip it is compiled for."""
    @property
    def numerics(self) -> str:
        """Which arithmetic the host computes with."""
    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, in the order of arguments: their own, or those in the program."""
    @property
    def output_names(self) -> list[str]:
        """Names of the results, if they were compiled under names."""
    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the inputs, in the order of arguments."""
    @property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the results."""

@final
class SegmentedModel(Model):
    """A model whose graph is cut at native layers, which are programs of their own.

    It is called like any model; values pass between the parts in half precision.
    """

    @property
    def n_netplist(self) -> int:
        """The number of native layers."""
    @property
    def n_sdpa(self) -> int:
        """The number of native layers, under the name it had when attention was the only one."""

@final
class Encoder:
    """A pretrained sentence encoder: texts in, vectors out.

    Programs are compiled per length, when a text first needs one. Calls from several threads take turns,
    and other Python threads run meanwhile.
    """

    def _call(self, texts: Any, normalize: bool, windows: bool) -> NDArray[np.float32]: ...
    def __call__(
        self, texts: str | Sequence[str], normalize: bool = True, long: str = "cut"
    ) -> NDArray[np.float32]:
        """One row per text, of unit length when `normalize`. A single text gives one row."""
    def _batches(self, texts: Any) -> str: ...
    def batches(self, texts: str | Sequence[str]) -> str:
        """Which texts would run together, through programs for how many texts of which length, and why."""
    def tokens(self, texts: str | Sequence[str]) -> list[list[int]]:
        """The numbers of each text's tokens, with special ones, cut to `max_seq_length`."""
    def _conventions(self) -> tuple[dict[str, str], str | None, str | None, bool]: ...
    def weight_report(self) -> list[dict[str, Any]]:
        """How each weight of the layers is stored, as `Model.weight_report` says it; of those that `load` was told to
        `compress` or `calibrate`.
        """
    @property
    def dim(self) -> int:
        """The length of the vectors."""
    @property
    def max_seq_length(self) -> int:
        """The most tokens of a text, special ones included; the rest is cut off."""
    @property
    def pooling(self) -> str:
        """How token states become one vector: `mean`, `cls` or `max`."""
    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
    @property
    def target(self) -> str:
        """The chip it is compiled for."""

def load(
    name: str,
    int8: bool,
    pooling: str | None,
    *,
    target: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
    offline: bool = False,
    sums: Sequence[tuple[str, int, int]] | None = None,
    compress: tuple[str, float, int] | None = None,
    calibrate: Sequence[str] | None = None,
    max_seq_length: int | None = None,
) -> Encoder:
    """Loads a sentence encoder by its directory or hub id.

    `sums` are names, lengths and checksums of the files that it must be loaded from.
    """

@final
class Reranker:
    """A pretrained reranker: pairs of texts in, scores out."""

    def predict(self, first: Sequence[str], second: Sequence[str]) -> NDArray[np.float32]:
        """The scores of each pair, a row of them with one for each label."""
    @property
    def labels(self) -> int:
        """How many scores a pair gets."""
    @property
    def max_length(self) -> int:
        """The most tokens of a pair, special ones included."""
    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
    @property
    def target(self) -> str:
        """The chip it is compiled for."""

@final
class Diffusion:
    """A pretrained model that draws."""

    def _unet(self, latents: NDArray[np.float32], time: float, states: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def _vae(self, latents: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def _text(self, texts: str | Sequence[str]) -> NDArray[np.float32]: ...
    def _draw(self, asked: Mapping[str, Any], progress: Callable[[int, int], object] | None) -> NDArray[np.uint8]: ...
    @property
    def latents(self) -> tuple[int, int, int]:
        """Channels of latents, and rows and columns that the model is trained with."""
    @property
    def factor(self) -> int:
        """Rows and columns of the picture for each of the latents."""
    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
    @property
    def target(self) -> str:
        """The chip it is compiled for."""

def load_diffusion(
    path: str,
    target: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
    compress: tuple[str, float, int] | None = None,
    norms: str | None = None,
) -> Diffusion:
    """Loads a pipeline by its directory."""

@final
class Vision:
    """A pretrained network that looks at pictures."""

    def _run(self, values: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def _classify(self, given: Sequence[Any], most: int) -> list[list[tuple[int, str, float]]]: ...
    def _logits(self, given: Sequence[Any]) -> NDArray[np.float32]: ...
    def _features(self, given: Sequence[Any]) -> NDArray[np.float32]: ...
    def _prepare(self, given: Any) -> NDArray[np.uint8]: ...
    def _looks(self, given: Any) -> NDArray[np.float32]: ...
    def _heat_map(self, given: Any, path: str | PathLike[str] | None) -> NDArray[np.uint8]: ...
    @property
    def n_ops(self) -> int:
        """How many nodes the program for one picture has."""
    @property
    def network(self) -> str:
        """Which network it is, such as `ResNet-18`."""
    @property
    def labels(self) -> list[str]:
        """What the classes are called; empty where that is not known."""
    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of what it takes for one picture, `(3, H, W)`."""
    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
    @property
    def target(self) -> str:
        """The chip it is compiled for."""

def load_vision(
    name: str,
    target: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
    offline: bool = False,
    compress: tuple[str, float, int] | None = None,
    sums: Sequence[tuple[str, int, int]] | None = None,
) -> Vision:
    """Loads a network by a file of weights, a directory or a hub id."""

@final
class SearchIndex:
    """An index, and what makes vectors of what is looked for."""

    def _search(self, text: str | None, given: Any, top: int, quantized: bool) -> list[tuple[float, Path, int, str]]: ...
    def _vectors(self) -> NDArray[np.float32]: ...
    @property
    def path(self) -> Path:
        """The file."""
    @property
    def kind(self) -> str:
        """`texts` or `pictures`."""
    @property
    def model(self) -> str:
        """The directory or hub id of its model."""
    @property
    def roots(self) -> list[Path]:
        """Folders and files that were looked through."""
    @property
    def endings(self) -> list[str]:
        """Endings of the files that are taken from folders."""
    @property
    def passage(self) -> int:
        """The most bytes of a passage."""
    @property
    def files(self) -> int:
        """How many files it has."""
    def __len__(self) -> int: ...

def open_index(
    path: str,
    model: str | None = None,
    target: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
    offline: bool = False,
) -> SearchIndex:
    """Opens an index."""

def build_index(
    path: str,
    model: str,
    pictures: bool,
    roots: Sequence[str],
    endings: Sequence[str],
    passage: int,
    update: bool,
    target: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
    offline: bool = False,
) -> tuple[int, int, int, int, int, list[tuple[Path, str]]]:
    """Makes an index, or brings one up to date."""

@final
class Clip:
    """A pretrained model that compares pictures with texts."""

    def _pictures(self, given: Sequence[Any]) -> NDArray[np.float32]: ...
    def _run(self, values: NDArray[np.float32]) -> NDArray[np.float32]: ...
    def _texts(self, given: Sequence[str]) -> NDArray[np.float32]: ...
    def _looks(self, given: Any) -> NDArray[np.float32]: ...
    def _heat_map(self, given: Any, path: str | PathLike[str] | None) -> NDArray[np.uint8]: ...
    def _judge(self, vectors: NDArray[np.float32], labels: Sequence[str]) -> list[list[tuple[str, float]]]: ...
    @property
    def n_ops(self) -> int:
        """How many nodes the program for one picture has."""
    @property
    def network(self) -> str:
        """Which model it is, such as `CLIP-12x768/32`."""
    @property
    def scale(self) -> tuple[float, float]:
        """What cosines are multiplied with, and what is added to them."""
    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The shape of what it takes for one picture, `(3, H, W)`."""
    @property
    def device(self) -> str:
        """The device it runs on: `host`, `ane` or `ane (stand-in)`."""
    @property
    def target(self) -> str:
        """The chip it is compiled for."""

def load_clip(
    name: str,
    target: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
    offline: bool = False,
    compress: tuple[str, float, int] | None = None,
    sums: Sequence[tuple[str, int, int]] | None = None,
) -> Clip:
    """Loads a model that compares pictures with texts by a directory or a hub id."""

def load_reranker(
    name: str,
    int8: bool,
    max_length: int | None = None,
    target: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
    offline: bool = False,
    sums: Sequence[tuple[str, int, int]] | None = None,
) -> Reranker:
    """Loads a reranker by its directory or hub id."""

def attention(
    x: Tensor,
    context: Tensor | None,
    projections: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    n_heads: int,
    parts: int,
    mask: Tensor | None = None,
) -> Tensor:
    """Multi-head attention of `x` to itself, or to `context`, with the queries in `parts` parts."""

def attention_tiles(queries: int) -> int:
    """In how many parts attention takes its queries when nothing was measured."""

def cuts_cross_attention(queries: int, keys: int) -> bool:
    """Whether attention to a context takes its queries in parts at all."""

def reduce_sum_to_matmul(x: Tensor, only: int | None = None) -> Tensor:
    """Sums over one axis as products with ones: all, or the one at a place of the graph."""

def sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float | None = None,
    causal: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention of given queries, keys and values."""

def geglu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`value * gelu(gate)`, where `x @ weight^T + bias` is `value` and `gate` side by side."""

def apply(name: str, inputs: Sequence[Tensor], attrs: Mapping[str, object] | None = None) -> Tensor:
    """The result of the op called `name`, checked at once."""

def input(shape: Sequence[int] | int, dtype: str, max_abs: float | None = None, name: str | None = None) -> Tensor:
    """A value that is fed at run time."""

def state(
    shape: Sequence[int] | int,
    name: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
) -> State:
    """A state of zeros on a device."""

def constant(array: object, weight: str | None = None) -> Tensor:
    """A value baked into the program, copied from an array.

    With `weight`, which names the place in messages, the array must be real.
    """

def array(object: object, place: str = "the array", dtype: str | None = None) -> NDArray[Any]:
    """`numpy.asarray(object)`, or `numpy.from_dlpack(object)` of what NumPy knows by DLPack only.

    Masked arrays are refused. `place` names it in messages; `dtype` is what its elements become.
    """

def save_graph(out: Any, path: str) -> None:
    """Writes the graph behind `out`, with its constants in full."""

def load_graph(path: str) -> list[Tensor]:
    """The results of a graph that was written so."""

def load_model(path: str, device: str | None, host: Mapping[str, Any]) -> Model:
    """The model that `Model.save` or a compile into a folder wrote."""

def cache_limit(text: str | None) -> int:
    """The most bytes that programs in the cache may take, of a text such as `4G`, or by default."""

def finish() -> None:
    """Waits for interrupted work that asks for the interpreter; registered with `atexit`."""

def constant_values(out: Any, target: str | None, numerics: str | None) -> list[NDArray[np.float32]]:
    """Results of a graph without inputs, by the scalar definition of every op in half precision."""

def triangle(size: int) -> Tensor:
    """A square of ones on and below its diagonal, with a column for every element of an axis that `cumsum` sums."""

def gather(x: Tensor, indices: Sequence[int], axis: int) -> Tensor:
    """The elements at static places along one axis."""

def compile(
    out: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    *,
    native: bool = False,
    target: str | None = None,
    device: str | None = None,
    host: Mapping[str, Any] | None = None,
    norms: str | None = None,
    compress: tuple[str, float, int] | None = None,
    fold_scalars: bool = False,
    system: str | None = None,
    most_bytes: int | None = None,
    choose: bool = False,
    carry: Sequence[tuple[Tensor, Tensor]] | None = None,
    build_dir: str | None = None,
    cache: tuple[str, int] | None = None,
    return_dict: bool | None = None,
    calibrate: Sequence[Sequence[Any]] | None = None,
) -> Model:
    """Compiles what one tensor, or several, need, and loads it into a device."""

def devices(host: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """Each device's name, whether it is here, and what it is or why not; the host as these words say."""

def truth(text: str) -> bool:
    """Whether a variable says yes or no, as the command line reads it."""

def max_threads() -> int:
    """The most threads that a model may run on."""

def check_word(option: str, word: str) -> None:
    """An error for a word that `target`, `device`, `numerics`, `sums` or `isa` does not take."""

def set_threads(threads: int) -> None:
    """Sets the number of threads that the host device runs on. Only before the first program is loaded."""

def gradients(
    y: Tensor, dy: Tensor, wrt: list[Tensor], stop: list[Tensor], rules: dict[str, Callable[[Tensor, Tensor], Any]]
) -> tuple[list[Tensor], list[int]]:
    """The cotangents of tensors, given that of `y`, on a walk that goes no further than `stop`; and which of them `y` does not
    depend on. `rules` are functions of a node and its cotangent, by the names of ops."""

def vjp(node: Tensor, dy: Tensor) -> list[Tensor | None]:
    """What an op's own rule gives its sources; `None` where there is no gradient."""

def parameter(shape: list[int], name: str | None = None) -> Tensor:
    """A leaf that is trained."""

def adam_step(of: list[Tensor], rate: Tensor, betas: list[float], eps: float) -> list[Tensor]:
    """Adam's step as graph: new weight, first and second moment."""

class Loss:
    """What a network is trained to make small: a tensor of one element, or a cross entropy."""

    def __init__(self, y: Tensor, target: Tensor | None = None) -> None:
        """A tensor alone, or logits and targets."""

    @property
    def value(self) -> Tensor:
        """The loss."""

    def seed(self, scale: float) -> tuple[Tensor, Tensor]:
        """Where the walk back begins, and with which cotangent."""

class Noise:
    """Random numbers inside programs."""

    def __init__(self, seed: int | None = None) -> None: ...
    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Zeros where a number is below `rate`, and `x / (1 - rate)` elsewhere."""

    def uniform(self, shape: list[int]) -> Tensor:
        """Numbers that are uniform in [0, 1), other ones in every step and for every call."""

class Training:
    """A network in training on a device: what `af.Trainer` is made of."""

    def __init__(
        self,
        loss: Loss,
        parameters: list[tuple[Tensor, str, Any, bool]],
        rules: dict[str, Callable[[Tensor, Tensor], Any]],
        noise: Noise | None = None,
        target: str | None = None,
        device: str | None = None,
        host: dict[str, Any] | None = None,
        **words: Any,
    ) -> None: ...
    def step(self, batch: list[tuple[Tensor, Any]]) -> dict[str, Any]:
        """Runs one batch, arrays by their leaves, and says what came of it."""

    def gradients(self, batch: list[tuple[Tensor, Any]]) -> tuple[float, list[NDArray[Any]]]:
        """The loss and the gradients of one batch, times the scale: in half precision, or in single where the host keeps weights."""

    def apply(self, gradients: list[Any]) -> dict[str, Any]:
        """Makes a step along averaged gradients."""

    def pass_(self, batches: int) -> None:
        """Goes on with dropout as if so many batches had been taken."""

    def profile(self, calls: int) -> tuple[str, str, str]:
        """What `Trainer.profile` is made of: a table, a trace as JSON and a picture."""

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """All weights, by name, with all their digits."""

    def set_weight(self, name: str, value: Any) -> None:
        """Gives a parameter another value."""

    def evaluator(
        self, out: Tensor | Sequence[Tensor] | Mapping[str, Tensor], averaged: bool = False
    ) -> Model:
        """A model of `out` on the weights as they are, and as they become."""

    def save(self, path: str, notes: dict[str, str]) -> None:
        """Writes all that is kept, with notes, to a file."""

    def load(self, path: str, names: list[str], notes: dict[str, str], anew: bool = False) -> dict[str, str]:
        """Goes on from a file, if notes of it are these where both have them, and returns the notes of those names."""

    def inputs(self) -> list[int]:
        """The inputs of the loss, by `attrs["idx"]` of their tensors."""

    @property
    def lr(self) -> float:
        """The learning rate of the options."""

    def set_lr(self, lr: float) -> None:
        """Another learning rate from the next step on."""

    @property
    def updates(self) -> int:
        """How many updates there have been."""

    @property
    def place(self) -> list[int]:
        """Numbers of which every batch that is taken changes one."""

    @property
    def scale(self) -> float:
        """What the next gradients are multiplied with."""

    @property
    def unreached(self) -> list[str]:
        """Parameters that the loss does not depend on."""

class Events:
    """A file of metrics for TensorBoard."""

    def __init__(self, folder: str) -> None: ...
    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Adds a number to the curve `tag`."""

def average(workers: list[list[Any]]) -> list[NDArray[Any]]:
    """The mean of several workers' gradients."""

def ops() -> list[str]:
    """The name of every op, in the order of the list."""

def cases() -> list[dict[str, Any]]:
    """Every worked example of every op: what goes in, what the host engine makes of it, and the gradients."""

def catalog() -> list[tuple[str, dict[str, str]]]:
    """Every op's record in the catalog of MIL's ops, with its name."""

def catalog_column(chip: str) -> str:
    """The column of the catalog that a chip belongs to, by any of its names."""

def estimate(out: Tensor | Sequence[Tensor], int8: bool = False, target: str | None = None) -> float:
    """Microseconds that a graph may take by ANEForge's formulas, on an M5 Pro or on a named chip."""

def estimate_report(out: Tensor | Sequence[Tensor], int8: bool = False, target: str | None = None) -> str:
    """What a call of a graph may cost, as JSON, by what was measured of chips."""

def project_peak(arch: str) -> dict[str, float]:
    """A chip's ceiling."""

def estimate_provenance(target: str) -> dict[str, Any]:
    """Where a chip's estimate comes from."""

def precision_risk(out: Tensor | Sequence[Tensor]) -> dict[str, Any]:
    """Where a graph may lose precision."""

def feeds(out: Tensor | Sequence[Tensor] | Mapping[str, Tensor]) -> list[tuple[list[int], str]]:
    """Shapes and element types of a graph's inputs, in feed order."""

def tune(
    out: Tensor,
    inputs: Sequence[Any] | None,
    place: Mapping[str, Any],
    search: tuple[int, float, float, float],
    each: Callable[[str], object] | None,
) -> tuple[bool, bool, bool]:
    """Whether native layers are best kept, weights in bytes, and chains of scalars folded; `each` is called with a line about every way that is measured."""

def tune_precision(
    out: Tensor,
    inputs: Sequence[Any] | None,
    place: Mapping[str, Any],
    error: float | None,
    time: float | None,
    each: Callable[[str], object] | None,
) -> tuple[Tensor, dict[str, Any]]:
    """The graph whose sums are written best, and a report of all that were measured."""

_Extents: TypeAlias = tuple[int, int, int, int]

def known_attention(extents: _Extents, folder: PathLike[str]) -> int | None:
    """The number of parts that was measured for attention of this shape and kept in `folder`."""

def keep_attention(extents: _Extents, parts: int, folder: PathLike[str]) -> None:
    """Keeps a number of parts in `folder`."""

def tune_attention(extents: _Extents, candidates: Sequence[int], place: Mapping[str, Any]) -> int:
    """The candidate with the least median time."""

_Halves: TypeAlias = tuple[Tensor, Tensor]

def profile(model: Model, calls: int) -> tuple[str, str, str]:
    """A table, a trace as JSON and a picture of where the time of a call goes."""

def engine(
    *, library: str | None, folder: Path, worker: list[str] | None, isolation: str, backoff: float
) -> None:
    """Says through which library the engine is reached, where programs are written for it, and how another process is started."""

def worker() -> None:
    """Runs programs on the engine for the process that has started this one."""

def diagnose(
    model: Model,
    arrays: tuple[Any, ...],
    named: dict[str, Any],
    target: str | None,
    numerics: str | None,
    tolerance: float,
) -> tuple[str, str, str]:
    """What `Model.diagnose` is made of: JSON, a table and a page."""

def explain(model: Model) -> tuple[str, str]:
    """What `Model.explain` is made of: JSON and text."""

def diagnose_all_chips(
    model: Model, arrays: tuple[Any, ...], named: dict[str, Any], tolerance: float
) -> tuple[str, str]:
    """What `Model.diagnose_all_chips` is made of: JSON and a table."""

def diff_numerics(model: Model, arrays: tuple[Any, ...], named: dict[str, Any]) -> tuple[str, str]:
    """What `Model.diff_numerics` is made of: JSON and a table."""

def write_text(path: str, text: str) -> None:
    """Writes a text; a regular file is replaced as a whole, links are followed."""

def paired_of(hi: Tensor) -> _Halves:
    """A pair from its high half, whose low half is zero."""

def paired_apply(name: str, a: _Halves, b: _Halves) -> _Halves:
    """The result of the operator called `name`: `add`, `sub` or `mul`."""

def paired_muls(a: _Halves, k: float) -> _Halves:
    """Both halves times a number."""

def paired_dot(a: _Halves, b: _Halves, axis: int) -> _Halves:
    """The sum of products along `axis`, which becomes the last and has size one."""

@final
class Breaker:
    """Whether the engine's compiler failed just now, by the times that it is given."""

    def check(self, now: float, seconds: float) -> tuple[str, float] | None:
        """What is wrong with a compile `now`, and how many seconds are left of a pause of `seconds`."""
    def failed(self, now: float) -> None:
        """A compile failed `now`."""
    def reset(self) -> None:
        """No compile failed of late."""

def chips() -> list[tuple[str, int, int | None, str, str]]:
    """Every chip: its name, its family's number, its cores, what it is, and what is doubtful about it."""

def chip_family(chip: str) -> int | None:
    """The number of the family that a chip belongs to, by any of its names."""

def chip_for(name: str) -> str | None:
    """The chip that programs for a chip, or for a family, of this name are compiled for."""

def representative(number: int) -> str | None:
    """The chip that programs for a whole family are compiled for."""

def default_target() -> str:
    """The chip that programs are compiled for where none is named."""

def family_of_brand(brand: str) -> tuple[int, int | None] | None:
    """The family of a Mac's processor by its brand, and its generation if that is newer than those known."""

def limits(number: int) -> list[tuple[str, int]]:
    """A family's limits by name."""

def op_status(op: str, number: int) -> str:
    """What becomes of an op on a family."""

def has_texture_engine(number: int) -> bool:
    """Whether a family has a texture unit."""

def native_streams(number: int) -> list[str]:
    """The forms of weights that a family reads as they are stored."""

def divergence(kind: str, a: int, b: int, begin: int | None, max_abs: float | None) -> str:
    """How results of an op of a kind differ between two families."""

def preflight(
    out: Tensor | Sequence[Tensor], number: int
) -> list[list[tuple[str, list[int], str, bool, str | None, str]]]:
    """What a family makes of each node: rows of those that are native, decomposed, rejected and too large."""

def notices(out: Tensor | Sequence[Tensor] | Mapping[str, Tensor], target: str | None) -> list[str]:
    """What there is to warn of when a graph is compiled for a chip."""

def cross_chip(out: Tensor | Sequence[Tensor], a: int, b: int) -> list[str]:
    """How results may differ between two families."""

def check_compiles(out: Tensor | Sequence[Tensor], target: str, int8: bool) -> None:
    """Compiles what `out` needs for a chip, and forgets it. Errors are those of `compile`."""
