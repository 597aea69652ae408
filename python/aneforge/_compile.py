"""From a graph to a model on a device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from os import PathLike
from typing import Any, NamedTuple

from aneforge import _env, _judge, _native
from aneforge._blame import blame, some
from aneforge._native import Model, Tensor
from aneforge._operand import integer, within
from aneforge._operand import path as named
from aneforge._pacing import BREAKER


class Device(NamedTuple):
    """A place where models can run."""

    name: str
    """`host` or `ane`."""
    available: bool
    """Whether it is here."""
    description: str
    """What it is, or why it is not here."""


def devices() -> list[Device]:
    """Every device, whether it is available, and why not."""
    _env.set_threads()
    return [Device(*row) for row in _native.devices(_env.host())]


def compile(
    out: Tensor | Sequence[Tensor] | Mapping[str, Tensor],
    int8: bool = False,
    build_dir: str | PathLike[str] | None = None,
    opt: str | int | None = "routes",
    compress: str | None = None,
    compress_atol: float = 0.05,
    block_size: int = 32,
    validate: bool = False,
    target: str | None = None,
    *,
    device: str | None = None,
    numerics: str | None = None,
    sums: str | None = None,
    isa: str | None = None,
    threads: int | None = None,
    norms: str = "auto",
    fold_scalars: bool = False,
    system: str | None = None,
    most_bytes: int | None = None,
    carry: Mapping[Tensor, Tensor] | None = None,
    cache: bool | str | PathLike[str] | None = False,
    return_dict: bool | None = None,
    calibrate: Sequence[Any] | None = None,
) -> Model:
    """Compiles what `out` needs into one program, and loads it.

    Args:
        out: the result, or several; the model returns one array, or a tuple of them. A dict of results, as in
            `compile({"probs": y, "logits": z})`, names them; the model returns a dict of arrays.
        int8: the same as `compress="int8"`, unless `compress` is given.
        build_dir: a folder to write `model.mil`, `weights.bin` and `report.txt` to; it is made if missing. What
            an earlier compile left there is replaced as a whole, when everything new is complete; other files
            stay, and one that is in the way is an error.
        opt: `"routes"` writes native layers with fused ops where those compute the same, which saves the
            cut; 0 and None keep every layer. 1 takes the cheapest way by the cost model: layers kept or not, and, where it is
            estimated to be a tenth faster, weights in bytes (unless what they multiply is unbounded, or may be above 4094) and
            `fold_scalars`. 2 and `"max"` measure, with `tune`. `model.explain()` lists the ways.
        compress: the form in which weights of linear layers, convolutions and matrices per batch are stored: `"int8"`
            (bytes with a scale per row), `"int4"` (a table of 16 values, else `"int8"`), `"sparse"` (where half is
            zero), `"blockwise"` (bytes with a scale per block, of matrices), or `"auto"`, the first of sparse, 4-bit and
            bytes that fits and that the target reads as it is. Nothing takes more bytes than in half precision. What does not fit stays in half precision; `model.weight_report()` says why.
        compress_atol: the largest relative error of a 4-bit table or of blocks; most tables exceed the default.
        block_size: the columns that share a scale in blockwise weights; the next smaller that divides a row.
        validate: raise ValueError, instead of warning, when a sum may lose precision; see `precision_risk`.
        target: the chip to compile for, such as `"h13"` or `"M1"`; by default `ANEFORGE_TARGET`, else `"h17s"`. Its
            limits apply on every device, and so do warnings of what it computes in its own way.
        device: `"ane"` or `"host"`; by default `ANEFORGE_DEVICE`, else the engine on Apple silicon and the
            host elsewhere. Nothing falls back silently.
        numerics: the host's arithmetic: `"ane"`, what costs nothing of the target's published departures from IEEE 754;
            `"faithful"`, all of them, several times slower; `"ieee"`, none; or either of another family or chip, such as
            `"a14"`, `"M2"` or `"faithful-m1"`. By default `ANEFORGE_NUMERICS`, else `"ane"`.
        sums: the order in which products and convolutions sum on the host: `"fast"`, the fastest that this processor
            has with exact products, whose last bits may differ between classes of processors, or `"defined"`, to the
            same bits on every machine; by default `ANEFORGE_SUMS`, else `"fast"`.
        isa: the instruction set of the host's kernels, such as `"avx2"`; by default `ANEFORGE_ISA`, else the fastest
            that the processor has. What it cannot run is an error.
        threads: how many threads the model runs on, the caller's included; models with as many share them. By
            default as many as the machine runs at once, or `ANEFORGE_THREADS`.
        norms: how norms are written: `"plain"`, as mean, square and root in half precision; `"robust"`, so that
            every finite row comes out right, at about twice the number of ops; `"auto"` is plain but where
            declared bounds (`max_abs`) or constants say that it would go wrong.
        fold_scalars: make one of a chain of scalar factors, or of scalar terms, so that results are rounded once, and not to
            the same bits.
        system: the system whose compiler the program is for, which bounds the weights of one program: `"macos26"`, the default
            (2 GiB), or `"macos27"` (1 GiB, a requirement of ours without a public measurement). What has more becomes several
            programs, cut where the fewest bytes cross, with the same results.
        most_bytes: the most bytes of weights in one program, instead of the system's.
        carry: what runs make of state, as in `carry={cache: next_cache}` with `cache` of `af.state`: all state is read
            before any of it changes. With it, `out` may be empty.
        cache: True takes the program from the cache if it was compiled there before, from the same graph, weights,
            options and lines by the same version, and keeps it there if not: in `ANEFORGE_CACHE_DIR`, by default
            `.cache/aneforge` at home, where programs take at most `ANEFORGE_CACHE_LIMIT` bytes, by default 4 GiB; a
            folder names another place. `aneforge cache` on the command line lists, bounds and checks it.
        return_dict: False returns a tuple though results have names; True insists on names.
        calibrate: with `compress` or `int8`, inputs like those that the model is for, each one array, or a tuple of one
            for each input. The graph is run on them on the host, and int8 and 4-bit weights of linear layers and convolutions
            are chosen by what becomes of the products, with a smaller error than without. `compress_atol` is then
            the largest relative error of the products, which `weight_report` has as `calibrated`.

    Raises:
        ValueError: a wrong graph, an unknown name, or an unknown `opt`.
        NotImplementedError: the target cannot run an op.
        RuntimeError: the device is not available.
        OSError: `build_dir` cannot be written.
    """
    checked = {"build_dir": build_dir, "target": target, "device": device, "numerics": numerics, "norms": norms}
    hosted = {"sums": sums, "isa": isa, "threads": threads}
    answers = {"int8": int8, "validate": validate, "return_dict": return_dict, "fold_scalars": fold_scalars}
    bounds = {"system": system, "most_bytes": most_bytes}
    if why := blame("compile", compile, (out,), {**checked, **hosted, **answers, **bounds}):
        raise TypeError(why)
    carried = _carried(carry)
    if not carried:
        some("compile", out)
    folder = None if build_dir is None else named("compile: build_dir", build_dir, 'folder, which may be "."')
    kept = _cache(cache)
    if most_bytes is not None:
        most_bytes = within("compile: most_bytes", most_bytes, 1, 2**63 - 1)
    form = _form(int8, compress, compress_atol, block_size)
    sets = _sets(calibrate, form is not None, kept is not None)
    opt = opt.strip().lower() if isinstance(opt, str) else opt
    if form is not None and opt in (1, 2, "2", "max"):
        raise ValueError(f"compile: opt={opt!r} takes no compress; leave opt out, or give 0 to keep native layers")
    if opt in (2, "2", "max"):
        if carried:
            raise ValueError("compile: opt=2 measures graphs without state; leave opt out, or carry out")
        given = {**checked, **hosted, **bounds, "norms": norms if norms != "auto" else None, "cache": kept}
        given["fold_scalars"] = fold_scalars or None
        return _measured(out, validate, given)
    if opt not in ("routes", 0, 1, None):
        raise ValueError(f"compile: opt must be 'routes', 0, 1, 2 or 'max', got {opt!r}")
    _env.set_threads()
    chosen = device if device is not None else _env.device()
    chip = target if target is not None else _env.target()
    on_engine = _on_engine(chosen)
    _judge.signal(_all(out, carried), validate, on_engine, norms, chip)
    return _paced(
        on_engine,
        lambda: _native.compile(
            out,
            native=opt in (0, None),
            target=chip,
            device=chosen,
            host=_env.host(numerics, sums, isa, threads),
            norms=norms,
            compress=form,
            fold_scalars=fold_scalars,
            system=system,
            most_bytes=most_bytes,
            choose=opt == 1,
            carry=carried,
            build_dir=folder,
            cache=kept,
            return_dict=return_dict,
            calibrate=sets,
        ),
    )


def load_model(
    path: str | PathLike[str],
    *,
    device: str | None = None,
    numerics: str | None = None,
    sums: str | None = None,
    isa: str | None = None,
    threads: int | None = None,
) -> Model:
    """The model that `model.save` wrote, or `aneforge compile`, or `compile` into a `build_dir`.

    The file is mapped, checked as a whole, and its weights are used where they lie: do not write into it while the
    model is in use; to replace it, as `save` does, is fine. The model is the one that was compiled: its target, names,
    results and `weight_report` are kept. How it runs is said here, as to `compile`.

    Args:
        path: the file, or the folder.
        device: the device to run on; see `compile`.
        numerics: the host's arithmetic; see `compile`.
        sums: the order of the host's sums; see `compile`.
        isa: the instruction set of the host's kernels; see `compile`.
        threads: how many threads the model runs on; see `compile`.

    Raises:
        ValueError: the file is damaged, cut off, no compiled program, or one of another version; the message says
            which.
        OSError: it cannot be read.
        RuntimeError: the device is not available.
    """
    place = named("load_model: path", path)
    words = {"device": device, "numerics": numerics, "sums": sums, "isa": isa, "threads": threads}
    if why := blame("load_model", load_model, (path,), words):
        raise TypeError(why)
    _env.set_threads()
    chosen = device if device is not None else _env.device()
    host = _env.host(numerics, sums, isa, threads)
    return _paced(_on_engine(chosen), lambda: _native.load_model(place, chosen, host))


def _on_engine(chosen: str | None) -> bool:
    """Whether a model for this device runs on the engine."""
    return not _env.stands_in() and (chosen or "ane") == "ane" and any(d.name == "ane" and d.available for d in devices())


def _paced(on_engine: bool, load: Callable[[], Model]) -> Model:
    """What `load` gives, with rest for the engine's compiler after a failure."""
    if on_engine:
        BREAKER.before()
    try:
        model = load()
    except RuntimeError:
        if on_engine:
            BREAKER.failed()
        raise
    if on_engine:
        BREAKER.reset()
    return model


