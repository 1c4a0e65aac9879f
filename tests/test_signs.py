"""What a spec says of the sign of its method's maps."""

from __future__ import annotations

from dataclasses import fields

import pytest

from visxai import methods
from visxai.methods import signs
from visxai.metrics import controls


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
def test_signs(spec: str, signed: bool) -> None:
    assert signs.signed(spec) is signed


def test_the_table_knows_only_what_there_is() -> None:
    known = {*methods.names(), *controls.names(), "captum:Saliency"}
    assert set(signs._UNSIGNED) <= known


@pytest.mark.parametrize("name", methods.names())
def test_an_option_that_decides_the_sign_is_known(name: str) -> None:
    options = {item.name for item in fields(methods.find(name))}
    for option, signed in (("relu", False), ("signed", True)):
        if option in options:
            for value in (True, False):
                spec = repr(methods.load(f"{name}({option}={value})"))
                assert signs.signed(spec) is (value is signed)
