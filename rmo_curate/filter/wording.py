"""The filter in sentences: what `filter` and `rules` print. Every number is given, none is computed here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from rmo_curate.evidence.label_noise import LEAST_FOR_RATE, Judgeable
from rmo_curate.evidence.lengths import Lengths
from rmo_curate.evidence.rules import RULES
from rmo_curate.evidence.swapped_copies import MIN_FLAGGED, Detection, telling
from rmo_curate.evidence.wording import RANDOM_FLIPS, evidence_line, gap_lines, lengths_line
from rmo_curate.filter.ambiguity import AUTHORS_RANGE
from rmo_curate.filter.budget import Budget
from rmo_curate.filter.decisions import REASONS, Decisions, noisy_rule
from rmo_curate.filter.rule_comparison import COMPARED_WITH, Comparison, RuleAtCut
from rmo_curate.filter.settings import AUTO, WEIGHING, FilterSettings
from rmo_curate.filter.slices import ColumnRemoval
from rmo_curate.filter.summary import Judged, Summary
from rmo_curate.filter.worth import AS_GIVEN, Cut, Worth
from rmo_curate.runs.run import Checkpoint
from rmo_train.console.wording import counted
from rmo_train.evaluation.intervals import LEAST_PROMPTS
from rmo_train.evaluation.metrics import Interval
from rmo_train.report import of_prompts, too_long_line
from rmo_train.store.manifests import ShardsManifest
from rmo_train.store.tables import TOO_LONG

FLIP_RATE = 0.2  # of the remark on recall
ENOUGH = f"at least {LEAST_FOR_RATE} pairs and {LEAST_PROMPTS} prompts"  # to estimate how many labels are wrong
HEAVY_REMOVAL = 0.3  # share of the pairs beyond which removal is reported to cost more than it brings


# ---------------------------------------------------------------------------------------------------- filter


def decision_lines(decisions: Decisions, summary: Summary) -> list[str]:
    """What a user should know of these decisions, a line each."""
    settings = decisions.settings
    return [
        counts_line(decisions.counts),
        *([too_long_line(summary.too_long)] if summary.too_long else ()),
        *end_lines(decisions.trajectory.end),
        *noisy_lines(decisions),
        *(caught_lines(summary.caught, settings, reviewed=bool(summary.reviewed)) if summary.caught else ()),
        *ambiguous_lines(decisions),
        *heavy_removal_lines(decisions),
        *([length_line(summary.lengths)] if summary.lengths else ()),
        *override_lines(summary, settings),
        *(judged_lines(summary.judged, decisions) if summary.judged else ()),
        *map(removal_line, summary.removal),
    ]


def counts_line(counts: Mapping[str, int]) -> str:
    """What became of the scored pairs; those that are too long are apart, since no filter removed them."""
    told = [name for name in REASONS if name != TOO_LONG and (name != "decision" or counts[name])]
    dropped = ", ".join(f"{counts[name]:,} {name}" for name in told)
    scored = f"{counts['pairs'] - counts[TOO_LONG]:,}"
    of = f"{scored} scored of {counts['pairs']:,} pairs" if counts[TOO_LONG] else f"{scored} pairs"
    return f"{of} = {counts['kept']:,} kept + {dropped}"


def end_lines(end: Checkpoint | None) -> Iterator[str]:
    if end is None:
        return
    held_out = {
        True: "held out",
        False: "NOT held out: it was trained on these pairs, so wrong labels that it memorised look right",
        None: "not known to be held out",
    }[end.held_out]
    folds = f" ({end.folds} folds)" if end.cross_fitted else ""
    yield f"last checkpoint: {end.name}{folds}, {held_out}"


def noisy_lines(decisions: Decisions) -> Iterator[str]:
    settings = decisions.settings
    if settings.action == AUTO:
        yield from softening_lines(decisions)
    elif settings.rule == "none":
        yield "noisy: --rule none, so none is dropped"
    elif few := decisions.budget.too_few:
        yield too_few_line(few, "none is dropped")
    elif decisions.budget.cut:
        yield from paying_lines(decisions.budget.cut, decisions)
    elif settings.action in ("drop", "flip"):
        says_odds = RULES[settings.rule].says_odds
        only = "where the label is more likely wrong than right" if says_odds else "with suspicion > 0"
        if noisy_rule(settings).spares_supported and not says_odds:
            only += " and a label that is more likely wrong than right given all evidence"
        least = ""
        if (cut := decisions.thresholds["suspicion"]) is not None:
            likely = (
                f"label is {1 / (1 + math.exp(cut)):.0%} likely to be right"
                if says_odds
                else f"suspicion is {cut:.4g} {RULES[settings.rule].unit}"
            )
            least = f"; the least suspicious one's {likely}"
        elif decisions.budget.pairs:
            least = ", which holds for none"
        if settings.high_q == 0:
            yield f"noisy: --rule {settings.rule}: every pair {only}{least}"
            return
        yield (
            f"noisy: --rule {settings.rule}, at most {decisions.budget.pairs:,} of {decisions.scorable:,} scored "
            f"pairs ({budget_text(decisions.budget, settings)}), and only {only}{least}"
        )
        if settings.high_q is not None:
            most = (1 - settings.high_q) / FLIP_RATE
            if round(most, 2) < 1:
                yield (
                    f"if {FLIP_RATE:.0%} of pairs are flipped, --high-q {settings.high_q:g} finds at most {most:.0%} "
                    "of them"
                )


def rate_line(rate: Interval, decisions: Decisions) -> str:
    doubted, none = "a label that is more likely wrong than right", "no label is more likely wrong than right"
    if not noisy_rule(decisions.settings).spares_supported:  # a control, or the user's score
        doubted, none = "a suspicion above 0", "no pair has a suspicion above 0"
    of = f"{decisions.doubted:,} of {decisions.scorable:,} scored pairs have {doubted}"
    return f"an estimated {percent_interval(rate)} of the labels are wrong; {of if decisions.doubted else none}"


def too_few_line(few: Judgeable, so: str) -> str:
    return (
        f"noisy: {of_prompts(few.pairs, few.prompts)} are too few to estimate how many labels are wrong "
        f"(that needs {ENOUGH}), so {so}; review the worst suspects. If you know how many "
        "labels are wrong, set that share, and as many are dropped: --noise-rate 0.1"
    )


def softening_lines(decisions: Decisions) -> Iterator[str]:
    """How far labels are softened because that pays, and why not further."""
    labels, softness = decisions.labels, decisions.paying_softness
    assert labels is not None
    if not labels.of.enough:
        yield too_few_line(labels.of, "labels stay as they are")
    if softness is None:  # or what is said of the evidence says why
        return
    said = f"noisy: {rate_line(labels.resampled.rate, decisions)}"
    if softness:
        yield (
            f"{said}. None is dropped: `rmo-train` softens every label {towards(softness)}. For a trainer "
            "without soft labels: --action drop"
        )
    elif decisions.doubted:
        yield (
            f"{said}. Labels stay as they are: soft labels are not expected to pay. Review the worst suspects; "
            "if you know that at least as many labels are wrong as estimated: --action soft-label"
        )
    else:
        yield f"{said}, so labels stay as they are"


def towards(softness: float) -> str:
    """How far a label is softened."""
    return f"{'' if softness == 1 else f'{softness:.0%} of the way '}to the probability that it is right"


def paying_lines(cut: Cut, decisions: Decisions) -> Iterator[str]:
    """How many go because that pays, and why not more."""
    settings, budget = decisions.settings, decisions.budget
    assert budget.noise_rate is not None
    gone = "flipped" if settings.action == "flip" else "dropped"
    said = f"noisy: --rule {settings.rule}: {rate_line(budget.noise_rate, decisions)}"
    if not cut.of:
        yield f"{said}, so none is {gone}"
    elif not cut.pairs:
        yield (
            f"{said}. None is {gone}: that is not expected to pay. Review the worst suspects; "
            "if you know that at least as many labels are wrong as estimated, set a share: "
            f"--noise-rate {budget.noise_rate.value:.2g}"
        )
    else:
        most = f"the {cut.pairs:,} most suspect" if cut.pairs < decisions.doubted else "these"
        yield f"{said}; {most} are {gone}"


def caught_lines(caught: Detection, settings: FilterSettings, reviewed: bool = False) -> Iterator[str]:
    """What the pairs called noisy are, as far as labels are wrong at random; of few nothing is told. reviewed: whether
    a reviewer's word has changed since what becomes of them."""
    if caught.flagged >= MIN_FLAGGED:
        before = ", before your decisions" if reviewed else ""
        precise = caught.precision
        share = f"an estimated {percent_interval(precise)} are mislabelled"
        if not telling(precise):
            share = f"it cannot be told how many are mislabelled ({precise.low:.0%} to {precise.high:.0%})"
        yield (
            f"of the {caught.flagged:,} pairs {called(settings)}{before}, {share}; of all mislabelled pairs, "
            f"{percent_interval(caught.recall)} are among them (by swapped copies, for labels wrong at random)"
        )


