# %% [markdown]
# # Pictures from texts
#
# Stable Diffusion as three programs and a loop. Run it as a script, or cell by cell in an editor that knows `# %%`.
#
#     MODEL=path/to/stable-diffusion-v1-5 python examples/walkthroughs/diffusion.py
#
# `MODEL` is a directory in the layout of diffusers; `STEPS` is how many steps are drawn, 20 where it is not set.

# %%
import os
import sys

import aneforge as af
import numpy as np
from PIL import Image

if "MODEL" not in os.environ:
    raise SystemExit("set MODEL to a directory in the layout of diffusers, with model_index.json")
model = af.load_diffusion(os.environ["MODEL"])
steps = int(os.environ.get("STEPS", "20"))
print(model)

# %% [markdown]
# ## A picture
#
# A seed is the noise that it begins with: the same one gives the same picture.


# %%
def told(done: int, all: int) -> None:
    print(f"\r{done} of {all} steps", end="", file=sys.stderr, flush=True)


picture = model("a lighthouse at dusk, oil on canvas", "blurry", steps=steps, seed=42, progress=told)
Image.fromarray(picture).save("lighthouse.png")
print("wrote lighthouse.png", picture.shape)

# %% [markdown]
# ## The parts by themselves
#
# The text encoder gives states of tokens. The U-Net says what of the latents is noise, at a time from 999 (all) to 0. The decoder makes a
# picture of latents.

# %%
states = model.text(["", "a lighthouse at dusk"])
latents = np.random.default_rng(0).standard_normal((2, *model.latents_shape)).astype(np.float32)
noise = model.unet(latents, 981, states)
change = np.linalg.norm(noise[1] - noise[0]) / np.linalg.norm(noise[0])
print(f"states {states.shape}, noise {noise.shape}")

# %% [markdown]
# ## Guidance
#
# What the prompt changes is multiplied: little is a free drawing, much sticks to the words. The difference is taken as pairs of halves,
# so that it loses nothing (docs/diffusion.md).

# %%
rows = [model("a lighthouse at dusk", steps=steps, seed=42, guidance=guidance) for guidance in (1.0, 4.0, 10.0)]
Image.fromarray(np.concatenate(rows, axis=1)).save("guidance.png")
print("wrote guidance.png: guidance 1, 4 and 10")

# %% [markdown]
# ## Samplers
#
# Another sampler takes other steps from the same noise.

# %%
samplers = {name: model("a lighthouse at dusk", steps=steps, seed=42, sampler=name) for name in ("ddim", "euler", "pndm")}
Image.fromarray(np.concatenate(list(samplers.values()), axis=1)).save("samplers.png")
print("wrote samplers.png:", ", ".join(samplers))
