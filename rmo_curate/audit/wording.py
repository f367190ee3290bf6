"""The sentences of an audit: the headline, what the filter does, what "held out" means here, what to do next."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from rmo_curate.audit.checks import Checked
from rmo_curate.audit.estimates import LEAST_PAIRS, Estimates, TooFew
from rmo_curate.audit.findings import Counts, LengthBias
from rmo_curate.audit.numerals import percent
from rmo_curate.evidence.expected import outlook
from rmo_curate.evidence.gather import LEAST_PROMPTS
from rmo_curate.evidence.rules import RULES
from rmo_curate.evidence.swapped_copies import MIN_FLAGGED
from rmo_curate.evidence.wording import RANDOM_FLIPS, outlook_lines
from rmo_curate.filter.settings import FilterSettings, flags_of
from rmo_curate.read.memory import IN_MEMORY
from rmo_curate.runs.run import Checkpoint
from rmo_train.report import keeping_them
from rmo_train.store.manifests import TooLong
from rmo_train.store.tables import TOO_LONG

HELD_OUT = (
    "Held out means: the model that scored a pair was trained on other prompts only, so it cannot have memorised "
    "a wrong label."
)


SUSPECTS = "A suspect is a pair to look at: some are wrong labels, some are hard, some are matters of taste."
LIKELIHOOD = (
    "The percentage is P(label right), the probability that a pair's label is right given all evidence: below 50%, the "
    "label is more likely wrong."
)
TOKENS_ESTIMATED = "an estimate, four bytes of UTF-8 a token"
BASE_MARGIN, END_MARGIN = "base log-prob", "end reward"  # the margins set against length


@dataclass(frozen=True)
class Step:
    text: str
    command: str | None = None


@dataclass(frozen=True)
class Wording:
    """Everything the page says in sentences; empty where there is nothing to say."""

    lead: str
    sentences: tuple[str, ...]
    warning: str
    missing: str  # which command adds what a run without a proxy lacks
    filter_text: str
    length_text: str
    suspects_text: str
    held_out_text: str
    next_steps: tuple[Step, ...]


def wording(
    folder: Path,
    counts: Counts,
    end: Checkpoint | None,
    share_against: float,
    length: LengthBias | None,
    settings: FilterSettings,
    estimated: Estimates,
    too_long: TooLong | None,
) -> Wording:
    """`share_against` is the share of scored pairs whose reward margin at `end` is below zero."""
    return Wording(
        lead=lead(counts, end, share_against, estimated),
        sentences=(
            *too_long_sentences(too_long),
            *noise_sentences(estimated, "the filter calls noisy"),
            *sentences(counts, end, share_against, settings, estimated),
            *outlook_lines(outlook(counts.scorable, scored=True)),
        ),
        warning=warning(folder, end),
        missing="" if end else missing(folder),
        filter_text=filter_text(settings),
        length_text=length_text(length),
        suspects_text=f"{SUSPECTS} {LIKELIHOOD}" if RULES[settings.rule].says_odds else SUSPECTS,
        held_out_text=held_out_text(end),
        next_steps=next_steps(folder, end, settings),
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
    data: tuple[str, ...], counts: Counts, checked: Checked, length: LengthBias | None, estimated: Estimates
) -> Wording:
    """The sentences of an audit without a model."""
    flagged = int(checked.any.sum())
    share = flagged / counts.pairs if counts.pairs else 0.0
    return Wording(
        lead=f"{counts.records:,} records, {counts.pairs:,} usable pairs. "
        + (
            f"{wrong_labels(estimated)} of the labels look wrong, by their texts alone."
            if estimated.known
            else f"{flagged:,} of them ({percent(share)}) have something to look at."
        ),
        sentences=(*noise_of_data(counts, estimated), *data_sentences(checked, length, flagged, share)),
        warning=overlap_warning(checked),
        missing=SCORES_MISSING,
        filter_text="",
        length_text=length_text(length),
        suspects_text=f"{SUSPECTS} {LIKELIHOOD} Then come pairs with a finding, by points."
        if estimated.known
        else "Points say how much a pair's findings speak against its label or its use; they order the list.",
        held_out_text="No model has scored these pairs: everything here was told from their texts. What is learned "
        "from the labels of some prompts is only asked about others.",
        next_steps=(
            Step("Read the pairs below, decide, and download the decisions. Then find more wrong labels with a model:"),
            *scoring_steps(data),
        ),
    )


def scoring_steps(data: tuple[str, ...]) -> tuple[Step, ...]:
    """How data are scored and audited: data in memory from Python."""
    if IN_MEMORY in data:
        return (Step("", 'rmo_curate.score(data, "MODEL").report()'),)
    names = " ".join(shlex.quote(name) for name in data)
    return (Step("", f"rmo-curate score {names} --model MODEL --out RUN"), Step("", "rmo-curate audit RUN --out DIR"))


SCORES_MISSING = (
    "Texts alone tell some of the wrong labels; scoring with a model finds more: "
    "`rmo-curate score DATA --model MODEL --out RUN`, then `rmo-curate audit RUN`."
)


def noise_of_data(counts: Counts, estimated: Estimates) -> tuple[str, ...]:
    """What is estimated from texts alone, or why nothing is."""
    said = noise_sentences(estimated, "are more likely labelled wrongly than rightly")
    if estimated.too_few:
        said = (f"How many labels are wrong cannot be estimated: {too_few_text(estimated.too_few)}.",)
    return (*said, SCORES_MISSING, *outlook_lines(outlook(counts.pairs, scored=False)))


def too_few_text(few: TooFew) -> str:
    """Why nothing can be estimated."""
    if few.prompts < LEAST_PROMPTS:
        return "all pairs have one prompt, and what is learned from a prompt is asked of others only"
    return f"there are {few.pairs} pairs, and nothing can be estimated of fewer than {LEAST_PAIRS}"


def tokens_counted_by(reference: str) -> str:
    return f"the tokenizer of {reference}"


def data_sentences(checked: Checked, length: LengthBias | None, flagged: int, share: float) -> tuple[str, ...]:
    said = [f"{flagged:,} pairs ({percent(share)}) have a finding in their texts."]
    reversed_pairs, circled = (int((checked.where[name] > 0).sum()) for name in ("reversed", "cycle"))
    if reversed_pairs:
        said.append(
            f"{reversed_pairs:,} pairs have a counterpart that prefers the same two answers the other way round: one "
            "of each two labels is wrong, or both are a matter of taste."
        )
    if circled:
        said.append(f"{circled:,} pairs are part of a circle of preferences, A over B over C over A.")
    if length:
        unequal = length.chosen_longer + length.rejected_longer
        bias = length.chosen_longer / unequal if unequal else 0.5
        said.append(
            f"The longer answer is preferred in {percent(bias)} of the pairs whose answers differ in length"
            + (": a model trained on these learns to write more." if bias > 0.65 else ".")
        )
    return tuple(said)


def overlap_warning(checked: Checked) -> str:
    overlap = checked.overlap
    if overlap is None or not overlap.pairs:
        return ""
    return (
        f"{overlap.pairs:,} pairs have a prompt that is in {overlap.name}, too, or nearly: what is measured there is "
        "not held out."
    )


def noise_sentences(estimated: Estimates, cut: str) -> tuple[str, ...]:
    """The noise rate and what the cut finds, as far as they are known. cut: what is said of the pairs above it."""
    if not estimated.known:
        return ()
    rate = estimated.noise_rate
    said = [f"The estimated noise rate is {percent(rate.value)} ({percent(rate.low)} to {percent(rate.high)})."]
    if estimated.wide:
        said.append(
            "That is a wide interval: the evidence is too weak to tell wrong labels from hard pairs. More data or more "
            "evidence narrows it."
        )
    detection = estimated.at_cut
    if detection and detection.flagged >= MIN_FLAGGED:
        precision, recall = detection.precision, detection.recall
        said.append(
            f"Of the {detection.flagged:,} pairs that {cut}, swapped copies say, {percent(precision.value)} "
            f"({percent(precision.low)} to {percent(precision.high)}) are labelled wrongly; of labels flipped at "
            f"random, {percent(recall.value)} ({percent(recall.low)} to {percent(recall.high)}) would be among them."
        )
    said.append(f"{RANDOM_FLIPS[0].upper()}{RANDOM_FLIPS[1:]}.")
    return tuple(said)


def wrong_labels(estimated: Estimates) -> str:
    """The share of wrong labels as a headline has it: no single number where the interval is wide."""
    rate = estimated.noise_rate
    if estimated.wide:
        return f"Somewhere between {percent(rate.low)} and {percent(rate.high)}"
    return f"About {percent(rate.value)}"


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


def lead(counts: Counts, end: Checkpoint | None, share_against: float, estimated: Estimates) -> str:
    have = f"{counts.records:,} records, {counts.pairs:,} usable pairs"
    if estimated.known:
        return f"{have}. {wrong_labels(estimated)} of the labels look wrong."
    if end is None:
        return f"{have}. Only the reference has scored them."
    taught = "the other prompts" if end.held_out else "this data" if end.held_out is False else f"the way to {end.name}"
    return f"{have}. For {percent(share_against)} of the pairs, training on {taught} points against the label."


def sentences(
    counts: Counts, end: Checkpoint | None, share_against: float, settings: FilterSettings, estimated: Estimates
) -> tuple[str, ...]:
    """What the filter does; and where no noise rate is estimated, what to make of the lead."""
    by_filter = {reason: n for reason, n in counts.dropped.items() if reason != TOO_LONG}
    dropped = ", ".join(f"{n:,} {reason}" for reason, n in by_filter.items()) or "none"
    scored = "scored pairs" if TOO_LONG in counts.dropped else "pairs"
    kept = f"The filter keeps {counts.kept:,} {scored} and drops {sum(by_filter.values()):,} ({dropped})."
    if end is None:
        return (kept,)
    said = [kept]
    if not estimated.known:
        said.insert(
            0,
            "That is the share that looks like noise. It counts hard pairs along with wrong labels and misses some "
            "wrong ones: an indication, not an error rate.",
        )
    wrong = estimated.noise_rate.value if estimated.known else share_against
    high_q = settings.high_q if settings.preset is None and settings.rule != "none" else None
    if high_q is not None and 1 - high_q < wrong:
        said.append(
            f"At --high-q {high_q:g} at most {100 * (1 - high_q):.3g}% of the pairs can go as noisy; "
            "lower it to drop more of them."
        )
    return tuple(said)


def warning(folder: Path, end: Checkpoint | None) -> str:
    if end is None or end.held_out:
        return ""
    remedy = f"For scores that were, run `rmo-curate proxy {quoted(folder)}` and audit again."
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
        "Training has not been compared with the reference here, and wrong labels are told by less than could be: "
        f"`rmo-curate proxy {quoted(folder)}` fits and scores a cross-fitted probe, then audit again."
    )


def filter_text(settings: FilterSettings) -> str:
    ambiguous = "no cut of the ambiguous"
    if settings.low_q:
        how = "hard" if settings.hard else "soft"
        ambiguous = f"margin {settings.margin}, low-q {settings.low_q:g}, {how} cut of the ambiguous"
    by_hand = f"rule {settings.rule}, {cut_text(settings)}, {ambiguous}"
    chosen = f"preset {settings.preset}" if settings.preset else by_hand
    return f"What the filter would do with {chosen}. Shares are of the bold line above them."


def cut_text(settings: FilterSettings) -> str:
    """Where the number of noisy pairs is from."""
    if settings.high_q is not None:
        return f"high-q {settings.high_q:g}"
    if settings.precision is not None:
        return f"precision {settings.precision:g}"
    return "no cut of the noisy" if settings.noise_rate is None else f"noise rate {settings.noise_rate}"


def length_text(length: LengthBias | None) -> str:
    if length is None:
        return ""
    said = (
        f"The chosen answer is the longer one in {percent(length.chosen_longer)} of the pairs, the shorter one in "
        f"{percent(length.rejected_longer)}, equally long in {percent(length.equal)}. "
    )
    rewards = [t for t in length.trends if t.margin != BASE_MARGIN]
    if not rewards:
        return (
            said + "A sum of log-probs falls with length, so the base's margin is expected to fall from left to right."
        )
    strength = abs(rewards[-1].spearman)
    if strength < 0.2:
        return said + "The reward margin hardly follows the difference in length."
    if strength < 0.5:
        return said + "The reward margin follows the difference in length to some degree."
    return said + (
        "The reward margin follows the difference in length closely: what the model learned from these labels is "
        "largely length, so look for pairs where the longer answer is not the better one, and compare with "
        "--rule irm-ln."
    )


def held_out_text(end: Checkpoint | None) -> str:
    if end is None:
        return f"Only the reference has scored these pairs. {HELD_OUT}"
    if end.held_out:
        return f"{HELD_OUT} These scores are: of {end.folds} proxies, a pair is judged by one that left its prompt out."
    if end.held_out is False:
        return f"{HELD_OUT} These scores are not: the proxy was trained on all the pairs."
    return f"{HELD_OUT} Whether that holds for {end.name} is not known to this program."


def next_steps(folder: Path, end: Checkpoint | None, settings: FilterSettings) -> tuple[Step, ...]:
    if end is None:
        return (Step("Fit a cross-fitted probe, then audit again:", f"rmo-curate proxy {quoted(folder)}"),)
    return (
        Step(
            "Read the worst suspects below. Where most of them are labelled the wrong way round, filter:",
            filter_command(folder, settings),
        ),
        Step("Where most of them look right, give a smaller --noise-rate, so that fewer are dropped."),
    )


def filter_command(folder: Path, settings: FilterSettings) -> str:
    """The command that makes shards with the settings this page used."""
    changed = {k: v for k, v in settings.model_dump().items() if v != type(settings).model_fields[k].default}
    flags = flags_of(changed)
    return " ".join(["rmo-curate filter", quoted(folder), "--out SHARDS", *flags])


def quoted(folder: Path) -> str:
    return shlex.quote(str(folder))
