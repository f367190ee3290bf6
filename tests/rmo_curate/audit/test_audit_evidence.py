"""What an audit says of labels without any model, and what the page says of that evidence as a whole."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rmo_curate.audit.calibration import effects, reliability
from rmo_curate.evidence.expected import outlook
from rmo_curate.evidence.label_noise import LabelNoise
from rmo_curate.evidence.texts import STYLE, read_texts, texts_of
from rmo_curate.evidence.wording import UNLIKE_MORE, comparative, outlook_lines
from rmo_curate.filter.decisions import Decisions
from tests.command_line import curate
from tests.rmo_curate.audit.test_audit import Page, embedded_data
from tests.rmo_curate.audit.test_audit_data import audit
from tests.rmo_curate.scored import write_jsonl

N = 600


def by_taste(n: int = N, **columns: Any) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Pairs of a judge who likes lists and long answers, a fifth of the labels flipped, and which ones are.

    columns: name -> function of (good answer's side first, random generator) that gives a column of each answer.
    """
    rng = np.random.default_rng(7)
    wrong = rng.random(n) < 0.2
    rows = []
    for i in range(n):
        taste = rng.normal(2.0, 1.2)  # how much the better answer has more of what the judge likes
        sizes = [12 + int(max(0, 4 * taste)), 12 + int(max(0, -4 * taste))]
        lists = [int(max(0, round(taste))), int(max(0, round(-taste)))]
        good, bad = (
            " ".join(f"w{rng.integers(500)}" for _ in range(size)) + "\n- point" * points + "."
            for size, points in zip(sizes, lists, strict=True)
        )
        chosen, rejected = (bad, good) if wrong[i] else (good, bad)
        row = {"id": f"p{i}", "prompt": f"What is question {i}?", "chosen": chosen, "rejected": rejected}
        for name, of in columns.items():
            values = of(rng)
            row[f"chosen_{name}"], row[f"rejected_{name}"] = values[::-1] if wrong[i] else values
        rows.append(row)
    return rows, wrong


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("taste")
        patch.chdir(folder)
        rows, wrong = by_taste()
        outcome, found = audit(write_jsonl(folder / "pairs.jsonl", rows))
        assert outcome.code == 0, outcome.err
        return outcome, found, Path("report/report.html").read_text(encoding="utf-8"), wrong


def test_the_noise_rate_is_told_from_texts_alone_and_the_headline_says_so(audited):
    outcome, found, page, wrong = audited
    assert found["noise_rate_low"] <= wrong.mean() <= found["noise_rate_high"]
    assert found["not_estimated"] == "" and found["evidence"]["sources"] == ["style", "answers"]
    assert "no model has scored these pairs" in found["evidence"]["missing"]
    assert found["headline"]["lead"].endswith(
        "of the 600 pairs are estimated to be mislabelled, from their texts alone."
    )
    assert any("scoring with a model finds more" in sentence for sentence in found["headline"]["sentences"])
    assert found["headline"]["lead"] in outcome.out
    start = found["curve"]["steps"][found["curve"]["start"]]
    assert start["dropped"] == found["likely_wrong"] and f'value="{found["curve"]["start"]}"' in page


def test_labels_more_likely_wrong_than_right_come_first_by_probability(audited):
    _, found, _, wrong = audited
    likely = [s for s in found["suspects"] if s["right"] < 0.5]
    assert len(likely) == found["likely_wrong"] == found["curve"]["steps"][-1]["dropped"]
    assert found["suspects"][: len(likely)] == likely
    assert [s["right"] for s in likely] == sorted(s["right"] for s in likely)
    assert np.mean([wrong[int(s["id"][1:])] for s in likely]) > 0.5
    rest = found["suspects"][len(likely) :]
    assert [s["points"] for s in rest] == sorted((s["points"] for s in rest), reverse=True)


