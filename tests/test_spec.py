"""Spec strings: read strictly, and given back by what they make."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from visxai import methods, metrics
from visxai.errors import ArgumentError
from visxai.methods.rise import Rise
from visxai.metrics import controls
from visxai.record import version1


@pytest.mark.parametrize(
    "spec",
    [
        "rise(**{'masks': 10})",
        "rise(masks=10, masks=20)",
        "rise(10)",
        "blur_ig(sigma=1e999)",
        "captum:Occlusion(sliding_window_shapes=(3, 1e999, 3))",
        "rise(masks=0x" + "f" * 5000 + ")",
        "rise(masks=" + "(" * 300 + "1" + ")" * 300 + ")",
        "rise(masks=" + "-" * 5000 + "1)",
        pytest.param("rise(masks=" + "-" * 500_000 + "1)", id="long"),
    ],
)
def test_what_is_no_plain_call_is_refused(spec: str) -> None:
    with pytest.raises(ArgumentError, match="expected a method"):
        methods.load(spec)
    version1.is_two_sided(spec)  # a record's method may be anything


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("rise(masks=10.5)", "masks being a whole number, got 10.5"),
        ("rise(masks=True)", "masks being a whole number"),
        ("rise(masks='a')", "masks being a whole number"),
        (f"rise(seed={2**64})", "seed being a whole number"),
        ("rise(show='half')", "show being a finite number"),
        ("grad_cam(relu=1)", "relu being True or False"),
        ("grad_cam(layer=3)", "layer being text or None"),
        ("occlusion(window=(1, 2, 3))", "window being a whole number or a tuple"),
        ("rise(output=3)", "output being 'logit' or 'probability'"),
        ("rise(output='odds')", "logit or probability"),
        ("captum:Lime(grid=2.5)", "grid being a whole number or None"),
    ],
)
def test_options_have_the_types_of_their_fields(spec: str, expected: str) -> None:
    with pytest.raises(ArgumentError, match=expected):
        methods.load(spec)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_numbers_that_no_spec_can_name_are_refused(value: float) -> None:
    with pytest.raises(ArgumentError, match="show being a finite number"):
        Rise(show=value)


@pytest.mark.parametrize("name", [*methods.names(), *metrics.names()])
def test_no_class_forgets_to_hold_its_options_against_their_types(name: str) -> None:
    if name == "captum":
        pytest.skip("its algorithm comes first")
    cls = methods.find(name) if name in methods.names() else metrics.find(name)
    for option in fields(cls):
        with pytest.raises(ArgumentError, match=option.name):
            cls(**{option.name: object()})


def test_numbers_of_numpy_become_pythons_and_lists_tuples() -> None:
    assert repr(Rise(masks=np.int64(7), show=np.float32(0.5))) == repr(Rise(masks=7, show=0.5))
    assert methods.load("occlusion(window=[32, 32])") == methods.load("occlusion(window=(32, 32))")
    assert methods.load("augmented(scales=0.5)") == methods.load("augmented(scales=(0.5,))")


def test_an_option_that_is_none_against_its_default_is_in_the_spec() -> None:
    found = controls.load("random_map(grid=None)")
    assert repr(found) == "random_map(grid=None, seed=0)"
    assert controls.load(repr(found)) == found