def called(settings: FilterSettings) -> str:
    """What pairs are that the cut takes, or that are doubted where it takes none."""
    return "whose label is doubted" if settings.action in WEIGHING else "called noisy"


def budget_text(budget: Budget, settings: FilterSettings) -> str:
    """Where the number of noisy pairs is from."""
    if budget.noise_rate is None:
        if settings.high_q is not None:
            return f"--high-q {settings.high_q:g}"
        return f"--noise-rate {float(settings.noise_rate or 0):g}"
    estimated = percent_interval(budget.noise_rate)
    if not budget.pairs:
        return f"--precision {settings.precision:g} cannot be reached at any cut (noise rate {estimated})"
    return f"--precision {settings.precision:g} by swapped copies, at a noise rate of {estimated}"


def ambiguous_lines(decisions: Decisions) -> Iterator[str]:
    settings, tau, gamma = decisions.settings, decisions.thresholds["tau"], decisions.thresholds["gamma"]
    if settings.preset == "authors-code":
        yield f"ambiguous: |D_0| and |D_T| both at most {AUTHORS_RANGE:g} nats, the authors' constant"
    elif tau is not None:
        unit = "nats per token" if settings.margin == "mean_logp" else "nats"
        how = "hard cut" if gamma is None else f"soft cut of width gamma = {gamma:.4g}"
        yield (
            f"ambiguous: |{settings.margin} margin| of {decisions.trajectory.names[-1]} around tau = {tau:.4g} {unit} "
            f"(--low-q {settings.low_q:g}), {how}"
        )


