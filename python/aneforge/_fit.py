"""A training from the first batch to the last: progress, metrics, curves."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aneforge import _native
from aneforge._late import np
from aneforge._native import Tensor
from aneforge._operand import path as named
from aneforge._operand import within

if TYPE_CHECKING:
    from aneforge._trainer import Trainer

COLUMNS = ("step", "loss", "lr", "scale", "updated", "seconds")
_BLOCKS = "▁▂▃▄▅▆▇█"


class Writer(Protocol):
    """What takes metrics by name, as the `SummaryWriter` of PyTorch and tensorboardX does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any: ...


def batch_of(trainer: Trainer, given: Any, inputs: Sequence[Tensor]) -> dict[Tensor, Any]:
    """One batch as arrays by the inputs that they are for."""
    if isinstance(given, Mapping):
        for key in given:
            if not isinstance(key, Tensor):
                raise TypeError(f"fit: a batch is a dict of arrays by input, got the key {key!r}")
        if set(given) != set(inputs):
            raise ValueError(f"fit: a batch has arrays for {len(given)} inputs; each of the {len(inputs)} inputs needs one")
        return {leaf: _native.array(array, "fit: a batch") for leaf, array in given.items()}
    arrays = list(given) if isinstance(given, (tuple, list)) else [given]
    if len(arrays) != len(inputs):
        raise ValueError(f"fit: a batch has {len(arrays)} arrays for {len(inputs)} inputs; name them with inputs=")
    return {leaf: _native.array(array, "fit: a batch") for leaf, array in zip(inputs, arrays, strict=True)}


def among(where: str, inputs: Sequence[Tensor], ports: Sequence[Tensor]) -> list[Tensor]:
    """Inputs that are those of the loss, in any order."""
    for at, leaf in enumerate(inputs):
        if not isinstance(leaf, Tensor):
            raise TypeError(f"{where} must be Tensors, got {type(leaf).__name__} at {at}")
    if set(inputs) != set(ports) or len(inputs) != len(ports):
        shapes = ", ".join(str(list(leaf.shape)) for leaf in ports)
        raise ValueError(f"{where} must name each input of the loss once, those of shape {shapes}")
    return list(inputs)


def place(where: str, path: str | PathLike[str]) -> str:
    """A file that can be written, as far as that is known before: its folder is there."""
    name = named(where, path)
    if Path(name).is_dir():
        raise IsADirectoryError(f"{where}: {name} is a folder; name a file in it")
    if not Path(name).parent.is_dir():
        raise FileNotFoundError(f"{where}: there is no folder {Path(name).parent}")
    return name


class Progress:
    """One line about how far a training is, on standard error; drawn again where that is a terminal."""

    def __init__(self, total: int | None, shown: bool) -> None:
        self._total, self._shown, self._start, self._last = total, shown, time.perf_counter(), 0.0
        self._again = shown and sys.stderr.isatty()

    def tell(self, step: int, loss: float, done: int, void: int, *, last: bool = False) -> None:
        now = time.perf_counter()
        if not self._shown or not last and now - self._last < (0.1 if self._again else 5.0):
            return
        self._last = now
        rate = done / max(now - self._start, 1e-9)
        of = f"/{self._total}" if self._total is not None else ""
        line = f"step {step}{of}  loss {loss:.4g}  {f'{void} void  ' if void else ''}{rate:.0f} steps/s"
        end = "\n" if last or not self._again else ""
        print(f"\r\x1b[K{line}" if self._again else line, end=end, file=sys.stderr, flush=True)


