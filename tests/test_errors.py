"""Errors: one sentence for people, its parts for programs."""

from __future__ import annotations

import json
import pickle

import pytest

from visxai import errors
from visxai.errors import Argument, StoreError, VisxaiError

CODES = {
    "VisxaiError": "error",
    "ArgumentError": "argument",
    "UnknownName": "unknown_name",
    "TargetError": "target",
    "ModelError": "model",
    "LayerError": "layer",
    "ImageError": "image",
    "StoreError": "store",
    "OutOfMemory": "out_of_memory",
    "MissingExtra": "missing_extra",
}

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, VisxaiError)
}


def test_every_kind_has_its_code() -> None:
    assert {name: kind.code for name, kind in KINDS.items()} == CODES


@pytest.mark.parametrize("kind", [kind for name, kind in KINDS.items() if name != "UnknownName"])
def test_a_sentence_alone_stays_the_whole_error(kind: type[VisxaiError]) -> None:
    error = kind("expected a, got b: do c")
    assert str(error) == error.args[0] == "expected a, got b: do c"
    assert error.to_dict() == {
        "code": kind.code,
        "message": "expected a, got b: do c",
        **dict.fromkeys(("expected", "got", "remedy", "field")),
    }


def test_parts_make_the_sentence() -> None:
    error = StoreError(
        expected="an empty folder",
        got="one with files",
        remedy=("choose another ", Argument("out"), ", or ", Argument("fresh", True)),
        field="out",
    )
    assert str(error) == (
        "expected an empty folder, got one with files: choose another out, or fresh=True"
    )
    assert json.loads(json.dumps(error.to_dict())) == {
        "code": "store",
        "message": str(error),
        "expected": "an empty folder",
        "got": "one with files",
        "remedy": "choose another out, or fresh=True",
        "field": "out",
    }
    assert error.worded(lambda one: f"--{one.name}").endswith("choose another --out, or --fresh")


def test_what_an_error_quotes_is_never_taken_for_an_argument() -> None:
    error = StoreError(expected="a", got="{out} %s --fresh", remedy="b")
    assert error.worded(lambda _: "!") == str(error) == "expected a, got {out} %s --fresh: b"


def test_a_long_value_is_cut() -> None:
    assert len(str(Argument("method", "x" * 500))) < 100


def test_an_unknown_name_tells_its_parts() -> None:
    error = errors.UnknownName("method", "grad_kam", ["grad_cam", "occlusion"], field="method")
    assert str(error) == "unknown method 'grad_kam': did you mean grad_cam?"
    assert (error.got, error.remedy, error.field) == (
        "'grad_kam'",
        "did you mean grad_cam?",
        "method",
    )


def test_a_missing_extra_tells_its_remedy() -> None:
    with pytest.raises(errors.MissingExtra) as missing:
        errors.require("no_such_package.part", "demo", "a demo")
    assert missing.value.remedy == "pip install 'visxai[demo]'"
    assert str(missing.value).startswith("a demo needs the package 'no_such_package', which")


@pytest.mark.parametrize(
    "error",
    [
        *(kind("one sentence") for name, kind in KINDS.items() if name != "UnknownName"),
        errors.UnknownName("method", "grad_kam", ["grad_cam"]),
        StoreError(expected="a", got=("b ", Argument("style", {"format": "png"})), remedy="c"),
    ],
)
def test_errors_cross_processes_whole(error: VisxaiError) -> None:
    same = pickle.loads(pickle.dumps(error))
    assert type(same) is type(error)
    assert same.to_dict() == error.to_dict()
    assert same.worded(repr) == error.worded(repr)
