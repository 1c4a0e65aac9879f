"""Targets: every form parses, settles on the right scalars, and says what is wrong otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from visxai.engine.gate import Gate, check_form
from visxai.errors import TargetError, UnknownName
from visxai.target import Target, set_label

LABELS = ["tabby, tabby cat", "tiger cat", "crane", "espresso", "crane"]
SCORES = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0], [5.0, 1.0, 0.0, 0.5, 4.0]])


def aim(target: object) -> tuple[list[int], list[float], list[int] | None]:
    """(rows, scalars, classes) of a target on SCORES."""
    settled = Target.of(target, LABELS).aim(SCORES, SCORES.softmax(1))
    values = settled(SCORES[settled.rows])
    classes = None if settled.classes is None else settled.classes.tolist()
    return settled.rows.tolist(), values.tolist(), classes


@pytest.mark.parametrize(
    ("target", "rows", "values", "classes"),
    [
        ("top1", [0, 1], [3, 5], [1, 0]),
        ("top2", [0, 0, 1, 1], [3, 2, 5, 4], [1, 3, 0, 4]),
        ("class=3", [0, 1], [2, 0.5], [3, 3]),
        ("class=Tiger Cat", [0, 1], [3, 1], [1, 1]),
        ("class=tabby", [0, 1], [0, 5], [0, 0]),
        ("class=tabby, tabby cat", [0, 1], [0, 5], [0, 0]),
        (2, [0, 1], [1, 0], [2, 2]),
        (np.int64(2), [0, 1], [1, 0], [2, 2]),
        ([3, 0], [0, 1], [2, 5], [3, 0]),
        (torch.tensor([3, 0]), [0, 1], [2, 5], [3, 0]),
        (np.array([3, 0]), [0, 1], [2, 5], [3, 0]),
        ("diff=3,0", [0, 1], [2, -4.5], [3, 3]),
        ("above=0.2", [0, 0, 1, 1], [3, 2, 5, 4], [1, 3, 0, 4]),
        ("above=1.0", [], [], []),
    ],
)
def test_what_a_target_explains(target, rows, values, classes) -> None:
    assert aim(target) == (rows, pytest.approx(values), classes)


def test_any_is_the_log_sum_exp_and_reports_the_strongest_member() -> None:
    rows, values, classes = aim("any=1,2")
    assert rows == [0, 1]
    assert values == pytest.approx([np.logaddexp(3, 1), np.logaddexp(1, 0)])
    assert classes == [1, 1]


def test_a_callable_sees_the_scores() -> None:
    assert aim(lambda scores: scores[:, 0] * 2) == ([0, 1], [0, 10], None)


@pytest.mark.parametrize(
    "target",
    ["", "top", "top0", "class=", "any=", "diff=1", "diff=2,2", "above=x", "cat", 1.5, None, True],
)
def test_what_is_not_a_target(target: object) -> None:
    with pytest.raises(TargetError, match=r"expected (a target|two different classes|one integer)"):
        Target.of(target, LABELS)


@pytest.mark.parametrize("target", [["a", "b"], [1, 2.5], [[1]], [True, False]])
def test_a_list_must_hold_integers(target: object) -> None:
    with pytest.raises(TargetError, match="one integer per image"):
        Target.of(target)


def test_unknown_labels_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean espresso"):
        Target.of("class=expresso", LABELS)


def test_unknown_labels_name_those_with_the_word_and_else_how_many_there_are() -> None:
    labels = [f"thing {index}, matter" for index in range(60)] + ["tabby, tiger cat", "Persian cat"]
    with pytest.raises(UnknownName, match="did you mean tiger cat or Persian cat"):
        Target.of("class=Cat", labels)
    with pytest.raises(UnknownName, match=r"one of 62, such as thing 0.*engine\.model\.labels"):
        Gate.of("class=nsfw>0.5", labels)


@pytest.mark.parametrize(
    ("target", "only"),
    [("class=tabby, tabby cat", None), ("any=cat,Cat", "right"), ("diff=a,b", "class=nsfw>0.5")],
)
def test_a_form_can_be_checked_without_labels(target: str, only: str | None) -> None:
    check_form(target, only)


@pytest.mark.parametrize(
    ("target", "only"),
    [("best", None), ("diff=a,a", None), ("top1", "nsfw"), ("top1", "above=0.5>0.5")],
)
def test_a_wrong_form_shows_without_labels(target: str, only: str | None) -> None:
    with pytest.raises(TargetError):
        check_form(target, only)


def test_a_gate_reads_back() -> None:
    gate = Gate.of("class=tiger cat > 0.5", LABELS)
    assert str(gate) == "class=tiger cat>0.5"
    assert Gate.of(str(gate), LABELS) == gate


def test_a_label_of_two_classes_lists_their_numbers() -> None:
    with pytest.raises(TargetError, match=r"classes 2, 4"):
        Target.of("class=crane", LABELS)


def test_labels_are_needed_to_name_a_class() -> None:
    with pytest.raises(TargetError, match="no labels"):
        Target.of("class=tabby")


@pytest.mark.parametrize("target", ["class=5", "any=0,9", "diff=0,7", [5, 0], -1])
def test_classes_outside_the_model(target: object) -> None:
    with pytest.raises(TargetError, match="the model has 5 classes"):
        aim(target)


def test_a_model_has_no_more_top_classes_than_classes() -> None:
    assert aim("top6") == aim("top5")
    settled = Target.of("top3").aim(SCORES[:, :2], SCORES[:, :2].softmax(1))
    assert settled.rows.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("text", ["weapons=any:1,2", "big cats_2=any:tiger cat,crane-less,2"])
def test_a_set_of_classes_has_a_name_if_it_is_given_one(text: str) -> None:
    labels = [*LABELS[:4], "crane-less"]
    target = Target.of(text, labels)
    assert target.kind == "any"
    assert target.name == text.partition("=")[0]
    assert str(target) == text
    assert Target.of(str(target), labels) == target
    gate = Gate.of(f"{text}>0.5", labels)
    assert gate.target == target
    assert Gate.of(str(gate), labels).target.classes == target.classes
    check_form(text, f"{text}<0.5")


def test_a_named_set_is_the_same_set() -> None:
    assert aim("weapons=any:1,2") == aim("any=1,2")
    assert aim("weapons=any: 2, 1") == aim("any=1,2")


@pytest.mark.parametrize("text", ["a<b=any:1", "=any:1", "a,b=any:1", "weapons=any:", "weapons=1"])
def test_what_is_no_named_set(text: str) -> None:
    with pytest.raises(TargetError, match=r"expected a (set of classes|target)"):
        Target.of(text, LABELS)


def test_a_set_without_a_name_is_called_by_its_classes() -> None:
    assert set_label(LABELS, (0, 1)) == "any of tabby, tiger cat"
    assert set_label(None, range(7)) == "any of class 0, class 1, class 2, class 3 and 3 more"


def test_the_wrong_number_of_targets() -> None:
    with pytest.raises(TargetError, match=r"3 targets for 2 images"):
        aim([1, 2, 3])
    with pytest.raises(TargetError, match=r"1 targets for 2 images"):
        Target.of([1]).check(2)


@pytest.mark.parametrize(
    "wrong", [lambda s: s, lambda s: s.sum(), lambda s: 3.0], ids=["matrix", "scalar", "float"]
)
def test_a_callable_must_return_one_scalar_a_row(wrong: object) -> None:
    with pytest.raises(TargetError, match="one scalar per row"):
        aim(wrong)


def test_passes_hold_each_image_once() -> None:
    settled = Target.of("top2").aim(SCORES, SCORES)
    assert [group.tolist() for group in settled.passes] == [[0, 2], [1, 3]]


def test_each_expands_to_one_image_a_map() -> None:
    settled = Target.of("top2").aim(SCORES, SCORES)
    single = settled.each(torch.tensor([1, 2]))
    assert single.rows.tolist() == [0, 1]
    assert single(SCORES).tolist() == [2.0, 5.0]


def test_a_part_of_a_per_image_target() -> None:
    assert Target.of([4, 5, 6]).part(1, 3).classes == (5, 6)
    assert Target.of("top1").part(1, 3) == Target.of("top1")


@pytest.mark.parametrize(
    "text", ["top" + "9" * 5000, "class=" + "9" * 5000, "above=nan", "above=inf", "any=1,", "any=,"]
)
def test_numbers_out_of_all_range_and_empty_classes_are_refused(text: str) -> None:
    for labels in (LABELS, None):
        with pytest.raises((TargetError, UnknownName)):
            Target.of(text, labels)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class=tiger cat > 0.5", "class=tiger cat>0.5"),
        (" top1 <0.6", "top1<0.6"),
        ("class=a<b>c>0.5", "class=a<b>c>0.5"),
        ("class=a<b>c<0.5", "class=a<b>c<0.5"),
    ],
)
def test_a_gate_gives_itself_back(text: str, expected: str) -> None:
    labels = [*LABELS, "a<b>c"]
    found = Gate.of(text, labels)
    assert str(found) == expected
    assert Gate.of(expected, labels) == found


@pytest.mark.parametrize("text", ["top1>nan", "top1<inf", "top1", ">0.5"])
def test_a_gate_has_a_target_and_a_finite_limit(text: str) -> None:
    with pytest.raises(TargetError):
        Gate.of(text, LABELS)
