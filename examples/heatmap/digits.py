"""The same for tiny pictures: handwritten digits of 8x8 pixels, and a transformer that reads them.

    python examples/heatmap/digits.py [OUT]

Needs the extras `figures` and `train` (scikit-learn, which brings the digits).
"""

# %% [markdown]
# # Heat maps of digits
#
# Networks for MNIST or CIFAR see pictures of 28 or 32 pixels. This one comes with visxai: a small
# vision transformer that says of each of ten digits whether it is somewhere on a canvas of 48x24.

# %%
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import visxai

arguments = [one for one in sys.argv[1:] if "ipykernel" not in sys.argv[0]]
out = Path(arguments[0] if arguments else "digits_out")
out.mkdir(parents=True, exist_ok=True)

pixels, labels = load_digits(return_X_y=True)
three, seven = (pixels[labels == digit][1].reshape(8, 8) / 16 for digit in (3, 7))
canvas = Image.new("L", (48, 24))
for left, digit in ((2, three), (26, seven)):
    drawn = Image.fromarray((255 * digit).astype(np.uint8))
    canvas.paste(drawn.resize((20, 20), Image.Resampling.BILINEAR), (left, 2))
picture = np.repeat(np.asarray(canvas)[..., None], 3, axis=2)

# %% [markdown]
# ## One picture, two answers
#
# The scores are independent of each other (sigmoid), so both digits can be there. `above=0.5`
# explains every class that the model believes in, from one forward.

# %%
engine = visxai.Engine("digits_vit")
found = engine.explain(picture, method="chefer", target="above=0.5")
for one in found:
    print(one.describe())

# %% [markdown]
# ## Where is each of them?
#
# The evidence for the three should lie on the left half, for the seven on the right. Most of it
# does: so small a network also looks at the other digit, to tell them apart.

# %%
for one in found:
    heat = np.nan_to_num(one.heatmap()).clip(min=0)
    print(f"{one.label}: {heat[:, :24].sum() / heat.sum():.0%} of the evidence on the left half")

# %%
figure = found.figure()
figure.savefig(out / "digits.png", dpi=200)
figure