def test_reasons_and_the_prior_add_up_to_the_log_odds(audited):
    _, found, _, _ = audited
    for s in found["suspects"]:
        total = found["evidence"]["prior"] + sum(reason["log_odds"] for reason in s["reasons"])
        assert total == pytest.approx(-s["suspicion"]) and s["right"] == pytest.approx(1 / (1 + np.exp(-total)))
        assert [r["log_odds"] for r in s["reasons"]] == sorted(r["log_odds"] for r in s["reasons"])
    worst = found["suspects"][0]["reasons"][0]
    assert worst["source"] == "style" and worst["log_odds"] < 0
    assert re.fullmatch(
        r"the chosen answer's style \(.+\) favours the rejected answer (over )?[\d.,]+ to 1", worst["text"]
    )


def test_the_page_lists_probability_and_reasons_as_audit_json_does(audited):
    _, found, page, _ = audited
    data = embedded_data(page)
    assert data["probable"] and data["prior"] == round(found["evidence"]["prior"], 3)
    for shown, s in zip(data["pairs"], found["suspects"], strict=True):
        assert shown["q"] == pytest.approx(s["right"], abs=1e-6) and shown["q"] > 0
        assert shown["e"] == [[r["text"], round(r["log_odds"], 3)] for r in s["reasons"]]


def test_the_calibration_picture_has_a_sentence_and_a_text_alternative(audited):
    _, found, page, _ = audited
    deciles = found["evidence"]["reliability"]
    assert len(deciles) == 10 and sum(d["pairs"] for d in deciles) == N
    assert np.mean([abs(d["expected"] - d["observed"]) for d in deciles]) < 0.08
    assert "Share of labels that agree with the evidence, from the weakest evidence to the strongest" in page
    assert "the probability is calibrated, provided that labels are wrong at random" in page
    Page(page)  # its tags nest


def test_the_page_says_what_removal_does_to_length_and_style(audited):
    _, found, page, _ = audited
    gaps = {g["feature"]: g for g in found["evidence"]["gaps"]}
    assert gaps["length"]["before"] > 0.15 and gaps["length"]["after"] > gaps["length"]["before"]
    table = page[page.index("What removal does to length and style") :]
    assert f"+{gaps['length']['before']:.2f}</td><td>+{gaps['length']['after']:.2f}" in table
    assert f"{1 / (1 - 2 * found['noise_rate']):.2f} times as wide" in table


def test_what_is_expected_of_so_many_pairs_is_shown(working_folder):
    _, found = audit(write_jsonl(working_folder / "pairs.jsonl", by_taste(260)[0]))
    lines = outlook_lines(outlook(260, scored=False))
    assert (
        len(lines) == 3 and lines[0].startswith("With 260 pairs") and set(lines) <= set(found["headline"]["sentences"])
    )
    assert all(line in Path("report/report.html").read_text() for line in lines)


@pytest.mark.parametrize(
    ("n", "prompt", "said"), [(19, None, "there are 19 pairs"), (40, "Why?", "have the same prompt")]
)
def test_few_data_give_no_estimate_and_say_why(working_folder, n, prompt, said):
    rows = [row | ({"prompt": prompt} if prompt else {}) for row in by_taste(n)[0]]
    outcome, found = audit(write_jsonl(working_folder / "pairs.jsonl", rows))
    assert outcome.code == 0, outcome.err
    assert found["noise_rate"] is None and found["evidence"] is None and found["likely_wrong"] is None
    assert said in found["not_estimated"] and found["headline"]["certainty"] in outcome.out
    assert found["headline"]["certainty"] in Path("report/report.html").read_text()
    assert all(s["right"] is None and s["reasons"] == [] for s in found["suspects"])
    gated, _ = audit(working_folder / "pairs.jsonl", "--fail-on", "noise_rate>0.2")
    assert gated.refused("unknown for these data", said)


def better(rng: np.random.Generator) -> tuple[str, str]:
    """Generators of the better and the worse answer."""
    return ("strong", "weak") if rng.random() < 0.9 else ("weak", "strong")


@pytest.mark.parametrize(("column", "given"), [("model", ()), ("writer", ("--generator-column", "writer"))])
def test_a_generator_column_is_found_or_named_and_counts(working_folder, column, given):
    data = write_jsonl(working_folder / "pairs.jsonl", by_taste(200, **{column: better})[0])
    outcome, found = audit(data, *given)
    assert outcome.code == 0, outcome.err
    assert found["evidence"]["sources"] == ["style", "generators", "answers"]
    texts = [r["text"] for s in found["suspects"] for r in s["reasons"] if r["source"] == "generators"]
    assert any(t.startswith("the model that wrote the rejected answer usually wins on other prompts") for t in texts)


