"""Which methods say of their maps that they hold evidence against the target too."""

from __future__ import annotations

from dataclasses import fields

import pytest

from visxai import methods
from visxai.metrics import controls
from visxai.record import version1


@pytest.mark.parametrize(
    ("spec", "signed"),
    [
        ("grad_cam(relu=True)", False),
        ("grad_cam()", False),
        ("grad_cam(layer='features.7', relu=False)", True),
        ("hires_cam()", True),
        ("eigen_cam(centred=False)", False),
        ("eigen_cam(centred=True)", True),
        ("saliency(signed=False)", False),
        ("saliency(signed=True)", True),
        ("hsic(output='probability', samples=500, grid=8, seed=0)", False),
        ("captum:Saliency(abs=True)", False),
        ("captum:Saliency(abs=False)", True),
        ("captum:GradientShap(n_samples=8)", True),
        ("augmented(method='grad_cam(relu=True)', flip=True)", False),
        ("augmented(method='occlusion(window=32)', flip=True)", True),
        ("augmented()", True),
        ("legrad(outliers=tensor([[1.0]]))", False),  # no plain value: it can't be parsed
        ("a method of somebody's own", True),
    ],
)
def test_records_of_version_1_are_told_by_their_spec(spec: str, signed: bool) -> None:
    assert version1.is_two_sided(spec) is signed


def test_the_table_knows_only_what_there_is() -> None:
    known = {*methods.names(), *controls.names(), "captum:Saliency"}
    assert set(version1._UNSIGNED) <= known


@pytest.mark.parametrize("name", methods.names())
def test_an_option_that_decides_the_sign_is_known(name: str) -> None:
    options = {item.name for item in fields(methods.find(name))}
    for option, signed in (("relu", False), ("signed", True)):
        if option in options:
            for value in (True, False):
                method = methods.load(f"{name}({option}={value})")
                assert method.two_sided is (value is signed)
                if name in VERSION_1:
                    assert version1.is_two_sided(repr(method)) is method.two_sided


# The methods of that time: later ones have no records of version 1.
VERSION_1 = (
    *("ablation_cam", "attention_cam", "attention_rollout", "augmented", "beyond_intuition"),
    *("blur_ig", "captum", "chefer", "eigen_cam", "expected_gradients", "finer_cam", "grad_cam"),
    *("grad_cam_plus_plus", "guided_ig", "hires_cam", "hsic", "idgi", "input_x_gradient"),
    *("integrated_gradients", "kernel_shap", "layer_cam", "legrad", "lime", "occlusion"),
    *("partition_shap", "rise", "saliency", "score_cam", "smooth_grad", "sobol", "token_drop"),
    *("xgrad_cam", "xrai"),
)


@pytest.mark.parametrize("name", [*VERSION_1, *controls.names()])
def test_methods_agree_with_the_table_of_version_1(name: str) -> None:
    spec = "captum:Saliency" if name == "captum" else name
    method = (controls if name in controls.names() else methods).load(spec)
    assert version1.is_two_sided(repr(method)) is method.two_sided
