"""The sentences of an audit: how noisy the labels are, what the filter does, what "held out" means here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rmo_curate.audit.checks import Checked
from rmo_curate.audit.estimates import Estimates
from rmo_curate.audit.findings import Counts, LengthBias
from rmo_curate.audit.next_step import Step, proxy, step_of_data, step_of_run
from rmo_curate.audit.numerals import percent, percent_interval, signed
from rmo_curate.evidence.expected import outlook
from rmo_curate.evidence.label_noise import LEAST_FOR_RATE, Judgeable
from rmo_curate.evidence.rules import RULES
from rmo_curate.evidence.swapped_copies import MIN_FLAGGED, telling
from rmo_curate.evidence.wording import RANDOM_FLIPS, outlook_lines
from rmo_curate.filter.decisions import Decisions
from rmo_curate.filter.settings import AUTO, WEIGHING, FilterSettings
from rmo_curate.filter.wording import towards
from rmo_curate.runs.run import Checkpoint
from rmo_train.console.wording import counted
from rmo_train.evaluation.intervals import LEAST_PROMPTS
from rmo_train.report import keeping_them, of_prompts
from rmo_train.store.manifests import TooLong
from rmo_train.store.tables import TOO_LONG

HELD_OUT = (
    "Held out means: the model that scored a pair was trained on other prompts only, so it cannot have memorised "
    "a wrong label."
)
SUSPECTS = "A suspect is a pair to look at: some labels are wrong, some pairs are hard, some are a matter of taste."
LIKELIHOOD = (
    "The percentage is P(label right), the probability that a pair's label is right given all evidence; below 50% the "
    "label is more likely wrong than right."
)
TOKENS_ESTIMATED = "an estimate, four UTF-8 bytes per token"
BASE_MARGIN, END_MARGIN = "base log-prob", "end reward"  # the margins set against length


@dataclass(frozen=True)
class Wording:
    """Everything the page says in sentences; empty where there is nothing to say."""

    figure: str  # what the lead begins with: the noise rate, or its interval where that is wide
    lead: str  # how noisy the labels are
    certainty: str  # the interval of the noise rate, or why there is none
    sentences: tuple[str, ...]  # what the lead is based on
    warning: str
    missing: str  # the command that adds a proxy to a run that has none
    filter_text: str
    length_text: str
    suspects_text: str
    held_out_text: str
    next_step: Step


def wording(
    folder: Path,
    decisions: Decisions,
    counts: Counts,
    length: LengthBias | None,
    estimated: Estimates,
    too_long: TooLong | None,
) -> Wording:
    """The sentences of the audit of the run in `folder`."""
    settings, end = decisions.settings, decisions.trajectory.end
    return Wording(
        figure=figure(estimated),
        lead=lead(estimated, "scored pairs"),
        certainty=certainty(estimated),
        sentences=(
            *too_long_sentences(too_long),
            *noise_sentences(estimated, "scored pairs", noisy_text(settings)),
            *filter_sentences(counts, decisions, estimated),
            *outlook_lines(outlook(counts.scorable, scored=True)),
        ),
        warning=warning(folder, end),
        missing="" if end else missing(folder),
        filter_text=filter_text(settings),
        length_text=length_text(length),
        suspects_text=f"{SUSPECTS} {LIKELIHOOD}" if RULES[settings.rule].says_odds and estimated.known else SUSPECTS,
        held_out_text=held_out_text(end),
        next_step=step_of_run(folder, decisions, counts, estimated),
    )


def too_long_sentences(lost: TooLong | None) -> tuple[str, ...]:
    """What is lost to length, before anything is said of noise."""
    if lost is None:
        return ()
    limit = f"longer than {lost.max_length:,} tokens" if lost.max_length else "too long"
    return (
        f"{lost.pairs:,} of {lost.of:,} pairs ({percent(lost.pairs / lost.of)}) are {limit} and were not scored: "
        f"{keeping_them(lost)}.",
    )


def data_wording(
    data: tuple[str, ...],
    columns: Mapping[str, str],
    max_length: int | None,
    counts: Counts,
    checked: Checked,
    length: LengthBias | None,
    estimated: Estimates,
) -> Wording:
    """The sentences of an audit without a model. columns, max_length: as they were asked for."""
    judged = estimated.posterior is not None
    return Wording(
        figure=figure(estimated),
        lead=lead(estimated, "pairs", ", from their texts alone"),
        certainty=certainty(estimated),
        sentences=(
            *noise_sentences(estimated, "pairs", "are more likely mislabelled than not"),
            *data_sentences(counts, checked),
            SCORES_MISSING,
            *outlook_lines(outlook(counts.pairs, scored=False)),
        ),
        warning=overlap_warning(checked),
        missing=SCORES_MISSING,
        filter_text="",
        length_text=length_text(length),
        suspects_text=data_suspects_text(estimated)
        if judged
        else "Points say how strongly a pair's findings speak against its label or its use; they order the list.",
        held_out_text="No model has scored these pairs: everything here is estimated from their texts. What is learned "
        "from the labels of some prompts is used only to judge other prompts.",
        next_step=step_of_data(data, columns, max_length, pairs=counts.pairs),
    )


def data_suspects_text(estimated: Estimates) -> str:
    """In which order the page lists pairs that are judged by their texts."""
    told = f"{LIKELIHOOD} " if estimated.known else ""
    return (
        f"{SUSPECTS} {told}Pairs that contradict another pair, or with a visible fault in the chosen answer alone, "
        "come first; then labels that the evidence doubts; then the other pairs with a finding, by points."
    )


SCORES_MISSING = "Texts alone reveal some of the wrong labels; scoring with a model finds more."


def figure(estimated: Estimates) -> str:
    """The noise rate; where its interval is wide, that alone, since the likeliest value then says little."""
    rate = estimated.noise_rate
    if estimated.untold or not estimated.known:
        return ""
    return f"{percent(rate.low)} to {percent(rate.high)}" if estimated.wide else percent(rate.value)


def lead(estimated: Estimates, pairs: str, how: str = "") -> str:
    """How noisy the labels are: one number, or that none can be told. pairs: what the judged ones are called."""
    if why := estimated.untold:
        if why.pairs < LEAST_FOR_RATE and why.prompts > 1:
            return "Too few pairs to tell how noisy these labels are."
        if why.prompts < LEAST_PROMPTS:
            return "Too few prompts to tell how noisy these labels are."
        return "How noisy these labels are cannot be estimated."
    return f"{figure(estimated)} of the {estimated.pairs:,} {pairs} are estimated to be mislabelled{how}."


def certainty(estimated: Estimates) -> str:
    """How far the number of the lead can be relied on."""
    if estimated.untold:
        why = untold_text(estimated.untold)
        return f"{why[0].upper()}{why[1:]}."
    rate = estimated.noise_rate
    if estimated.wide:
        return (
            f"A 95% interval, with {percent(rate.value)} as the likeliest value: {estimated.pairs:,} pairs allow only "
            "a rough estimate."
        )
    return f"95% interval {percent(rate.low)} to {percent(rate.high)}: {estimated.pairs:,} pairs are enough to tell."


def untold_text(why: Judgeable) -> str:
    """Why no noise rate is told."""
    if why.prompts == 1:
        return "all pairs have the same prompt, and what is learned from one prompt is used only to judge others"
    if why.pairs < LEAST_FOR_RATE:
        are = "is" if why.pairs == 1 else "are"
        return f"there {are} {counted(why.pairs, 'pair')} to judge, and a noise rate needs at least {LEAST_FOR_RATE}"
    if why.prompts < LEAST_PROMPTS:
        return (
            f"there are {of_prompts(why.pairs, why.prompts)}, and a noise rate needs at least {LEAST_PROMPTS} prompts"
        )
    return (
        f"on {why.pairs:,} pairs, the evidence predicts held-out labels no better than chance: the labels are nearly "
        "random, or the answers do not differ in anything the evidence measures"
    )


def tokens_counted_by(reference: str) -> str:
    return f"the tokenizer of {reference}"


def data_sentences(counts: Counts, checked: Checked) -> Iterator[str]:
    flagged = int(checked.any.sum())
    share = flagged / counts.pairs if counts.pairs else 0.0
    if flagged:
        yield f"Pairs with a finding in their texts: {flagged:,} of {counts.pairs:,} ({percent(share)})."
    reversed_pairs, circled = (int((checked.where[name] > 0).sum()) for name in ("reversed", "cycle"))
    if reversed_pairs:
        yield (
            f"{reversed_pairs:,} pairs have a counterpart that prefers the same two answers the other way round: one "
            "of the two labels is wrong, or both are a matter of taste."
        )
    if circled:
        yield f"{circled:,} pairs are part of a circle of preferences, A over B over C over A."


def overlap_warning(checked: Checked) -> str:
    overlap = checked.overlap
    if overlap is None or not overlap.pairs:
        return ""
    return (
        f"{counted(overlap.pairs, 'pair')} {'has' if overlap.pairs == 1 else 'have'} a prompt that is also in "
        f"{overlap.name}, exactly or nearly: what is measured there is not held out."
    )


def noise_sentences(estimated: Estimates, pairs: str, cut: str) -> Iterator[str]:
    """What the cut finds, and what the noise rate counts. pairs: what the judged ones are called; cut: what is said of
    those above it."""
    if not estimated.known:
        return
    if estimated.wide:
        yield (
            f"The noise rate of the {estimated.pairs:,} {pairs} has a wide interval: a hard pair can look like a "
            "wrong label. More pairs or a larger model would narrow it."
        )
    detection = estimated.at_cut
    if detection and detection.flagged >= MIN_FLAGGED:
        estimates = (
            (detection.precision, "of the {n:,} pairs that {cut}, {share} are mislabelled"),
            (
                detection.recall,
                "of all labels flipped at random in the {of:,} {pairs}, {share} are among the {n:,} that {cut}",
            ),
        )
        for estimate, said in estimates:
            if told := telling(estimate):
                numbers = {"n": detection.flagged, "of": estimated.pairs, "share": percent_interval(told)}
                yield f"According to swapped copies, {said.format(cut=cut, pairs=pairs, **numbers)}."
    yield f"{RANDOM_FLIPS[0].upper()}{RANDOM_FLIPS[1:]}."


def standing(checkpoint: Checkpoint) -> str:
    """Whether its scores are held out, in a word or two."""
    if checkpoint.kind == "base":
        return "the reference's"
    return {True: "held out", False: "in-sample", None: "unknown"}[checkpoint.held_out]


def moved_by(end: Checkpoint | None) -> str:
    """What moved the model between the base and the end: the beginning of a sentence, up to how far."""
    if end is not None and end.is_probe:
        return f"A probe fitted on {'other prompts' if end.held_out else 'this data, this pair included,'} points"
    if end is not None and end.held_out:
        return "Training on other prompts moved the model"
    if end is not None and end.held_out is False:
        return "Training on this data, this pair included, moved the model"
    return f"Training up to {end.name if end else 'the end'} moved the model"


def noisy_text(settings: FilterSettings) -> str:
    """What is said of the pairs that the filter calls noisy; where it drops none, of those whose label it doubts."""
    return "have a doubted label" if settings.action in WEIGHING else "the filter calls noisy"


def filter_sentences(counts: Counts, decisions: Decisions, estimated: Estimates) -> Iterator[str]:
    """What the filter does, and where its settings keep it from doing more."""
    settings = decisions.settings
    by_filter = {reason: n for reason, n in counts.dropped.items() if reason != TOO_LONG}
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in by_filter.items())
    gone = sum(by_filter.values())
    if gone:
        yield (
            f"Of {counts.kept + gone:,} scored pairs, the filter keeps {counts.kept:,} and drops {gone:,} ({dropped})."
        )
    else:
        yield f"The filter keeps all {counted(counts.kept, 'scored pair')}."
    if decisions.softness:
        yield f"The trainer softens every label {towards(decisions.softness)}."
    elif settings.action == AUTO and estimated.known:
        yield "Labels stay as they are."
    high_q = settings.high_q if settings.preset is None and settings.rule != "none" else None
    if decisions.trajectory.end and estimated.known and high_q is not None and 1 - high_q < estimated.noise_rate.value:
        yield (
            f"With --high-q {high_q:g}, at most {100 * (1 - high_q):.3g}% of the scored pairs can be dropped as noisy; "
            "lower it to drop more."
        )


def warning(folder: Path, end: Checkpoint | None) -> str:
    if end is None or end.held_out:
        return ""
    remedy = f"For held-out scores, run `{proxy(folder)}` and audit again."
    if end.held_out is False:
        return (
            f"These scores were not held out: {end.name} was trained on the very pairs that it judges. It can memorise "
            f"wrong labels, and those then look clean. {remedy}"
        )
    return (
        f"Whether these scores are held out is unknown: they come from the checkpoint {end.name}, which may have been "
        f"trained on these pairs. {remedy}"
    )


def missing(folder: Path) -> str:
    return (
        "Only the reference has scored these pairs, so some evidence about wrong labels is missing. Run "
        f"`{proxy(folder)}` to fit a cross-fitted probe and score the pairs with it, then audit again."
    )


def filter_text(settings: FilterSettings) -> str:
    ambiguous = "no cut of ambiguous pairs"
    if settings.low_q:
        how = "hard" if settings.hard else "soft"
        ambiguous = f"margin {settings.margin}, low-q {settings.low_q:g}, {how} cut of ambiguous pairs"
    by_hand = f"rule {settings.rule}, {cut_text(settings)}, {ambiguous}"
    chosen = f"preset {settings.preset}" if settings.preset else by_hand
    return f"What the filter does with {chosen}. Each share is of the bold line above it."


def cut_text(settings: FilterSettings) -> str:
    """Where the number of noisy pairs is from."""
    if settings.high_q is not None:
        return f"high-q {settings.high_q:g}"
    if settings.precision is not None:
        return f"precision {settings.precision:g}"
    if settings.noise_rate is not None:
        return f"noise rate {settings.noise_rate}"
    return f"action {settings.action}" if settings.action in WEIGHING else "no cut of noisy pairs"


def length_text(length: LengthBias | None) -> str:
    if length is None:
        return ""
    said = (
        f"Of {counted(length.n, 'pair')}, the chosen answer is the longer one in {percent(length.chosen_longer)}, the "
        f"shorter one in {percent(length.rejected_longer)}, equally long in {percent(length.equal)}. "
    )
    rewards = [t for t in length.trends if t.margin != BASE_MARGIN]
    if not rewards:
        return (
            said + "A sum of log-probs falls with length, so the base's margin is expected to fall from left to right."
        )
    reward = rewards[-1]
    strength, of = abs(reward.spearman), f"{signed(reward.spearman, 2)} over {reward.n:,} scored pairs"
    if reward.n < LEAST_PROMPTS:
        few = "are too few to tell whether the reward margin follows the difference in length."
        return f"{said}{counted(reward.n, 'scored pair')} {few}"
    if strength < 0.2:
        return f"{said}The reward margin hardly follows the difference in length (rank correlation {of})."
    if strength < 0.5:
        return f"{said}The reward margin follows the difference in length to some degree (rank correlation {of})."
    return (
        f"{said}The reward margin follows the difference in length closely (rank correlation {of}): what the model "
        "learned from these labels is largely length, so look for pairs where the longer answer is not the better one, "
        "and compare with --rule irm-ln."
    )


def held_out_text(end: Checkpoint | None) -> str:
    if end is None:
        return f"Only the reference has scored these pairs. {HELD_OUT}"
    if end.held_out:
        return (
            f"{HELD_OUT} These scores are: each pair is judged by one of {end.folds} proxies that never saw its prompt."
        )
    if end.held_out is False:
        return f"{HELD_OUT} These scores are not: the proxy was trained on all the pairs."
    return f"{HELD_OUT} Whether that holds for {end.name} is unknown."
