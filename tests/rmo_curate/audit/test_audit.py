"""What an audit promises: numbers that add up, the same on the page and in audit.json, and text that does nothing."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rmo_curate.audit import findings, suspects
from rmo_curate.audit.command import write_audit
from rmo_curate.audit.page import prose
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.filter.settings import FilterSettings
from rmo_train.console.errors import ProcessingError, UserError

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'`><svg onload=alert(3)></style></div></details>"
    "<!-- {{ 7 * 7 }} {% raw %} ${7*7} \u202eevil\u202c \x00\x1b[31m & &amp;"
)
HOSTILE_SHOWN = suspects.presentable(HOSTILE)
NAN = float("nan")
patient = hypothesis.settings(deadline=None)  # shared machines stall
FINITE = st.floats(-1e3, 1e3)


def settings(**given) -> AuditSettings:
    return AuditSettings.model_validate(given)


@pytest.fixture
def audited(make_run, tmp_path):
    """Twenty pairs, every fifth labelled the wrong way round, one of them too long, and three rejects."""
    wrong = np.arange(20) % 5 == 0
    base = [(-1) ** i * (i + 1.0) for i in range(20)]
    moved = [-(3.0 + i / 8) if w else 2.0 + i / 4 for i, w in enumerate(wrong)]
    run = make_run(
        {
            "base": base,
            "oof-8": [b + m / 2 for b, m in zip(base, moved, strict=True)],
            "oof-16": [b + m for b, m in zip(base, moved, strict=True)],
        },
        rows=[{"chosen_tokens": 4 + i % 3, "rejected_tokens": 5} for i in range(20)],
        too_long=[7],
        rejects=[
            {"reason": "missing_field", "detail": "no column 'rejected'", "raw": HOSTILE},
            {"reason": "identical_responses", "detail": "the same text twice", "raw": "{}"},
            {"reason": "missing_field", "detail": "no column 'prompt'", "raw": "{}"},
        ],
    )
    filtering = FilterSettings.model_validate({"rule": "irm", "low_q": 0.1, "high_q": 0.8})
    summary = write_audit(run, tmp_path / "audit", settings(worst=10), filtering)
    return summary, summary.page.read_text(encoding="utf-8"), json.loads(summary.json.read_text(encoding="utf-8"))


def embedded_data(page: str) -> dict:
    """What the page's script reads."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


class Page(HTMLParser):
    """The elements of a page with their attributes, its visible text, and whether its tags nest."""

    VOID = frozenset({"meta", "link", "br", "input"})

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.counts: dict[str, int] = {}
        self.stack: list[str] = []
        self.texts: list[str] = []
        self._counting: str | None = None
        self.feed(page)
        assert self.stack == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.stack.append(tag)
        self._counting = dict(attributes).get("data-count")

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self._counting:
            self.counts[self._counting] = int(data.replace(",", ""))
            self._counting = None
        self.texts.append(data)


# ---------------------------------------------------------------------------------------------------- the numbers


def test_counts_add_up_and_equal_the_pages(audited):
    _, page, numbers = audited
    counts = numbers["counts"]
    assert counts["records"] == 23 == counts["pairs"] + counts["rejects"]
    assert counts["pairs"] == 20 == counts["kept"] + sum(counts["dropped"].values())
    assert counts["rejects_by_reason"] == {"missing_field": 2, "identical_responses": 1}
    assert counts["dropped"]["too_long"] == 1 and counts["dropped"]["noisy"] == 3  # floor(0.2 x 19)
    shown = Page(page).counts
    assert shown == {
        **{name: counts[name] for name in ("records", "pairs", "rejects", "kept")},
        **{f"dropped-{reason}": n for reason, n in counts["dropped"].items()},
    }


def test_counts_that_do_not_add_up_are_refused():
    with pytest.raises(ProcessingError, match=r"pairs \+ rejects = 9, records = 10"):
        findings.Counts(10, 8, 1, {"duplicate": 1}, 8, {}, 8)


