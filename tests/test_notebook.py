"""Explanations in a notebook and in a figure: cards, sentences, comparisons."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zoo
from PIL import Image

import visxai
from visxai.errors import ArgumentError, Failure, MissingExtra
from visxai.record import sentences, showing
from visxai.record.collection import Explanations
from visxai.record.image import ImageExplanation

IMAGE = np.random.default_rng(5).integers(0, 255, (60, 80, 3), dtype=np.uint8)
LABELS = ["a <b>bold</b> $cat", *(f"thing {number}" for number in range(1, zoo.CLASSES))]


@pytest.fixture(scope="module")
def own() -> visxai.Engine:
    return visxai.Engine(
        zoo.module("conv"),
        preprocess=zoo.PREPROCESS,
        labels=LABELS,
        device="cpu",
        precision="fp32",
        accelerate="off",
    )


def explained(own: visxai.Engine, *arguments: Any, image: Any = IMAGE) -> ImageExplanation:
    (found,) = own.explain(image, *arguments)
    assert isinstance(found, ImageExplanation)
    return found


def test_a_card_has_both_pictures_a_slider_and_no_script(own: visxai.Engine) -> None:
    html = explained(own, "grad_cam", 0)._repr_html_()
    assert html.count("<img") == 2
    assert html.count('type="radio"') == 5
    assert html.count(" checked ") == 1  # the overlay is what is seen first
    assert "&lt;b&gt;bold" in html
    for forbidden in ("<script", "onclick", "http:", "https:", "<b>bold"):
        assert forbidden not in html


def test_ipython_takes_the_card(own: visxai.Engine) -> None:
    formatters = pytest.importorskip("IPython.core.formatters", reason="needs the extra notebooks")
    found = own.explain(IMAGE)
    for one in (found, found[0]):
        shown, _ = formatters.DisplayFormatter().format(one)
        assert "visxai-card" in shown["text/html"]


def test_a_card_without_its_photograph_shows_the_map_and_says_so(
    own: visxai.Engine, tmp_path: Path
) -> None:
    path = tmp_path / "gone.png"
    Image.fromarray(IMAGE).save(path)
    found = explained(own, "grad_cam", 0, image=path)
    path.unlink()
    html = found._repr_html_()
    assert html.count("<img") == 1
    assert "The photograph: " in html


def test_a_list_shows_cards_and_failures(own: visxai.Engine) -> None:
    found = own.explain([IMAGE, b"no image", IMAGE], on_error="record")
    assert isinstance(found, list)
    assert isinstance(found[1], Failure)
    html = found._repr_html_()
    assert html.count("<form") == 2
    assert "Failed: " in html
    many = Explanations(found[:1] * 30)
    assert many._repr_html_().count("<form") == 24
    assert "The first 24 of 30 explanations." in many._repr_html_()


def test_show_opens_a_file_and_says_so_where_nothing_opens_it(
    own: visxai.Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(showing.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(showing.webbrowser, "open", lambda uri: opened.append(uri) or True)
    found = own.explain(IMAGE)
    found[0].show()  # type: ignore[union-attr]
    found.show()
    assert [Path(uri).suffix for uri in opened] == [".jpg", ".html"]
    first = Path(opened[0].removeprefix("file://"))
    with Image.open(first) as drawn:
        assert drawn.size == (80, 60)
    monkeypatch.setattr(showing.webbrowser, "open", lambda uri: False)
    with pytest.raises(ArgumentError, match="expected a browser or viewer"):
        found.show()


def doubled(scores: Any) -> Any:
    return scores[:, 0] * 2


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("top1", r"gives “thing \d+|gives “a <b>"),
        ("class=3", "gives “thing 3” a score of 0"),
        ("any=1,2", "gives the set “any of thing 1, thing 2” a score"),
        ("pair=any:1,2", "gives the set “pair” a score"),
        ("diff=1,2", "speaks (for|against) “thing 1 rather than thing 2”, by"),
        (lambda scores: scores[:, 0] * 2, "gives a function of its scores the value"),
        (doubled, "gives the function “doubled” of its scores the value"),
    ],
)
def test_every_kind_of_target_is_one_sentence(own: visxai.Engine, target: Any, said: str) -> None:
    told = explained(own, "grad_cam", target).describe()
    assert re.search(said, told), told
    assert told.endswith(".")
    assert "\n" not in told
    assert "evidence" in told or "flat" in told


def test_where_and_how_much_is_computed_from_the_map(own: visxai.Engine) -> None:
    found = explained(own, "grad_cam", 0)
    values = np.zeros((10, 10), np.float32)
    values[8:, :2] = 1.0  # four of a hundred cells: two of them hold half
    corner = replace(found, values=values, two_sided=False, degenerate=False)
    assert "at the bottom left" in corner.describe()
    share = re.search(r"lies on (\d+) %", corner.describe())
    assert share is not None
    assert 1 <= int(share[1]) <= 4
    against = replace(corner, values=np.where(values > 0, 1.0, -0.05).astype(np.float32))
    assert re.search(r"while (4[0-9]|5[0-9]) % of all speaks against it", against.describe())
    assert "nothing but evidence against" in replace(corner, values=-values).describe()
    assert "is flat" in replace(corner, degenerate=True).describe()
    checked = replace(corner, quality={"faithful": False})
    assert checked.describe().endswith("the map did not pass the check of faithfulness.")


def test_words_and_features_are_named() -> None:
    class Found:
        model = type("Ref", (), {"name": "m"})
        target, class_index, label, score, logit = "top1", 1, "toxic", 0.9, 2.0
        method, degenerate = "kernel_shap(samples=8)", False
        values = np.array([0.1, -0.3, 0.0, 2.0], np.float32)

    told = sentences.parts(Found(), ["a", "b", "c", "d"], "word")  # type: ignore[arg-type]
    assert told == (
        "m gives “toxic” a score of 0.900; what raised it most: “d” and “a”; what lowered it most: "
        "“b”."
    )
    Found.values = np.zeros(4, np.float32)
    assert sentences.parts(Found(), list("abcd"), "word").endswith(  # type: ignore[arg-type]
        "and kernel_shap finds no word that matters for it."
    )


def test_a_figure_has_a_picture_a_cell_and_a_bar_a_scale(own: visxai.Engine) -> None:
    pytest.importorskip("matplotlib")
    found = own.compare([IMAGE, IMAGE[:, ::-1]], "grad_cam,saliency", 0)
    figure = found.figure()
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 2 * 3  # photograph, grad_cam, saliency
    names = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert names == ["photograph", "grad_cam", "saliency"]
    assert pictures[1].get_title().startswith(r"a <b>bold</b> \$cat")
    file = io.BytesIO()
    figure.savefig(file, format="pdf")
    assert file.getvalue().startswith(b"%PDF")
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    scales = {one.two_sided for one in found.explained}
    assert len(figure.axes) == 6 + len(scales)
    one = found[0].figure(photograph=False)  # type: ignore[union-attr]
    assert len(one.axes) == 2


def test_columns_are_named_by_what_they_differ_in(own: visxai.Engine) -> None:
    pytest.importorskip("matplotlib")
    layers = [
        name for name, part in zoo.module("conv").named_modules() if "Conv" in str(type(part))
    ]
    by_layer = own.compare(IMAGE, "grad_cam", 0, layers=layers[-2:])
    assert [one.layer for one in by_layer.explained] == layers[-2:]
    names = [t.get_text() for axes in by_layer.figure(photograph=False).axes for t in axes.texts]
    assert names == layers[-2:]
    options = own.compare(
        IMAGE, ["occlusion(window=32, stride=32)", "occlusion(window=16, stride=16)"]
    )
    names = [t.get_text() for axes in options.figure(photograph=False).axes for t in axes.texts]
    assert all("window" in name for name in names)
    with pytest.raises(ArgumentError, match="look at a layer"):
        own.compare(IMAGE, "saliency", layers=layers)
    with pytest.raises(ArgumentError, match="expected an explanation to draw"):
        Explanations().figure()


def test_models_stand_side_by_side(own: visxai.Engine) -> None:
    pytest.importorskip("matplotlib")
    other = visxai.Engine(
        zoo.module("mobilenet_v3"), preprocess=zoo.PREPROCESS, labels=LABELS, device="cpu"
    )
    with pytest.raises(ArgumentError, match="models that differ"):
        own.compare(IMAGE, target=0, models=[own])
    found = own.compare(IMAGE, target=0, models=[other])
    assert len({one.model for one in found.explained}) == 2
    figure = found.figure(photograph=False)
    assert len([axes for axes in figure.axes if axes.images]) == 2


def test_without_matplotlib_a_figure_says_what_to_install(
    own: visxai.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"pip install 'visxai\[figures\]'"):
        explained(own, "grad_cam", 0).figure()