def _carried(carry: Mapping[Tensor, Tensor] | None) -> list[tuple[Tensor, Tensor]]:
    """Pairs of a state and what becomes of it."""
    if carry is None:
        return []
    if not isinstance(carry, Mapping):
        raise TypeError(f"compile: carry must be a dict of state and what becomes of it, got {type(carry).__name__}")
    for tensor in (one for pair in carry.items() for one in pair):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"compile: carry must be a dict of tensors by state, and has {type(tensor).__name__}")
    return list(carry.items())


def _all(
    out: Tensor | Sequence[Tensor] | Mapping[str, Tensor], carried: list[tuple[Tensor, Tensor]]
) -> Tensor | list[Tensor]:
    """Everything that a run computes."""
    if isinstance(out, Tensor):
        return [out, *(next for _, next in carried)] if carried else out
    return [*(out.values() if isinstance(out, Mapping) else out), *(next for _, next in carried)]
def _cache(cache: bool | str | PathLike[str] | None) -> tuple[str, int] | None:
    """The folder of the cache that is meant, if one is, and the most bytes in it."""
    if cache is False or cache is None:
        return None
    folder = str(_env.cache_dir()) if cache is True else named("compile: cache", cache, "folder, or True")
    return folder, _env.cache_limit()


def _form(
    int8: bool, compress: str | None, compress_atol: float, block_size: int
) -> tuple[str, float, int] | None:
    """The form of weights, the largest error and the block."""
    if compress is not None and not isinstance(compress, str):
        raise TypeError(f"compile: compress must be a word such as 'int8', got {type(compress).__name__}")
    if isinstance(compress_atol, bool) or not isinstance(compress_atol, Real):
        raise TypeError(f"compile: compress_atol must be a number, got {type(compress_atol).__name__}")
    if not compress_atol >= 0:
        raise ValueError(f"compile: compress_atol must be a number from 0 on, got {compress_atol}")
    block = integer("compile: block_size", block_size)
    if block < 1:
        raise ValueError(f"compile: block_size must be from 1 on, got {block}")
    name = compress if compress is not None else "int8" if int8 else None
    return None if name is None else (name, float(compress_atol), min(block, 2**31))