def test_a_generator_column_that_is_not_there_is_refused(working_folder):
    data = write_jsonl(working_folder / "pairs.jsonl", by_taste(30, writer=better)[0])
    outcome, _ = audit(data, "--generator-column", "author")
    assert outcome.refused("--generator-column author: pairs.jsonl has no text columns", "chosen_writer")


@pytest.mark.parametrize("command", [("audit", "--out", "report"), ("rules",)])
def test_a_run_takes_the_generator_column_by_its_name(working_folder, make_run, command):
    rng = np.random.default_rng(1)
    writers = [better(rng) for _ in range(40)]
    base = rng.normal(0, 5, 40)
    run = make_run(
        {"base": base.tolist(), "oof-9": (base + rng.normal(2, 2, 40)).tolist()},
        extra={"chosen_writer": [c for c, _ in writers], "rejected_writer": [r for _, r in writers]},
        part_size=40,
    )
    name, *more = command
    outcome = curate(name, run, *more, "--generator-column", "writer")
    said = Path("report/audit.json").read_text() if name == "audit" else outcome.out
    assert outcome.code == 0 and "generators" in said and "no columns with the models" not in said, outcome
    assert curate(name, run, *more, "--generator-column", "author").refused(
        "--generator-column author", "chosen_writer"
    )


# ---------------------------------------------------------------------------------------------------- by hand


def test_reliability_by_hand():
    # k 1, eps 0.2: at |x| = log 3 the evidence is right in 3/4, so 0.8 x 3/4 + 0.2 x 1/4 = 0.65 of labels agree
    margin = np.log(3.0) * np.array([1, 1, 1, -1] * 5)
    two = reliability(margin, LabelNoise(0.2, 1.0))
    assert [d.pairs for d in two] == [10, 10]
    assert [d.expected for d in two] == pytest.approx([0.65, 0.65])
    assert sum(d.observed * d.pairs for d in two) == 15
    assert reliability(margin[:19], LabelNoise(0.2, 1.0)) == ()


def test_a_pair_counts_as_it_will_be_trained_on():
    decided = SimpleNamespace(
        reason=np.array([None, "noisy", None, None, None], dtype=object),
        flipped=np.array([False, False, True, False, False]),
        weight=np.array([1.0, 1.0, 1.0, 0.25, 1.0]),
        label_confidence=np.array([1.0, 1.0, 1.0, 1.0, 0.75]),
        softness=1.0,
    )
    decided.kept = Decisions.kept.fget(decided)
    decided.effect = Decisions.effect.fget(decided)
    assert effects(decided).tolist() == [1.0, 0.0, -1.0, 0.25, 0.5]
    for softness, effect in ((0.5, 0.75), (0.0, 1.0)):
        decided.softness = softness
        decided.effect = Decisions.effect.fget(decided)
        assert effects(decided).tolist() == [1.0, 0.0, -1.0, 0.25, effect]


def test_lists_in_memory_are_read_as_tables_are():
    rows, _ = by_taste(12)
    lists = {
        name: [[{"role": "user", "content": "before"}, {"role": "user", "content": row[name]}] for row in rows]
        for name in ("prompt", "chosen", "rejected")
    }
    ours, theirs = texts_of(**lists), read_texts([pa.table(lists)])
    for name in ("prompt", "chosen", "rejected", "style"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_a_lone_surrogate_or_an_empty_content_is_no_failure():
    def said(text: str | None) -> list[dict[str, Any]]:
        return [{"role": "user", "content": text}]

    found = texts_of([said("a\ud800b")], [said(None)], [said("é")])
    assert np.isfinite(found.style).all()


def test_every_feature_can_be_said_both_ways():
    assert set(UNLIKE_MORE) <= set(STYLE)
    assert comparative("bullets", True) == "more bullets" and comparative("commas", False) == "fewer commas"
    assert comparative("length", False) == "shorter"
    assert len({comparative(name, more) for name in STYLE for more in (True, False)}) == 2 * len(STYLE)
