"""The networks of Stable Diffusion 1.5 in full size beside diffusers: how far apart, and how long a forward takes.

    python benches/diffusion.py [DIR]        (needs diffusers, numpy, torch, transformers and this package)

DIR is a pipeline, whose weights are measured. Without it, weights are those that diffusers begins a training with, rounded to half
precision, which are written below a temporary folder (2.1 GB); a forward with them costs what any costs. diffusers computes in single
precision, on as many threads as this package. Prints a line for each network, with the shortest of three rounds in which the two take
turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aneforge as af
import numpy as np
import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

ROUNDS = 3


def tokenizer() -> CLIPTokenizer:
    """One with as many tokens as CLIP's, each of a byte or made up."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [f"<made up {at}>" for at in range(49408 - len(tokens) - 2)] + ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: at for at, token in enumerate(tokens)}, merges=[], model_max_length=77)


def generated(place: Path) -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
    blocks = ("UpDecoderBlock2D",) * 4
    vae = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, up_block_types=blocks,
                        down_block_types=("DownEncoderBlock2D",) * 4, sample_size=512)  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
    scheduler = PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1)
    made = StableDiffusionPipeline(vae, text, tokenizer(), unet, scheduler, None, None, requires_safety_checker=False)
    made.to(torch.float16).save_pretrained(place, variant="fp16")


def timed(calls: list[Callable[[], Any]]) -> list[float]:
    """The shortest time of each call, in seconds, of a few in which they take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, taken in zip(calls, times, strict=True):
            began = time.perf_counter()
            call()
            taken.append(time.perf_counter() - began)
    return [min(taken) for taken in times]


@torch.no_grad()
def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        variant = {}
        if len(sys.argv) < 2:
            generated(place)
            variant = {"variant": "fp16"}
        model = af.load_diffusion(place, device="host")
        print(f"{model!r}, {torch.get_num_threads()} threads")
        rng = np.random.default_rng(0)
        other = StableDiffusionPipeline.from_pretrained(place, torch_dtype=torch.float32, safety_checker=None, **variant)
        texts = ["", "a photo of a cat"]
        ids = other.tokenizer(texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        states = other.text_encoder(ids)[0].numpy()
        latents = rng.standard_normal((2, 4, 64, 64)).astype(np.float32)
        ours: dict[str, Callable[[], Any]] = {"text encoder, 2 texts": lambda: model.text(texts)}
        theirs: dict[str, Callable[[], Any]] = {"text encoder, 2 texts": lambda: other.text_encoder(ids)[0].numpy()}
        for n in (1, 2):
            x, s = latents[:n], states[:n]
            ours[f"U-Net, {n} x 64 x 64"] = lambda x=x, s=s: model.unet(x, 601, s)
            theirs[f"U-Net, {n} x 64 x 64"] = lambda x=x, s=s: other.unet(torch.from_numpy(x), torch.tensor(601), torch.from_numpy(s)).sample.numpy()
        ours["decoder, 1 x 64 x 64"] = lambda: model.vae(latents[:1])
        factor = other.vae.config.scaling_factor
        theirs["decoder, 1 x 64 x 64"] = lambda: other.vae.decode(torch.from_numpy(latents[:1]) / factor).sample.numpy()
        for name, call in ours.items():
            began = time.perf_counter()
            got = call()
            first = time.perf_counter() - began
            want = theirs[name]()
            own, other_time = timed([call, theirs[name]])
            error = np.linalg.norm(got - want) / np.linalg.norm(want)
            print(f"{name:24} error {error:.2e}  {own:8.3f} s (the first call {first:.1f} s)  torch {other_time:8.3f} s", flush=True)


if __name__ == "__main__":
    main()