def test_the_noise_share_is_that_of_pairs_moved_towards_the_rejected_answer(audited):
    summary, _, numbers = audited
    assert numbers["share_against"] == pytest.approx(4 / 19)  # pairs 0, 5, 10 and 15 of 19 scored
    base, *_, end = (c["accuracy"] for c in numbers["checkpoints"])
    assert end["reward"]["value"] == pytest.approx(15 / 19) and end["pairs"] == 19
    assert numbers["share_against_low"] == pytest.approx(1 - end["reward"]["high"])
    assert base["reward"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    told = next(line for line in summary.lines if line.startswith("reward accuracy"))
    assert ", of 19 scored pairs of 19 prompts" in told and told.endswith(", too few to tell")
    assert numbers["headline"]["lead"] == "Too few pairs to tell how noisy these labels are." == summary.lines[0]
    assert numbers["noise_rate"] is None and "19 pairs" in numbers["headline"]["certainty"]


def test_suspects_come_worst_first_with_their_margins(audited):
    _, page, numbers = audited
    assert [s["id"] for s in numbers["suspects"]] == ["p15", "p10", "p5", "p0"]  # not p7, which is too long
    worst = numbers["suspects"][0]
    assert worst["suspicion"] == 4.875 and worst["rewards"] == [0.0, -2.4375, -4.875]
    assert worst["margins"] == [-16.0, -18.4375, -20.875] and worst["decision"] == "noisy"
    assert worst["why"][0].startswith(
        "The filter drops it as noisy: rule irm gives it a suspicion of 4.88; pairs with "
    )
    assert worst["decided"]["rule"] == "irm" and worst["decided"]["suspicion"] == 4.875
    assert worst["decided"]["threshold"] == numbers["thresholds"]["suspicion"] and worst["decided"]["right"] is None
    assert "Training on other prompts moved the model 4.88 nats towards the rejected answer" in worst["why"][1]
    assert "base model by itself" not in " ".join(worst["why"])  # one of the reasons says it
    listed = embedded_data(page)["pairs"]
    assert [p["id"] for p in listed] == ["p15", "p10", "p5", "p0"]
    assert [p["r"][-1] for p in listed[:4]] == [s["rewards"][-1] for s in numbers["suspects"][:4]]


def test_histograms_hold_every_scored_pair(audited):
    for checkpoint in audited[2]["checkpoints"]:
        hist = checkpoint["histogram"]
        inside = sum(sum(counts) for counts in hist["counts"].values())
        assert inside + hist["below"] + hist["above"] == 19


def test_writing_twice_gives_the_same_bytes(make_run, tmp_path):
    run = make_run({"base": [1.0, -2.0, 3.0, 0.5], "oof-4": [2.0, -4.0, 3.5, 0.25]})
    first = write_audit(run, tmp_path / "a", settings())
    before = first.page.read_bytes(), first.json.read_bytes()
    again = write_audit(run, tmp_path / "a", settings())
    assert (again.page.read_bytes(), again.json.read_bytes()) == before
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["audit.json", "report.html"]


@patient
@given(hnp.arrays(float, st.integers(1, 60), elements=FINITE | st.just(NAN)), st.integers(1, 12))
def test_a_histogram_loses_no_finite_value(values, bins):
    groups = np.array(findings.GROUPS, dtype=object)[np.arange(len(values)) % 4]
    hist = findings.histogram(values, groups, findings.common_limits(values), bins)
    inside = sum(map(sum, hist.counts.values()))
    assert inside + hist.below + hist.above == np.isfinite(values).sum()
    assert hist.edges[0] <= 0 <= hist.edges[-1]


@patient
@given(hnp.arrays(float, st.integers(1, 30), elements=FINITE))
def test_win_rates_of_a_swapped_dataset_add_up_to_one(margins):
    assert findings.win_rate(margins) + findings.win_rate(-margins) == pytest.approx(1)


@patient
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=3, max_size=40))
def test_rank_correlation_equals_scipys(points):
    stats = pytest.importorskip("scipy.stats")
    x, y = (np.array(v, float) for v in zip(*points, strict=True))
    ours = findings.pearson(findings.average_ranks(x), findings.average_ranks(y))
    if np.ptp(x) and np.ptp(y):
        assert ours == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    else:
        assert np.isnan(ours)