def fit(
    trainer: Trainer,
    batches: Iterable[Any] | None,
    steps: int | None,
    inputs: Sequence[Tensor] | None,
    log: str | PathLike[str] | None,
    writer: Writer | None,
    checkpoint: str | PathLike[str] | None,
    every: int,
    progress: bool | None,
    tensorboard: str | PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """What `Trainer.fit` does."""
    if batches is None and trainer._dataset is None:
        raise ValueError("fit: there are no batches; give some, or call set_dataset before")
    if batches is None and steps is None:
        raise ValueError("fit: a data set has no end; say how many steps")
    if checkpoint is not None and not trainer.device_optimizer:
        raise ValueError("fit: checkpoint needs resident_state=True")
    every, steps = within("fit: every", every), None if steps is None else within("fit: steps", steps, 0)
    if batches is not None and (isinstance(batches, (str, bytes, Mapping, Tensor)) or not isinstance(batches, Iterable)):
        raise TypeError(f"fit: batches must be an iterable of tuples or dicts of arrays, got {type(batches).__name__}")
    if writer is not None and not hasattr(writer, "add_scalar"):
        raise TypeError(f"fit: writer must have add_scalar, got {type(writer).__name__}")
    log = None if log is None else place("fit: log", log)
    checkpoint = None if checkpoint is None else place("fit: checkpoint", checkpoint)
    board = None if tensorboard is None else _native.Events(fspath(named("fit: tensorboard", tensorboard, "folder")))
    writers: list[Writer] = [each for each in (writer, board) if each is not None]
    ports = trainer._ports() if inputs is None else among("fit: inputs", inputs, trainer._ports())
    shown = progress if progress is not None else sys.stderr.isatty()
    start, bar, done, void = time.perf_counter(), Progress(steps, shown), 0, 0
    source, rows = iter(batches) if batches is not None else None, trainer.history
    first, missing = len(rows), object()
    earlier = before(log, trainer._steps) if log is not None and trainer._loaded and not rows else []
    try:
        while steps is None or done < steps:
            if source is not None:
                given = next(source, missing)
                if given is missing:
                    break
                trainer.data.update(batch_of(trainer, given, ports))
            loss, report = advance(trainer, draw=source is None)
            done, void = done + 1, void + (report["void"] is not None)
            row = {
                "step": trainer._steps, "loss": loss, "lr": report.get("lr", trainer.lr),
                "scale": report.get("scale", trainer.scale), "updated": bool(report["updated"]),
                "seconds": round(time.perf_counter() - start, 6),
            }  # fmt: skip
            rows.append(row)
            for each in writers:
                for name in ("loss", "lr", "scale"):
                    each.add_scalar(f"train/{name}", row[name], row["step"])
            bar.tell(row["step"], row["loss"], done, void)
            if done % every == 0:
                keep(trainer, log, checkpoint, earlier)
    finally:
        # What was done is not lost, whatever ended it.
        if done:
            bar.tell(rows[-1]["step"], rows[-1]["loss"], done, void, last=True)
            keep(trainer, log, checkpoint, earlier)
    return rows[first:]


def advance(trainer: Trainer, draw: bool) -> tuple[float, dict[str, Any]]:
    """Makes the step of a batch, the next of the data set or that of `trainer.data`: the loss before it, and what came of it.

    A batch of which no step came is not taken, so that a checkpoint which is written then goes on with it.
    """
    dataset, made, steps = trainer._dataset, False, trainer._steps
    taken = dataset[2].done if dataset is not None else 0
    place = trainer._training.place if trainer.device_optimizer else None
    try:
        if draw:
            trainer._draw()
        trainer._dataset = None
        before = None if trainer.device_optimizer else trainer.loss()
        report = trainer.step()
        made = True
    finally:
        trainer._dataset = dataset
        # Ctrl-C is heard when the device is done, too, and then the step was made.
        if not made and place is not None:
            made = trainer._training.place != place
            trainer._steps = steps + made
        if dataset is not None and not made:
            dataset[2].seek(taken)
    return float(report["loss"] if before is None else before), report


def before(log: str, step: int) -> list[dict[str, str]]:
    """The rows of a file that an earlier run wrote, up to this step; none where it is another file."""
    try:
        with open(log, encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            rows = list(table) if tuple(table.fieldnames or ()) == COLUMNS else []
        return [row for row in rows if int(row["step"]) <= step and None not in row.values()]
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def keep(trainer: Trainer, log: str | None, checkpoint: str | None, earlier: Sequence[Mapping[str, Any]]) -> None:
    """Writes what is to be found after a run that was stopped."""
    if checkpoint is not None:
        trainer.save(checkpoint)
    if log is not None:
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows([*earlier, *trainer.history])
        _native.write_text(log, text.getvalue())


def spark(values: Sequence[float], width: int = 60) -> str:
    """Values as one line of blocks: the greatest is the tallest. What is not finite is a blank."""
    groups = np.array_split(np.asarray(values, float), min(width, max(len(values), 1)))
    means = np.array([group[np.isfinite(group)].mean() if np.isfinite(group).any() else np.nan for group in groups])
    if not np.isfinite(means).any():
        return " " * len(means)
    low, high = np.nanmin(means), np.nanmax(means)
    part = (means - low) / (high - low) if high > low else np.zeros_like(means)
    return "".join(" " if np.isnan(p) else _BLOCKS[min(int(p * len(_BLOCKS)), len(_BLOCKS) - 1)] for p in part)


def curve(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Losses by steps as an SVG, with their mean over a twentieth of the run."""
    if not rows:
        raise ValueError("curve: there are no losses yet; call fit before")
    loss = np.array([row["loss"] for row in rows], float)
    finite = loss[np.isfinite(loss)]
    if not finite.size:
        raise ValueError("curve: no loss is finite")
    window = max(len(loss) // 20, 1)
    filled = np.where(np.isfinite(loss), loss, finite.mean())
    smooth = np.convolve(np.pad(filled, (window - 1, 0), mode="edge"), np.ones(window) / window, mode="valid")
    low, high = float(finite.min()), float(finite.max())
    high = high if high > low else low + 1.0
    left, top, width, height = 70, 40, 680, 300

    def line(values: np.ndarray) -> str:
        xs = left + width * np.arange(len(values)) / max(len(values) - 1, 1)
        ys = top + height * (1 - (values - low) / (high - low))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True) if np.isfinite(y))

    marks = []
    for part in range(5):
        y, value = top + height * part / 4, high - (high - low) * part / 4
        marks.append(f'<line x1="{left}" y1="{y}" x2="{left + width}" y2="{y}" stroke="#8884"/>')
        marks.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{value:.3g}</text>')
        step = rows[0]["step"] + round((len(rows) - 1) * part / 4)
        x = left + width * part / 4
        marks.append(f'<text x="{x}" y="{top + height + 20}" text-anchor="middle">{step}</text>')
    escaped = title.replace("&", "&amp;").replace("<", "&lt;")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 780 390" font-family="sans-serif" font-size="12" '
        f'fill="#888">\n<title>{escaped}</title>\n<text x="{left}" y="24" font-size="15">{escaped}</text>\n'
        + "\n".join(marks)
        + f'\n<polyline fill="none" stroke="#4a90d966" points="{line(loss)}"/>\n'
        f'<polyline fill="none" stroke="#2f6fb5" stroke-width="2" points="{line(smooth)}"/>\n'
        f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">step</text>\n'
        f'<text x="{left + width}" y="24" text-anchor="end">loss, and its mean over {window} steps</text>\n</svg>\n'
    )


def write_curve(trainer: Trainer, path: str | PathLike[str]) -> None:
    """Writes the picture; the file is replaced as a whole."""
    _native.write_text(fspath(named("curve: path", path)), curve(trainer.history, f"Loss of {Path(fspath(path)).stem}"))
