"""A credit model from training to the letter, in one script.

    python -m pip install 'visxai[tables]'
    python examples/credit/credit.py [FOLDER]

It trains a model on German Credit without sex, age and foreign worker, explains applicants whom it
hasn't seen, writes the letters to three whom it refuses, compares groups, and draws pictures.

Writes into FOLDER ("credit"), in half a minute on one core:

    credit.json, credit.toml, ...   the model, its card and the rows to compare with
    results/                        an explanation for each applicant, and report/index.html
    letter-1.html, ...              letters to refused applicants, in English and German
    *.png                           all applicants, and one of them
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq
from train import THRESHOLD, split, train

from visxai import govern, report, tabular
from visxai.tabular import german_credit, plots, run

HERE = Path(__file__).parent


def main() -> None:
    """Train, explain, give reasons, write letters, compare groups, and draw."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "credit")
    folder.mkdir(parents=True, exist_ok=True)

    # Train. The columns with sex, age and foreign worker are kept out of the model.
    known, applicants = split(german_credit.load(), seed=0)
    features = german_credit.features()
    model = train(known, seed=0)

    # Explain. Applicants are compared with those who were just approved.
    scores = tabular.Engine(model, features=features).predict(known)
    approved = tabular.Background.approved_near(known, scores, THRESHOLD, most=100)
    engine = tabular.Engine(
        model,
        approved,
        features,
        threshold=THRESHOLD,
        label="repaid",
        protected=german_credit.PROTECTED,
        name="credit",
    )
    tabular.save_engine(engine, folder / "credit.json")
    pq.write_table(applicants, folder / "applicants.parquet")
    run.explain(
        [folder / "applicants.parquet"],
        folder / "results",
        engine,
        label_column=german_credit.OUTCOME,
        fresh=True,
    )
    records = engine.explain(applicants)
    refused = [one for one in records if not one.favourable]
    print(f"{len(records)} applicants, {len(refused)} refused")

    # Reasons and letters.
    for number, record in enumerate(refused[:3], 1):
        for language in ("en", "de"):
            letter = tabular.letter(
                engine,
                record,
                HERE / f"{language}.toml",
                sender="The Example Bank",
                applicant=f"Applicant {record.input.row + 1}",
                actions=german_credit.ACTIONS,
            )
            letter.save(folder / f"letter-{number}-{language}.html")
            if language == "en":
                print(f"\nTo applicant {record.input.row + 1} (score {record.score:.3f}):")
                print("\n".join(f"  {one}" for one in letter.sentences))

    # Fairness, by what the model never saw: bands of age, and sex with marital status.
    ages = [int(one.groups["age"]) for one in records]
    bands = ["below 30" if age < 30 else "30 to 50" if age < 50 else "50 or more" for age in ages]
    truth = ["repaid" if one else "not repaid" for one in applicants.column("repaid").to_pylist()]
    seen = govern.observe(records, groups={"age": bands}, expected=truth)
    for attribute in ("age", "personal_status_sex"):
        print(f"\nBy {attribute}, each group minus all others, with 95 % intervals:")
        for gap in govern.fairness(seen, attribute).gaps:
            if gap.figure in ("score", "favourable", "error", "calibration"):
                print(
                    f"  {gap.group:44} {gap.figure:11} {gap.gap:+.3f} ({gap.low:+.3f} to "
                    f"{gap.high:+.3f}), n = {gap.n}, p = {gap.p:.2f} {gap.warning}"
                )
    proxies = tabular.proxies(engine, applicants, "age")
    print(f"\nAge can be told from the scored columns to {proxies.found:.0%} of its variance; by:")
    for one in proxies.features[:3]:
        print(f"  {one.feature}: alone {one.found:.0%}, carries {one.share:.0%} of attributions")

    # Pictures and the page.
    approved_ones = [one for one in records if one.favourable]
    for name, figure in {
        "summary": plots.summary(records, features),
        "waterfall": plots.waterfall(refused[0]),
        "beside": plots.beside(refused[0], approved_ones),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=120, bbox_inches="tight")
    print(f"\nthe page: {report.build(folder / 'results').path}")


if __name__ == "__main__":
    main()
