"""A folder by the command line against the script that a pytorch-grad-cam user would write.

    python benchmarks/folder_peers.py [--images 300] [--rounds 3] [--write]

Both explain the same photographs with Grad-CAM on EfficientNet-Lite0, write an overlay each at the
original resolution, and start from nothing: the time is the whole process's. The script loads
timm's model, reads with OpenCV, runs batches of 16 and draws by `show_cam_on_image`; visxai
writes its rows of data too. The two take turns. Photographs are scikit-image's, turned, cut and
scaled to about 0.3 megapixels. Needs the extras peers and demo; results go to
benchmarks/results/folder_peers.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "folder_peers.json"
BAR = 3.5

PEER = """
import sys
from pathlib import Path
import cv2
import numpy as np
import timm
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

weights, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
out.mkdir(parents=True)
model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
given = torch.load(weights, weights_only=True)  # with names of its own, in the same order
values = [value for name, value in given.items() if "num_batches" not in name]
names = [name for name in model.state_dict() if "num_batches" not in name]
model.load_state_dict(dict(zip(names, values)), strict=False)
model.eval()
mean, std = np.float32([0.5] * 3), np.float32([0.5] * 3)
paths = sorted(source.glob("*.jpg"))
cam = GradCAM(model=model, target_layers=[model.bn2])
for start in range(0, len(paths), 16):
    images, inputs = [], []
    for path in paths[start : start + 16]:
        image = cv2.imread(str(path))[:, :, ::-1]
        side = min(image.shape[:2])
        scale = 256 / side
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        top, left = (small.shape[0] - 224) // 2, (small.shape[1] - 224) // 2
        crop = small[top : top + 224, left : left + 224]
        images.append(image)
        inputs.append((np.float32(crop) / 255 - mean) / std)
    x = torch.from_numpy(np.stack(inputs)).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        classes = model(x).argmax(1).tolist()
    maps = cam(input_tensor=x, targets=[ClassifierOutputTarget(one) for one in classes])
    for path, image, heat in zip(paths[start : start + 16], images, maps):
        size = image.shape[1], image.shape[0]
        drawn = show_cam_on_image(np.float32(image) / 255, cv2.resize(heat, size), use_rgb=True)
        cv2.imwrite(str(out / path.name), drawn[:, :, ::-1])
"""


def photographs(folder: Path, count: int) -> None:
    """Write different photographs as JPEG."""
    import numpy as np
    from PIL import Image
    from skimage import data

    given = [getattr(data, name)() for name in ("chelsea", "coffee", "astronaut", "rocket")]
    random = np.random.default_rng(0)
    for number in range(count):
        image = Image.fromarray(given[number % len(given)])
        image = image.rotate(float(random.uniform(-8, 8)), Image.Resampling.BICUBIC)
        left, top = (int(random.integers(1, 40)) for _ in range(2))
        image = image.crop((left, top, image.width - left, image.height - top))
        image.resize((640, 480), Image.Resampling.BICUBIC).save(
            folder / f"{number:03d}.jpg", quality=90
        )


def timed(command: list[str]) -> float:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=plain)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    from visxai.models import weights
    from visxai.models.cards import card

    file = weights.packaged_file(card("efficientnet_lite0").source)
    taken: dict[str, list[float]] = {"visxai": [], "visxai in fp32": [], "script": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        photographs(folder / "photos", asked.images)
        (folder / "peer.py").write_text(PEER, "utf-8")
        source = str(folder / "photos")
        commands = {
            "visxai": [sys.executable, "-m", "visxai", "explain", source, "--out"],
            "visxai in fp32": [
                *(sys.executable, "-m", "visxai", "explain", source),
                *("--precision", "fp32", "--out"),
            ],
            "script": [sys.executable, str(folder / "peer.py"), str(file), source],
        }
        for who in ("visxai", "visxai in fp32"):
            timed([*commands[who], str(folder / f"out-{who}")])
        for _ in range(asked.rounds):
            for who, command in commands.items():
                out = folder / f"out-{who}"
                shutil.rmtree(out, ignore_errors=True)
                taken[who].append(timed([*command, str(out)]))
                print(f"{who}: {taken[who][-1]:.1f} s", flush=True)
    ratios = {
        who: [theirs / ours for ours, theirs in zip(each, taken["script"], strict=True)]
        for who, each in taken.items()
        if who != "script"
    }
    found = {
        "images": asked.images,
        "cores": os.cpu_count(),
        "seconds": {who: [round(one, 2) for one in each] for who, each in taken.items()},
        "ratio": {who: round(statistics.median(each), 2) for who, each in ratios.items()},
        "ratios": {who: [round(one, 2) for one in each] for who, each in ratios.items()},
        "bar": BAR,
    }
    print(json.dumps(found))
    if asked.write:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
