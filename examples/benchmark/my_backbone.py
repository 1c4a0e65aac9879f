"""Benchmark a backbone of your own: what does explaining cost with it, and what got slower?

    python examples/benchmark/my_backbone.py [MODEL] [OUT] [SECONDS]

MODEL is a name as of `visxai bench --model`, by default the small transformer that comes along.
The command line does the same:

    visxai bench --model timm:resnet18 --methods grad_cam,occlusion --out mine.json
    visxai bench --model timm:resnet18 --methods grad_cam,occlusion --compare mine.json
"""

# %% [markdown]
# # What does explaining cost with my backbone?
#
# Each method runs in turn with the model's plain forward, so both see the same machine. The ratio
# to the forward is what travels between machines; seconds don't.

# %%
import sys
from pathlib import Path

from visxai.bench import Setup, run
from visxai.bench.report import compare, read, write

given = dict(enumerate([one for one in sys.argv[1:] if "ipykernel" not in sys.argv[0]]))
model, out = given.get(0, "digits_vit"), Path(given.get(1, "benchmark_out"))
out.mkdir(parents=True, exist_ok=True)
setup = Setup(
    model,
    ("attention_rollout", "legrad", "occlusion(window=12, stride=6)")
    if model == "digits_vit"
    else (),
    batches=(1, 8),
    accelerate=("off",),
    precision="fp32",
    seconds=float(given.get(2, 2)),
    memory=False,
)
measured = run(setup)

# %%
for case in measured["cases"]:
    ratio = case["of_forward"]["median"]
    print(
        f"{case['method'].partition('(')[0]:18} batch {case['batch']}: "
        f"{1000 * case['p50']:7.1f} ms, {case['images_per_second']:7.1f} images/s, "
        f"{ratio:6.2f} plain forwards"
    )

# %% [markdown]
# ## Two machines, or two versions
#
# A report is a JSON file: keep it, measure again elsewhere or after a change, and compare. What
# lies within both measurements' noise is called as fast.

# %%
write(measured, out / "first.json")
changes, cautions = compare(run(setup), read(out / "first.json"))
for line in [*cautions, *changes]:
    print(line)
