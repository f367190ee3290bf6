"""The parts of the first screen by themselves: what stands out, the three worst pairs, the one command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rmo_curate.audit.estimates import Estimates
from rmo_curate.audit.findings import Counts
from rmo_curate.audit.first_screen import CHARACTERS, apart, shortened
from rmo_curate.audit.next_step import free, step_of_data, step_of_run
from rmo_curate.audit.overview import FindingCount, Opening
from rmo_curate.audit.page import saying, value
from rmo_curate.audit.standing_out import Observed, lopsided, standing_out
from rmo_curate.evidence.label_noise import Judgeable
from rmo_curate.evidence.style import Gap
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs.run import Checkpoint, Trajectory

NOTHING = Observed(
    counts=Counts(400, 400, 0, {}, 400, {}, 400),
    findings={},
    lengths_known=True,
    contradictions=0,
    openings=(),
    longer=200,
    shorter=200,
    gaps=(),
    gaps_of=400,
)


def test_lopsided_by_hand():
    # 36 of 40: 0.4 from one half, and (36 - 20) / (sqrt(40) / 2) = 5.1 standard errors
    assert lopsided(36, 4, 400) and lopsided(4, 36, 400)
    assert not lopsided(36, 4, 1000)  # 4% of the pairs
    assert not lopsided(25, 15, 400)  # 1.6 standard errors
    assert not lopsided(5200, 4800, 10_000)  # sure, and too little to matter
    assert not lopsided(0, 0, 400)


OVER_LONG = replace(
    NOTHING, findings={"over_long": FindingCount("Over-long pair", "pairs", 20, 0.05, None, None, None)}
)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (NOTHING, None),
        (replace(NOTHING, contradictions=3), None),
        (replace(NOTHING, contradictions=4), "4 of 400 pairs (1.0%) contradict others"),
        (
            replace(NOTHING, openings=(Opening("Sorry, but I", 3, 57),)),
            "Of the 60 answers that begin with “Sorry, but I”, 5.0%",
        ),
        (replace(NOTHING, longer=320, shorter=80), "The longer answer is the chosen one in 80% of the 400 pairs"),
        (
            replace(NOTHING, gaps=(Gap("length", 0.9, 0.9), Gap("bullets", 0.6, 0.6))),
            "over 400 pairs: more bullets (0.60)",
        ),
        (replace(NOTHING, gaps=(Gap("bullets", 0.4, 0.4),)), None),
        (replace(NOTHING, gaps=(Gap("bullets", 0.6, 0.6),), gaps_of=20), None),
        (
            replace(NOTHING, findings={"refusal": FindingCount("Answer refuses", "pairs", 44, 0.11, 2, 40, 2)}),
            "Answer refuses: only the chosen one in 2 pairs, only the rejected one in 40, of 400 pairs.",
        ),
        (OVER_LONG, "Over-long pair: 20 of 400 pairs (5.0%)."),
        (replace(OVER_LONG, lengths_known=False), None),
        (
            replace(NOTHING, counts=Counts(450, 400, 50, {"missing_field": 50}, 400, {}, 400)),
            "50 of 450 records (11%) are not usable as pairs",
        ),
    ],
)
def test_a_finding_stands_out_when_it_is_strong(seen, said):
    found = [strong.text for strong in standing_out(seen)]
    assert len(found) == (said is not None) and (said is None or said in found[0]), found


# ---------------------------------------------------------------------------------------------------- the one command


END = Checkpoint("oof-9", "proxy", "oof", 9, 5, True, None)
DROPPING = replace(NOTHING.counts, kept=370, dropped={"noisy": 30})


TOLD, FEW = Estimates(400), Estimates(40, untold=Judgeable(40, 40))


def decided(settings: FilterSettings, doubted: int = 0, left: int = 0, softness: float = 0.0, end=END) -> Any:
    """What a step depends on of the filter's decisions."""
    trajectory = Trajectory((END,), end)
    return SimpleNamespace(
        settings=settings, trajectory=trajectory, doubted=doubted, left_in_doubt=left, softness=softness
    )


def test_the_command_is_one_that_would_succeed(working_folder):
    run, settings, dropping = Path("runs/run"), FilterSettings(), FilterSettings(action="drop")
    kept = replace(DROPPING, kept=400, dropped={})
    step = step_of_run(run, decided(settings, 30, softness=0.8), kept, TOLD)
    assert step.command == "rmo-curate filter runs/run --out runs/run-shards"
    assert "30 of the 400 labels are more likely wrong than right" in step.text
    assert "the trainer softens every label 80% of the way to the probability that it is right" in step.text
    dropped = step_of_run(run, decided(dropping, 30), DROPPING, TOLD)
    assert dropped.command == f"{step.command} --action drop" and "drop 30 of the 400 scored pairs" in dropped.text
    for end in (None, replace(END, held_out=False)):
        assert step_of_run(run, decided(settings, 30, end=end), kept, TOLD).command == "rmo-curate proxy runs/run"
    for asked, said in ((settings, "softening"), (dropping, "dropping")):
        told = step_of_run(run, decided(asked, 23, left=23), kept, TOLD).text
        assert f"{said} 23 doubted labels is not expected to pay" in told
        assert "No label is doubted" in step_of_run(run, decided(asked), kept, TOLD).text
    few = step_of_run(run, decided(settings), DROPPING, FEW)
    assert few.command == "rmo-curate filter runs/run --out runs/run-shards --rule none"
    asked = FilterSettings.model_validate({"noise_rate": "0.1", "protect": ["task=code x"]})
    command = step_of_run(run, decided(asked), DROPPING, FEW).command
    assert command == "rmo-curate filter runs/run --out runs/run-shards --noise-rate 0.1 --protect 'task=code x'"


def test_data_are_scored_with_the_columns_that_were_named(working_folder):
    command = step_of_data(("my data.jsonl", "b.jsonl"), {"prompt": "q"}, 512).command
    assert command.startswith("rmo-curate score 'my data.jsonl' b.jsonl --model ")
    assert command.endswith(" --out 'my data-run' --map prompt=q --max-length 512")
    few, enough = (step_of_data(("a.jsonl",), {}, None, pairs=pairs).text for pairs in (99, 100))
    assert few.startswith("Read the pairs yourself: fewer than 100 are too few") and enough.startswith(
        "Score the pairs"
    )
    assert " --out pairs-run" in step_of_data(("hf:owner/pairs:train",), {}, None).command


def test_a_folder_that_is_there_is_not_written_to(tmp_path):
    assert free(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert free(tmp_path / "a") == tmp_path / "a-3"


# ---------------------------------------------------------------------------------------------------- texts


def test_texts_are_shortened_between_words_in_one_line():
    assert shortened("two\n\nlines") == "two lines"
    cut = shortened("word " * 100)
    assert cut.endswith("word …") and len(cut) <= CHARACTERS + 2
    assert len(shortened("x" * 1000)) == CHARACTERS + 2


def test_answers_that_begin_alike_are_shown_where_they_part():
    same = "the very same words again and again, " * 20
    chosen, rejected = apart(same + "and yes.", same + "and no.")
    assert chosen.endswith("and yes.") and rejected.endswith("and no.") and chosen.startswith("… ")
    assert apart("Yes.", "No.") == ("Yes.", "No.")


def test_settings_read_as_text():
    assert value(("a=1", "b=2")) == "a=1, b=2" and value(0.0) == "0" and value(True) == "yes"
    assert not any(map(saying, (None, (), [], "", False))) and saying(0) and saying(0.0)
