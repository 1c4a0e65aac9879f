"""A heat map of a cat or a dog: which pixels made the network say that?

    python examples/heatmap/heatmap.py [PHOTOGRAPH] [MODEL] [OUT]

MODEL is ResNet-50 with `torchvision:resnet50` (its weights are fetched once), or any other name
that `visxai models` speaks of; by default it is the EfficientNet-Lite0 that comes with
visxai, as the photograph does. Needs the extra `figures`.
"""

# %% [markdown]
# # A heat map of a photograph
#
# A classifier looks at a photograph and names what is in it. The heat map shows which pixels made
# it say so. The model here comes with visxai; `"torchvision:resnet50"` is ResNet-50, and
# `visxai.Engine("torchvision:resnet50", checkpoint="resnet50.pth")` takes its weights from your
# file.

# %%
import sys
from pathlib import Path

import visxai
from visxai.images.example import PHOTOGRAPH

given = dict(enumerate([one for one in sys.argv[1:] if "ipykernel" not in sys.argv[0]]))
photograph = given.get(0, PHOTOGRAPH)
engine = visxai.Engine(given.get(1, "efficientnet_lite0"))
out = Path(given.get(2, "heatmap_out"))
out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## What does the model see?
#
# `predict` gives every class's score; the best five are enough to read.

# %%
for label, score in engine.predict(photograph)[0].top(5):
    print(f"{score:.3f}  {label}")

# %% [markdown]
# ## Which pixels made it say that?
#
# Grad-CAM weighs the last layer's maps by how much each raises the score. The model saw only the
# framed square, so what lies outside is grey: unseen, not unimportant.

# %%
found = engine.explain(photograph, method="grad_cam")[0]
print(found.describe())
found

# %%
found.overlay(contours=True, boxes=1).save(out / "overlay.jpg")
found.figure().savefig(out / "figure.pdf")
heat = found.heatmap()  # float32 (height, width), NaN where the model never looked
print(heat.shape, found.regions(top=1)[0].box)

# %% [markdown]
# ## Is the map right?
#
# Hide what it points at, and look at the score. A map that points at the wrong place would leave
# the score as it was.

# %%
print(engine.redact(found))

# %% [markdown]
# ## Other methods say other things
#
# Grad-CAM shows coarse areas, integrated gradients single pixels, occlusion what the score loses
# when a square is hidden.

# %%
several = engine.compare(
    photograph, "grad_cam,integrated_gradients,occlusion(window=64, stride=32)"
)
figure = several.figure()
figure.savefig(out / "methods.png", dpi=200)
figure