def test_bands_are_quartiles_per_checkpoint():
    rewards = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0], [0.0, -9.0], [NAN, NAN]])
    groups = np.array(["kept", "kept", "kept", "noisy", "other"], dtype=object)
    kept, noisy = findings.bands(rewards, groups)
    assert (kept.n, kept.lower, kept.median, kept.upper) == (3, (0.0, 1.5), (0.0, 2.0), (0.0, 2.5))
    assert (noisy.n, noisy.median) == (1, (0.0, -9.0))
    assert kept.lines == ((0.0, 1.0), (0.0, 2.0), (0.0, 3.0))


def test_length_bias_counts_ties_apart():
    bias = findings.length_bias(np.array([5, 4, 4, 9]), np.array([3, 4, 6, 1]), {"base": np.array([1.0, 0, -1.0, 4.0])})
    assert bias is not None
    assert (bias.chosen_longer, bias.rejected_longer, bias.equal, bias.median_difference) == (0.5, 0.25, 0.25, 1.0)
    assert bias.trends[0].spearman == pytest.approx(1)


# ---------------------------------------------------------------------------------------------------- what is said


def test_a_run_of_the_base_alone_names_the_command_that_adds_the_rest(make_run, tmp_path):
    run = make_run({"base": [1.0, -2.0, 3.0]})
    summary = write_audit(run, tmp_path / "audit", settings())
    numbers = json.loads(summary.json.read_text())
    assert numbers["end"] is None and numbers["suspects"] == [] and numbers["bands"] == []
    assert numbers["noise_rate"] is None and numbers["kind"] == "run"
    assert f"next: rmo-curate proxy {run}" in summary.lines
    shown = summary.page.read_text().replace("<span>", "").replace("</span>", "")
    assert shown.count(f"rmo-curate proxy {run}</code>") >= 3  # the command, the list, the margins
    with pytest.raises(UserError, match="rmo-curate proxy"):
        write_audit(run, tmp_path / "audit", settings(), FilterSettings(low_q=0.1))


@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [("insample-8", "These scores were not held out"), ("mine-1a2b3c4d", "unknown"), ("oof-8", None)],
)
def test_the_page_says_when_scores_were_not_held_out(make_run, tmp_path, checkpoint, said):
    run = make_run({"base": [1.0, -2.0, 3.0], checkpoint: [2.0, -4.0, 1.0]})
    summary = write_audit(run, tmp_path / "audit", settings())
    numbers = json.loads(summary.json.read_text())
    if said is None:
        assert numbers["headline"]["warning"] == "" and "not held out" not in summary.page.read_text()
    else:
        assert said in numbers["headline"]["warning"]
        assert any(line.startswith("warning: ") and said in line for line in summary.lines)


def test_the_filter_command_repeats_the_settings_of_the_page(make_run, tmp_path):
    run = make_run({"base": [-1.0, -2.0, 3.0], "oof-8": [-20.0, -4.0, 1.0]})
    given = [{"preset": "paper"}, {"low_q": 0.1, "high_q": 0.5, "rule": "irm-ln", "hard": True}]
    commands = []
    for each in given:
        summary = write_audit(run, tmp_path / "audit", settings(), FilterSettings.model_validate(each))
        commands += [line for line in summary.lines if line.startswith("next: rmo-curate filter")]
    assert commands == [
        f"next: rmo-curate filter {run} --out {run}-shards --preset paper",
        f"next: rmo-curate filter {run} --out {run}-shards --low-q 0.1 --high-q 0.5 --rule irm-ln --hard",
    ]
    assert json.loads(summary.json.read_text())["suspicion_unit"] == "nats per token"
    assert "by suspicion in nats per token." in summary.page.read_text()
    plain = write_audit(run, tmp_path / "audit", settings(), FilterSettings.model_validate({"rule": "random"}))
    assert "by suspicion in units of a random number." in plain.page.read_text()


def test_the_terminal_gets_at_most_25_lines(audited):
    summary = audited[0]
    assert (
        len(summary.lines) <= 25 and str(summary.page) in summary.lines[-2] and str(summary.json) in summary.lines[-1]
    )


# ---------------------------------------------------------------------------------------------------- hostile text


