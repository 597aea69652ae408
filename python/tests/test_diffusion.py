"""Drawing with small pipelines of generated weights, beside what diffusers computes."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import zlib
from pathlib import Path
from typing import Any

import aneforge as af
import made
import numpy as np
import pytest
from fixture_random import normal
from safetensors.numpy import save_file

MODELS = made.MODELS


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As `weights` of tools/fixtures/diffusion.py."""
    values = normal(zlib.crc32(name.encode()), shape)
    if len(shape) > 1:
        return values * np.float32(1 / np.sqrt(np.prod(shape[1:])))
    return np.float32(0.1) * values + np.float32(name.endswith("weight"))


def pipeline(name: str, folder: Path) -> Path:
    place = folder / name
    shutil.copytree(MODELS / f"diffusion-{name}", place)
    for part in ("unet", "vae", "text_encoder"):
        shapes = json.loads((place / part / "weights.json").read_text())
        file = "model.safetensors" if part == "text_encoder" else "diffusion_pytorch_model.safetensors"
        save_file({key: weights(key, tuple(shape)) for key, shape in shapes.items()}, place / part / file)
    return place


def expected(name: str) -> dict[str, Any]:
    return json.loads((MODELS / f"diffusion-{name}" / "expected.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline("sd1", tmp_path_factory.mktemp("diffusion"))


@pytest.fixture(scope="module")
def model(place: Path) -> af.Diffusion:
    return af.load_diffusion(place, device="host")


def apart(got: np.ndarray, want: Any) -> float:
    want = np.asarray(want)
    return float(np.linalg.norm(got.reshape(-1) - want) / np.linalg.norm(want))


def test_parts_are_those_of_diffusers(model: af.Diffusion) -> None:
    want = expected("sd1")
    states = model.text(want["texts"])
    assert states.shape == (5, 16, 32) and states.dtype == np.float32
    assert apart(states, want["states"]) < 2e-3
    np.testing.assert_array_equal(model.text(want["texts"][0])[0], states[0])
    noise = model.unet(normal(11, (2, 4, 8, 8)), 601, normal(12, (2, 16, 32)))
    assert noise.shape == (2, 4, 8, 8) and apart(noise, want["noise"][0]) < 4e-3
    picture = model.vae(normal(13, (1, 4, 8, 8)) * np.float32(0.2))
    assert picture.shape == (1, 3, 16, 16) and apart(picture, want["picture"]) < 2.5e-3


def test_the_page_does_what_it_says(place: Path) -> None:
    page = made.ROOT / "docs" / "diffusion.md"
    scope: dict[str, Any] = {"FOLDER": place}
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.S | re.M)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), scope)
    assert scope["states"].shape == (2, 16, 32) and scope["noise"].shape == (2, 4, 8, 8) and scope["pixels"].shape == (2, 3, 16, 16)


def test_pictures_are_drawn(model: af.Diffusion) -> None:
    want, seen = expected("sd1"), []
    asked = want["drawn"][-1]
    picture = model(
        "a photo of a cat", "blurry", steps=asked["steps"], guidance=asked["guidance"], seed=asked["seed"], sampler=asked["sampler"],
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert picture.shape == (16, 16, 3) and picture.dtype == np.uint8
    assert np.abs(picture.reshape(-1).astype(float) - want["bytes"]).mean() < 1
    assert seen == [(done, 5) for done in range(6)]
    wide = model("a cat", steps=1, size=(24, 16), seed=np.int64(3))
    assert wide.shape == (16, 24, 3)
    np.testing.assert_array_equal(wide, model("a cat", steps=1, size=(24, 16), seed=3))


def test_what_a_progress_raises_ends_the_drawing(model: af.Diffusion) -> None:
    seen = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done == 2:
            raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        model("a cat", steps=5, progress=stop)
    assert seen == [0, 1, 2]
    assert model("a cat", steps=1).shape == (16, 16, 3)


def test_what_cannot_be_drawn_says_why(model: af.Diffusion, place: Path, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"prompt": 3}, TypeError, "Diffusion: prompt must be a str, got int"),
        ({"negative_prompt": None}, TypeError, "Diffusion: negative_prompt must be a str"),
        ({"steps": 0}, ValueError, "Diffusion: steps must be from 1"),
        ({"steps": 1.5}, TypeError, "steps"),
        ({"steps": 2000}, ValueError, "2000 steps; there must be from 1 to 1000"),
        ({"guidance": "x"}, TypeError, "Diffusion: guidance must be a number, got str"),
        ({"guidance": float("nan")}, ValueError, "guidance is NaN"),
        ({"seed": -1}, ValueError, "Diffusion: seed must be from 0"),
        ({"size": 512}, TypeError, "Diffusion: size must be"),
        ({"size": (18, 16)}, ValueError, "18 by 16 pixels; both must be multiples of 4"),
        ({"sampler": "heun"}, ValueError, "sampler must be one of 'ddim', 'euler', 'pndm', got 'heun'"),
        ({"sampler": 3}, TypeError, "Diffusion: sampler must be a str"),
        ({"eta": 0.5}, ValueError, "pndm adds no noise; use ddim"),
        ({"progress": 3}, TypeError, "Diffusion: progress must be a function"),
    ]
    for arguments, kind, message in wrong:
        with pytest.raises(kind, match=message):
            model(**{"prompt": "a cat", "steps": 1, **arguments})
    with pytest.raises(ValueError, match=r"unet: latents must be \[N, C, H, W\], got \[4, 8, 8\]"):
        model.unet(np.zeros((4, 8, 8)), 1, np.zeros((1, 16, 32)))
    with pytest.raises(ValueError, match="states must have"):
        model.unet(np.zeros((1, 4, 8, 8)), 1, np.zeros((1, 16, 31)))
    with pytest.raises(TypeError, match="unet: states must be numbers, got <U1"):
        model.unet(np.zeros((1, 4, 8, 8)), 1, "x")
    with pytest.raises(FileNotFoundError, match=r"has no model_index\.json"):
        af.load_diffusion(tmp_path)
    with pytest.raises(TypeError, match="load_diffusion: path must be a str or a path, got int"):
        af.load_diffusion(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="load_diffusion: norms must be 'auto'"):
        af.load_diffusion(place, norms="loud")


def test_a_model_says_what_it_is(model: af.Diffusion, place: Path) -> None:
    assert (model.device, model.target, model.size, model.latents_shape) == ("host", "h17s", (16, 16), (4, 8, 8))
    assert repr(model) == f"Diffusion({place}, 16 x 16 pixels, target h17s, device host)"
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(model)
    released = af.load_diffusion(place, device="host", target="h13", norms="robust")
    assert released.target == "h13" and released("a cat", steps=1).shape == (16, 16, 3)
    released.release()
    assert repr(released) == "Diffusion(released)"
    with pytest.raises(RuntimeError, match="was released"):
        released.text("a")
