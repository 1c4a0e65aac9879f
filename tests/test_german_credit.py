"""German Credit: the labels are the corrected ones, by the marginal tables and the bad rates."""

from __future__ import annotations

import pytest

from visxai.tabular import german_credit as credit

# The loans and the share of bad ones for each level, in the order of the levels.
MARGINALS = {
    "status": ([274, 269, 63, 394], [0.49, 0.39, 0.22, 0.12]),
    "credit_history": ([40, 49, 530, 88, 293], [0.62, 0.57, 0.32, 0.32, 0.17]),
    "purpose": ([234, 103, 181, 280, 12, 22, 50, 9, 97, 12], None),
    "savings": ([603, 103, 63, 48, 183], [0.36, 0.33, 0.17, 0.12, 0.17]),
    "employment": ([62, 172, 339, 174, 253], [0.37, 0.41, 0.31, 0.22, 0.25]),
    "installment_rate": ([136, 231, 157, 476], [0.25, 0.27, 0.29, 0.33]),
    "personal_status_sex": ([50, 310, 548, 92], None),
    "other_debtors": ([907, 41, 52], [0.30, 0.44, 0.19]),
    "property": ([282, 232, 332, 154], [0.21, 0.31, 0.31, 0.44]),
    "housing": ([179, 713, 108], [0.39, 0.26, 0.41]),
    "people_liable": ([845, 155], None),
    "telephone": ([596, 404], None),
    "foreign_worker": ([963, 37], [0.31, 0.11]),
}


def test_a_thousand_loans_of_which_three_hundred_were_bad() -> None:
    table = credit.load()
    assert table.column_names == [*credit.COLUMNS, credit.OUTCOME]
    assert table.num_rows == 1000
    assert sum(table.column("repaid").to_pylist()) == 700
    assert table.slice(0, 1).to_pylist()[0]["status"] == "no checking account"
    assert table.slice(0, 1).to_pylist()[0]["amount"] == 1169
    assert sum(one.null_count for one in table.columns) == 0


@pytest.mark.parametrize("name", MARGINALS)
def test_levels_have_the_published_counts_and_bad_rates(name: str) -> None:
    table = credit.load()
    values, repaid = table.column(name).to_pylist(), table.column("repaid").to_pylist()
    counts, rates = MARGINALS[name]
    levels = list(credit.LEVELS[name].values())
    assert [values.count(level) for level in levels] == counts
    for level, rate in zip(levels, rates or [], strict=False):
        mine = [not good for value, good in zip(values, repaid, strict=True) if value == level]
        assert sum(mine) / len(mine) == pytest.approx(rate, abs=0.0051)


def test_protected_columns_are_no_features() -> None:
    known = credit.features()
    assert len(known) == 17
    assert not set(known.names) & set(credit.PROTECTED)
    matrix = known.matrix(credit.load())
    assert matrix.shape == (1000, 17)
    assert (matrix >= 0).all()
