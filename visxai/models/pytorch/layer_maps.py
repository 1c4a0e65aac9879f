"""Maps of layers and scores from one graph, for the price of a forward.

Where PyTorch runs the network above a layer and the backward down to it, a fast runtime waits for
copies in and out of it and for the head. So OpenVINO is given the whole: the trunk, the head, its
gradient and the map's arithmetic as ordinary operators, with the class of each image as an input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from visxai.models.blocks import joined_aim
from visxai.models.pytorch.agreement import three_rows, turned
from visxai.models.pytorch.at_layers import at_layers
from visxai.models.pytorch.forms import EXACT, FARTHER, Forms
from visxai.models.pytorch.mapped import Mapped
from visxai.models.rows import Rows
from visxai.models.views import LayerMaps
from visxai.target import Target

if TYPE_CHECKING:
    from visxai.models.pytorch.openvino import OpenVinoForm


def layer_maps(
    model: Forms, x: Tensor, target: Target, mapped: Mapped, place: str
) -> LayerMaps | None:
    """Compute scores and maps by a graph in the model's precision.

    Args:
        model: the network.
        x: inputs (b, 3, h, w).
        target: what is explained.
        mapped: the network in float32 with the maps.
        place: the name of the graph.

    Returns:
        None where the target isn't one class of each image, or there is no graph.
    """
    classes, fast = target.one_class(len(x)), model.acceleration
    if classes is None or fast is None:
        return None

    def refusal(made: OpenVinoForm) -> str:
        return _refusal(model, made, three_rows(x), mapped)

    def write(name: str) -> None:
        from visxai.models.pytorch.joined import joined  # which needs packages of an extra

        two = three_rows(x)[:2]
        with open(name, "wb") as file:
            file.write(joined(mapped.trace(two, given=True), two, given=True).SerializeToString())

    # First the network's lock: whoever holds it may wait for a forward, which waits for a tracer.
    with model._lock:
        graph = fast.graph(place, write, refusal, tuple(x.shape[1:]), model.precision)
    if graph is None:
        return None
    given = torch.tensor(classes)

    def run(part: Tensor, _image: Tensor, _turn: Tensor, first: int) -> LayerMaps:
        scores, maps = graph.all(part, given[first : first + len(part)])
        aim = target.part(first, first + len(part)).aim(scores, model.probabilities(scores))
        return LayerMaps(scores, aim, maps, place)

    with torch.inference_mode(False), torch.no_grad():
        parts = list(model._blocks(Rows.of(x), place, run))
    if len(parts) == 1:
        return parts[0]
    scores, maps = (torch.cat([getattr(one, n) for one in parts]) for n in ("scores", "maps"))
    return LayerMaps(scores, joined_aim(parts), maps, place)


def _refusal(model: Forms, made: OpenVinoForm, x: Tensor, mapped: Mapped) -> str:
    """Compare a graph's scores and maps of three rows x with float32's; return "" or a reason."""
    best = Target.of("top1")
    names, plain = tuple(mapped.names), mapped.model.in_precision("fp32")
    plain.acceleration = None
    exact = at_layers(plain, x, best, names, mapped.layouts)
    classes = exact.scores.argmax(1)
    aimed = Target.of(classes.tolist())
    usual = at_layers(model, x, aimed, names, mapped.layouts)
    expected, near = (mapped.arithmetic(found.layers) for found in (exact, usual))
    limit = max(EXACT["limit"], FARTHER * turned(near, expected))
    for rows in (slice(None), slice(1)):
        scores, maps = made.all(x[rows], classes[rows])
        for found, wanted in ((scores, exact.scores[rows]), (maps, expected[rows])):
            apart = turned(found, wanted)
            if not apart <= limit:
                return f"differs by {apart:.1e}"
    return ""