def _sets(calibrate: Sequence[Any] | None, compresses: bool, cached: bool) -> list[list[Any]] | None:
    """Inputs to calibrate with, as lists of arrays."""
    if calibrate is None:
        return None
    if not compresses:
        raise ValueError("compile: calibrate chooses weights in fewer bytes; say which, with compress or int8")
    if cached:
        raise ValueError("compile: the cache keeps no calibrated programs; leave cache out, and save the model instead")
    if isinstance(calibrate, (str, bytes, Mapping)) or not isinstance(calibrate, Iterable):
        kind = type(calibrate).__name__
        raise TypeError(f"compile: calibrate must be a list of arrays, or of tuples of arrays, got {kind}")
    sets = [list(item) if isinstance(item, tuple) else [item] for item in calibrate]
    if not sets:
        raise ValueError("compile: calibrate is empty; give at least one array, or leave it out")
    return sets


def _measured(
    out: Tensor | Sequence[Tensor] | Mapping[str, Tensor], validate: bool, given: Mapping[str, object]
) -> Model:
    """`compile` with `opt=2`."""
    from aneforge._tune import tune

    if not isinstance(out, Tensor):
        raise ValueError("compile: opt=2 measures one result; compile several with opt='routes'")
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"compile: opt=2 measures on the default device and takes no {name}")
    _judge.signal(out, validate, target=_env.target())
    return tune(out)
