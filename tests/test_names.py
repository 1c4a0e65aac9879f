"""Methods under the names that other libraries and papers give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from visxai import methods
from visxai.errors import UnknownName
from visxai.methods._names import OTHERS, folded

DOCUMENT = Path(__file__).parents[1] / "docs" / "methods.md"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("GradCAM", "grad_cam"),
        ("Grad-CAM", "grad_cam"),
        ("ScoreCAM", "score_cam"),
        ("gradcam++", "grad_cam_plus_plus"),
        ("GradCAMPlusPlus", "grad_cam_plus_plus"),
        ("DeepLift", "deep_lift"),
        ("GradientShap", "gradient_shap"),
        ("shap", "partition_shap"),
        ("ig", "integrated_gradients"),
        ("IntegratedGradients(steps=8)", "integrated_gradients(steps=8)"),
        ("GradCAM(relu=False)", "grad_cam(relu=False)"),
        ("KernelShap", "kernel_shap"),
    ],
)
def test_names_of_other_libraries_name_our_methods(written: str, meant: str) -> None:
    assert repr(methods.load(written)) == repr(methods.load(meant))
    assert methods.find(written.partition("(")[0]) is methods.find(meant.partition("(")[0])


@pytest.mark.parametrize("name", methods.names())
def test_a_methods_own_name_stands_for_itself_however_it_is_written(name: str) -> None:
    assert folded(name) not in OTHERS
    assert methods.find(name.replace("_", "").upper()) is methods.find(name)


def test_every_other_name_is_one_and_documented() -> None:
    text = DOCUMENT.read_text("utf-8").partition("## Method by method")[0]
    for other, meant in OTHERS.items():
        assert other == folded(other)
        assert methods.load(meant)
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{meant}` |")]
        assert other in row.partition("|")[2]


def test_the_table_of_libraries_names_every_method() -> None:
    table = DOCUMENT.read_text("utf-8").partition("## Method by method")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = [line.split("`")[1] for line in rows]
    assert len(named) == len(set(named))
    assert set(methods.names()) <= set(named)


def test_suggestions_include_captums() -> None:
    with pytest.raises(UnknownName, match="captum:FeatureAblation"):
        methods.load("feature_ablatio")
    with pytest.raises(UnknownName, match="did you mean grad_cam"):
        methods.load("gradcm")