def heavy_removal_lines(decisions: Decisions) -> Iterator[str]:
    """That much goes for its margins; pairs that are too long or repeated were never scored and are not counted."""
    gone, scored = decisions.counts["noisy"] + decisions.counts["ambiguous"], decisions.scorable
    if gone > HEAVY_REMOVAL * scored and decisions.budget.noise_rate is None:  # as many as are wrong may go: that pays
        yield (
            f"warning: {gone:,} of {scored:,} scored pairs ({gone / scored:.0%}) are dropped as noisy or ambiguous; "
            f"beyond {HEAVY_REMOVAL:.0%}, losing data is reported to cost more than the noise itself: compare with "
            "dropping as many pairs at random (--rule random)"
        )


def length_line(lengths: Lengths) -> str:
    """Whether the lengths of the answers mislead the rule."""
    return f"{'' if lengths.alike else 'warning: '}{lengths_line(lengths)}"


def override_lines(summary: Summary, settings: FilterSettings) -> Iterator[str]:
    """What actions, protected slices and reviewers changed."""
    if summary.flipped:
        yield f"flipped (chosen and rejected exchanged): {summary.flipped:,} of the kept pairs"
    if settings.action in ("weight", "soft-label"):
        column = {"weight": "weight", "soft-label": "label_confidence"}[settings.action]
        yield (
            f"noisy: --action {settings.action}, so none is dropped; `{column}` is the probability that a pair's label "
            "is right"
        )
    if summary.protected:
        yield f"protected: {counted(summary.protected, 'pair')} ({', '.join(settings.protect)})"
    if summary.reviewed:
        yield f"reviewed: {', '.join(f'{pairs:,} {action}' for action, pairs in summary.reviewed.items())}"
    if summary.kept_unscored:
        yield (
            "warning: dropped, though kept by a reviewer: "
            f"{counted(summary.kept_unscored, 'pair')} too long to be scored"
        )


def judged_lines(judged: Judged, decisions: Decisions) -> Iterator[str]:
    """What the evidence says; what the lines on noisy pairs have said is not said again."""
    soft = decisions.settings.action == AUTO
    few_said, rate_said = soft or decisions.budget.too_few is not None, soft or decisions.budget.cut is not None
    yield evidence_line(judged.sources, judged.missing)
    if not judged.foretold:
        yield (
            "warning: this evidence predicts labels no better than chance, so no label is doubted: there "
            "are too few pairs, "
            "the labels are nearly random, or the answers do not differ in anything the evidence measures"
        )
        return
    of = f"the labels of {judged.of.pairs:,} scored pairs"
    if not judged.of.enough:
        if not few_said:
            yield f"too few to tell how many of {of} are wrong; that needs {ENOUGH}"
    else:
        if not rate_said:
            yield f"an estimated {judged.noise_rate:.0%} of {of} are wrong"
        if judged.worth:
            yield worth_line(judged.worth)
    yield from (f"style: {line}" for line in gap_lines(judged.gaps))