def test_hostile_text_is_shown_and_does_nothing(make_run, tmp_path):
    row = {"id": HOSTILE, "prompt": HOSTILE, "chosen": HOSTILE, "rejected": HOSTILE + "!"}
    reject = {"reason": "missing_field", "source": HOSTILE, "detail": HOSTILE, "raw": HOSTILE}
    run = make_run({"base": [1.0, 2.0], "oof-2": [-9.0, 3.0]}, rows=[row], rejects=[reject])
    summary = write_audit(run, tmp_path / "audit", settings())
    page = summary.page.read_text(encoding="utf-8")
    parsed = Page(page)
    tags = {tag for tag, _ in parsed.elements}
    assert not tags & {"img", "iframe", "object", "form", "base"}
    assert [dict(a) for t, a in parsed.elements if t == "script"] == [{"type": "application/json", "id": "data"}, {}]
    for tag, attributes in parsed.elements:
        assert not [a for a in attributes if a.startswith("on") or a == "style"], (tag, attributes)
    assert "{{ 7 * 7 }}" in page and "49" not in {t.strip() for t in parsed.texts}
    shown = html.escape(suspects.presentable(HOSTILE)).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
    assert page.count(shown) == 3  # the reject's three fields
    listed = embedded_data(page)
    assert listed["pairs"][0]["id"] == HOSTILE and [HOSTILE_SHOWN, 0] in listed["texts"]
    assert "\x00" not in page and "\x1b" not in page


def test_dataset_text_sits_in_boxes_of_its_own_direction(audited):
    _, page, _ = audited
    boxes = re.findall(r'<div class="text-box"[^>]*>', page)
    assert boxes and all('dir="auto"' in box for box in boxes) and 'box.dir = "auto"' in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert re.search(r"\.text-box \{[^}]*white-space: pre-wrap;[^}]*unicode-bidi: isolate", style)


def test_lone_surrogates_are_replaced_and_pairs_kept():
    assert suspects.presentable("a\ud800b\udfff \ud83d\ude00") == "a\ufffdb\ufffd \U0001f600"
    assert suspects.presentable("tab\tline\n\x00") == "tab\tline\n\ufffd"


@patient
@given(st.text(st.characters(exclude_categories=())))
def test_whatever_text_can_be_written(text):
    shown = suspects.presentable(text)
    assert shown.encode("utf-8").decode("utf-8") == shown


def test_a_megabyte_answer_is_cut_and_the_page_says_so(make_run, tmp_path):
    row = {"chosen": "x" * 1_000_000, "prompt": [{"role": "user", "content": "y" * 3000}] * 3}
    run = make_run({"base": [1.0, 2.0], "oof-2": [-9.0, 3.0]}, rows=[row])
    summary = write_audit(run, tmp_path / "audit", settings(characters=4000))
    page = summary.page.read_text()
    assert len(page) < 300_000 and summary.json.stat().st_size < 100_000
    data = embedded_data(page)
    assert ["x" * 4000, 996_000] in data["texts"]
    (_, first), (_, second), _ = data["pairs"][0]["p"]
    assert first == second and data["texts"][first] == ["y" * 3000, 0]  # said three times, held once


def test_prose_sets_flags_and_commands_as_code_and_escapes_the_rest():
    assert prose("run `a <b> --c 1` at --high-q 0.95, or (--hard).") == (
        "run <code>a &lt;b&gt; --c 1</code> at <code>--high-q 0.95</code>, or (<code>--hard</code>)."
    )


def test_charts_have_text_alternatives_and_unique_ids(audited):
    _, page, _ = audited
    charts = re.findall(r'<svg [^>]*class="chart"[^>]*>.*?</svg>', page, re.S)
    assert len(charts) == 3 + 3 + 3 + 1  # checkpoints, groups, lengths, the curve
    for chart in charts:
        assert 'role="img"' in chart and re.search(
            r"<title [^>]*>\S.*?</title>\s*<desc [^>]*>\S.*?</desc>", chart, re.S
        )
        assert "style=" not in chart and "<style" not in chart
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:aria-labelledby|aria-describedby)="([^"]+)"', page)) <= set(ids)
