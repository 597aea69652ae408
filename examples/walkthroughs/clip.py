# %% [markdown]
# # Pictures and words in one space
#
# CLIP and SigLIP make vectors of pictures and of texts that are compared with each other. Run it as a script, or cell by cell in an editor
# that knows `# %%`.
#
#     pip install scikit-image
#     python examples/walkthroughs/clip.py
#
# `MODEL` is a directory in the layout of transformers or a hub id; without it `openai/clip-vit-base-patch32` is downloaded.

# %%
import importlib.util
import os
from pathlib import Path

import aneforge as af
import numpy as np

clip = af.load_clip(os.environ.get("MODEL") or "openai/clip-vit-base-patch32")
print(clip)

# %% [markdown]
# ## Classes in words
#
# Nobody trained the model for these classes. Sentences do better than single words, as it has read captions.

# %%
package = importlib.util.find_spec("skimage")
assert package is not None and package.origin is not None, "pip install scikit-image"
data = Path(package.origin).parent / "data"
photographs = [data / "coffee.png", data / "chelsea.png", data / "rocket.jpg", data / "astronaut.png"]
labels = ["a photo of a cat", "a cup of coffee", "a rocket on its pad", "a portrait of a woman in a space suit"]
for photograph, found in zip(photographs, clip.classify(photographs, labels), strict=True):
    label, probability = found[0]
    print(f"{photograph.name:14} {100 * probability:5.1f} %  {label}")

# %% [markdown]
# ## A picture for a sentence
#
# The vectors can be kept. `aneforge index --pictures` keeps those of folders, and `aneforge search` asks them (docs/search.md).

# %%
pictures = clip.encode_image(photographs)
sentence = clip.encode_text("something to drink")
best = photographs[int((pictures @ sentence).argmax())]
print("something to drink:", best.name)

# %% [markdown]
# ## From cosines to probabilities
#
# The products are multiplied with a learned scale. CLIP then shares the whole among all labels, and SigLIP, which adds a bias, judges each
# by itself.

# %%
texts = clip.encode_text(labels)
logits = clip.logit_scale * pictures @ texts.T + clip.logit_bias
print(np.round(logits, 1))

# %% [markdown]
# ## Where it looks

# %%
print("heads, rows and columns:", clip.attention(photographs[1]).shape)