def worth_line(worth: Worth) -> str:
    """What these decisions bring, and what each action would."""
    told = {action: f"{action} {times_interval(of)}" for action, of in worth.times.items()}
    for action, nothing in (("auto", "labels stay as they are"), ("drop", "none is dropped")):
        if worth.times[action] == AS_GIVEN:
            told[action] = f"{action} 1.00 times ({nothing})"
    if worth.times["auto"] == worth.times["soft-label"]:
        told["auto"] = f"auto or {told.pop('soft-label')}"
    by_action = ", ".join(told.values())
    given = f"worth: as given, the labels are worth {worth.as_given:,.0f} clean pairs"
    if round(worth.left) != round(worth.as_given):
        given += f", {worth.left:,.0f} without the pairs that other steps drop"
    by_decided = f"these decisions make that {times_interval(worth.decided)} as many; " if worth.decided else ""
    return f"{given}; {by_decided}with --action {by_action} as many (80% intervals)"


def removal_line(column: ColumnRemoval) -> str:
    worst = ", ".join(f"{part.value} {part.removed:.0%} of {part.pairs:,}" for part in column.worst)
    others = f", {column.others} more" if column.others else ""
    return f"removed by {column.name}: {worst}{others}"


def already_done_lines(out: Path, shards: ShardsManifest) -> list[str]:
    counts = shards.counts
    done = f"{out}: already done, {counts['kept']:,} of {counts['pairs'] - counts[TOO_LONG]:,} scored pairs kept"
    return [done, *([too_long_line(shards.too_long)] if shards.too_long else [])]


def written_line(out: Path, counts: Mapping[str, int], files: int) -> str:
    said = f"wrote {out}: {counted(counts['kept'], 'pair')} in {counted(files, 'file')}"
    gone = counts["pairs"] - counts["kept"]
    return f"{said}; dropped pairs, each with its reason, are in {out / 'dropped'}" if gone else said


# ---------------------------------------------------------------------------------------------------- rules


def comparison_lines(comparison: Comparison) -> list[str]:
    """At most 25 lines for a terminal."""
    check, end = comparison.check, comparison.end
    rate = (
        f"an estimated {percent_interval(comparison.noise_rate)} of their labels are wrong"
        if comparison.noise_rate is not None
        else f"too few to tell how many of their labels are wrong, which needs {ENOUGH}"
    )
    said = [
        f"{comparison.pairs:,} scored pairs, last checkpoint {end}; {rate}",
        evidence_line(comparison.sources, comparison.missing),
    ]
    if not comparison.held_out:
        said.append(f"{end} is not held out, so precision and recall are not estimated for rules that use it")
    return [
        *said,
        f"self-check: AUROC of swapped copies {check.measured:.3f}, {check.predicted:.3f} expected for "
        f"normal margins with accuracy {check.accuracy:.3f}",
        f"at --high-q {comparison.high_q:g}    flagged  overlap with {COMPARED_WITH}  precision             recall",
        *map(rule_line, comparison.rules),
        RANDOM_FLIPS,
        lengths_line(comparison.lengths),
    ]


def rule_line(rule: RuleAtCut) -> str:
    of = rule.estimated
    if of is None:
        estimates = "-"
    elif of.flagged < MIN_FLAGGED:
        estimates = f"too few to tell: needs at least {MIN_FLAGGED} flagged"
    else:
        estimates = f"{interval_text(of.precision):20}  {interval_text(of.recall)}"
    return f"  {rule.rule:16} {rule.flagged:9,} {rule.overlap:17.0%}  {estimates}"


def interval_text(interval: Interval) -> str:
    """The interval alone where it is so wide that the estimate says nothing."""
    if not math.isfinite(interval.value):
        return "-"
    value = f"{interval.value:.2f}" if telling(interval) else "   ?"
    return f"{value} [{interval.low:.2f}, {interval.high:.2f}]"


def times_interval(interval: Interval) -> str:
    return f"{interval.value:.2f} times [{interval.low:.2f}, {interval.high:.2f}]"  # of 80%


def percent_interval(interval: Interval) -> str:
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"
