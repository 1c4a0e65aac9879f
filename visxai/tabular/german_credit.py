"""German Credit: 1,000 loans of a German bank, 1973 to 1975, with the corrected labels.

The labels that usually come with these codes are wrong: Grömping (2019) compared them with the
original documentation. What they call "no checking account" is the best status, their "critical
account" the best history, and their "no credits taken" the worst. Sentences made of the usual
labels would be false.

    table = visxai.tabular.german_credit.load()      # an Arrow table; "repaid" is the outcome

Bad loans were oversampled (300 of 1,000), so scores aren't a bank's default rates.

Source: Hofmann, Statlog (German Credit Data), UCI, DOI 10.24432/C5NC77, CC BY 4.0; labels by
Grömping, South German Credit Data: Correcting a Widely Used Data Set, 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv

from visxai.tabular.features import Feature, Features

# What the codes of the published file mean.
LEVELS: dict[str, dict[str, str]] = {
    "status": {
        "A11": "no checking account",
        "A12": "below 0 DM",
        "A13": "0 to 200 DM",
        "A14": "at least 200 DM or salary for a year",
    },
    "credit_history": {
        "A30": "delay in paying off in the past",
        "A31": "critical account or credits elsewhere",
        "A32": "no credits taken or all paid back duly",
        "A33": "existing credits paid back duly till now",
        "A34": "all credits at this bank paid back duly",
    },
    "purpose": {
        "A40": "other",
        "A41": "new car",
        "A42": "used car",
        "A43": "furniture or equipment",
        "A44": "radio or television",
        "A45": "domestic appliances",
        "A46": "repairs",
        "A48": "vacation",
        "A49": "retraining",
        "A410": "business",
    },
    "savings": {
        "A61": "unknown or no savings account",
        "A62": "below 100 DM",
        "A63": "100 to 500 DM",
        "A64": "500 to 1000 DM",
        "A65": "1000 DM or more",
    },
    "employment": {
        "A71": "unemployed",
        "A72": "below 1 year",
        "A73": "1 to 4 years",
        "A74": "4 to 7 years",
        "A75": "7 years or more",
    },
    "installment_rate": {
        "1": "35 % of income or more",
        "2": "25 to 35 % of income",
        "3": "20 to 25 % of income",
        "4": "below 20 % of income",
    },
    "personal_status_sex": {
        "A91": "male, divorced or separated",
        "A92": "female, not single, or male, single",
        "A93": "male, married or widowed",
        "A94": "female, single",
    },
    "other_debtors": {"A101": "none", "A102": "co-applicant", "A103": "guarantor"},
    "present_residence": {
        "1": "below 1 year",
        "2": "1 to 4 years",
        "3": "4 to 7 years",
        "4": "7 years or more",
    },
    "property": {
        "A121": "unknown or no property",
        "A122": "car or other",
        "A123": "building society savings or life insurance",
        "A124": "real estate",
    },
    "other_installments": {"A141": "bank", "A142": "stores", "A143": "none"},
    "housing": {"A151": "for free", "A152": "rent", "A153": "own"},
    "number_credits": {"1": "1", "2": "2 or 3", "3": "4 or 5", "4": "6 or more"},
    "job": {
        "A171": "unemployed, or unskilled and not resident",
        "A172": "unskilled, resident",
        "A173": "skilled employee or official",
        "A174": "manager, self-employed or highly qualified",
    },
    "people_liable": {"1": "0 to 2", "2": "3 or more"},
    "telephone": {"A191": "no", "A192": "yes"},
    "foreign_worker": {"A201": "no", "A202": "yes"},
}
NUMBERS = ("duration", "amount", "age")
PROTECTED = ("personal_status_sex", "age", "foreign_worker")  # to be kept out of a model
OUTCOME = "repaid"
# What an applicant can change, and the direction: for counterfactuals.
ACTIONS: dict[str, Literal["raise", "lower", "any"]] = {
    "status": "raise",
    "duration": "lower",
    "amount": "lower",
    "savings": "raise",
    "other_debtors": "raise",
}
# The order of the published file.
COLUMNS = (
    *("status", "duration", "credit_history", "purpose", "amount", "savings", "employment"),
    *("installment_rate", "personal_status_sex", "other_debtors", "present_residence", "property"),
    *("age", "other_installments", "housing", "number_credits", "job", "people_liable"),
    *("telephone", "foreign_worker"),
)

_FILE = Path(__file__).parent / "data" / "german_credit.csv"


def load() -> pa.Table:
    """Read the loans: duration in months, amount in DM, age in years, categories in words.

    Returns:
        A table of 1,000 rows: the 20 columns and "repaid", whether the loan was paid back.
    """
    return pyarrow.csv.read_csv(
        _FILE,
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in LEVELS} | {OUTCOME: pa.bool_()}
        ),
    )


def features() -> Features:
    """Return the columns that a model may score, with their levels: all but the protected ones."""
    return Features(
        tuple(
            Feature(name, tuple(LEVELS.get(name, {}).values()))
            for name in COLUMNS
            if name not in PROTECTED
        )
    )
