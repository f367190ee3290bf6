"""What commands say of their results: dataclasses to lines for people.

What computes returns figures; the sentences around them are here. (Errors are raised where a mistake is met, with what
was found and how to mend it.) This module names the types of every room and imports none of their code, so that every
room may use it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmo_train.evaluation.comparison import Comparison, Difference
    from rmo_train.evaluation.result import Evaluation
    from rmo_train.evaluation.winrate.results import CheckedRates, JudgedRates
    from rmo_train.forward.layout import Layout, Lengths, Obstacle
    from rmo_train.training.command import Trained
    from rmo_train.training.hints import Hint
    from rmo_train.training.job import StepZero
    from rmo_train.training.plan import Plan
    from rmo_train.training.settings import TrainSettings


# ---------------------------------------------------------------------------------------------------- before step 1


def dry_run_lines(model: str, shards: Path, out: Path, plan: Plan, settings: TrainSettings) -> list[str]:
    return [f"would train {model} on {shards} into {out}", *plan_lines(plan, settings)]


def already_trained(out: Path) -> str:
    return f"{out}: already trained with these settings; nothing to do (--overwrite trains again)"


def plan_lines(plan: Plan, settings: TrainSettings) -> list[str]:
    """What a training run will do."""
    amplified = "off"
    if a := plan.amplifier:
        amplified = f"weight {a.weight:.4g}, median {a.median:.4g}, scale {a.scale:.4g}, margin: {a.unit}"
    fraction = plan.bound_fraction(settings.seed)
    mixed = "off" if fraction is None else f"{settings.diversify_margin} margin, {fraction:.4%} of the bound"
    sft = f", SFT weight {plan.parameters.sft_weight:g}" if plan.parameters.sft_weight else ""
    return [
        f"{plan.pairs:,} pairs, {plan.tokens_per_epoch:,} tokens an epoch (prompts shared)",
        f"{plan.steps} steps of {plan.pairs_per_step} pairs, {plan.batches_per_epoch} an epoch, "
        f"{plan.warmup_steps} of warm-up, peak learning rate {settings.peak_learning_rate:g}",
        f"loss {settings.loss}, beta {plan.parameters.beta:g}{sft}",
        f"amplification: {amplified}",
        f"diversification: {mixed}",
        "labels: certain" if plan.confidence is None else f"labels: soft, mean confidence {plan.confidence:.3f}",
    ]


def layout_line(layout: Layout) -> str:
    """Which attention path a model takes on its data, and why."""
    name = "plain rows" if layout.path == "rows" else f"{layout.path} attention"
    if (choice := layout.choice) is None:
        return name
    if choice.asked:
        why = "as asked"
    elif choice.followed:
        why = "as the references were computed"
    elif layout.path != "rows":
        why = _savings(choice.lengths)
    elif choice.obstacle is not None:
        why = obstacle_line(choice.obstacle)
    else:
        why = f"{_savings(choice.lengths)}, too little to gain by it"
    differs = "" if layout.path == "rows" else f" (differs from plain rows by {choice.gap:.1g} nats per token)"
    path, device = choice.reference
    unlike = f"; the references were computed by {path} on {device}" if path not in (None, layout.path) else ""
    return f"{name}: {why}{differs}{unlike}"


def _savings(lengths: Lengths) -> str:
    return f"sharing prompts saves {lengths.saved:.0%} of the tokens, {lengths.pair:.0f} are left a pair"


def obstacle_line(met: Obstacle) -> str:
    """Why a model does not take an attention path."""
    if met.window is not None:
        return f"the model's sliding window ({met.window}) is shorter than the data ({met.longest})"
    if met.error is not None:
        return f"the model takes no packed rows ({met.error})"
    return f"packed rows differ by {met.gap:.2g} nats per token on this architecture"


def references_missing(data: Path, kept_in: Path) -> str:
    return f"{data} has no reference log-probs: computed once with the untrained model, kept in {kept_in}"


def step_zero(check: StepZero | None) -> str:
    """That the untrained policy is the reference; None: there is nothing to compare it with."""
    if check is None:
        return "no reference columns to compare the policy with"
    return (
        f"step 0: policy reproduces the reference columns (mean margin {check.mean_margin:+.1e} nats, "
        f"tolerance {check.tolerance:.1e})"
    )


# ---------------------------------------------------------------------------------------------------- while it trains

# By the name of a hint (`rmo_train.training.hints`); its figures fill the sentence.
HINTS = {
    "both fall": (
        "chosen and rejected answers both get less likely (rewards {chosen:+.2f} and {rejected:+.2f} since the start): "
        "the model moves away from both; try --sft-weight 0.1, a lower --learning-rate or a higher --beta"
    ),
    "too easy": (
        "accuracy 1.0 and loss {loss:.3f} on pairs seen for the first time: either something gives the labels away "
        "(length, a phrase, repeated pairs: `rmo-curate audit` shows it), or the steps are too large; try a lower "
        "--learning-rate"
    ),
    "against the labels": (
        "the first {count} margins are all negative (mean {margin:+.2f}, accuracy {accuracy:.2f}): are chosen and "
        "rejected swapped in a part of the data? `rmo-curate inspect DATA` shows samples; if not, try a lower "
        "--learning-rate"
    ),
    "held out reversed": (
        "accuracy {trained:.2f} in training and {held_out:.2f} on --eval-data: are chosen and rejected swapped in one "
        "of the two? `rmo-curate inspect DATA` shows samples"
    ),
    "ranks by length": (
        "accuracy {longer:.2f} where the chosen answer is the longer and {shorter:.2f} where it is the shorter: the "
        "policy ranks by length, and its answers will grow; try --loss simpo (rewards per token), and look at lengths "
        "in the report of `rmo-curate audit`"
    ),
    "ranks by length, held out": (
        "held-out accuracy {plain:.2f}, of which {gap:.2f} is gone when lengths are matched: the policy ranks by "
        "length, and its answers will grow; try --loss simpo (rewards per token), and look at lengths in the report of "
        "`rmo-curate audit`"
    ),
    "flat": (
        "after {step} of {steps} steps the margins have not moved (mean {margin:+.3f}, accuracy {accuracy:.2f}): try a "
        "higher --learning-rate (the highest so far was {peak:.2g}; ten times that is a usual next value)"
    ),
    "loss rises": (
        "the loss has risen from {start:.3f} to {now:.3f}, gradients scaled down in {scaled:.0%} of the steps: the "
        "steps are too large; try a lower --learning-rate or a longer --warmup-ratio"
    ),
}


def hint_line(hint: Hint) -> str:
    return f"hint, step {hint.step}: {HINTS[hint.name].format(**hint.figures)}"


def speed_line(metrics: Mapping[str, Any]) -> str:
    """How fast the run's steps were."""
    return (
        f"{metrics['pairs_per_second']:.3g} pairs/s, {metrics['tokens_per_second']:,.0f} tokens/s, "
        f"{metrics['matmul_share']:.0%} of the matrix-product rate, at most {metrics['peak_memory_gib']:.2f} GiB"
    )


def trained_lines(trained: Trained) -> list[str]:
    """What a training run came to."""
    lines = [f"trained {trained.steps} steps on {trained.pairs} pairs; model in {trained.out}"]
    if trained.metrics:
        lines.append(speed_line(trained.metrics))
    if trained.best is not None:
        lines.append(
            f"the model is {trained.best.name}: it has the best reward accuracy on --eval-data, so the figures below "
            "flatter it"
        )
    return [*lines, *(evaluation_lines(trained.evaluation) if trained.evaluation else [])]


def merged_line(adapter: Path, base: str, dtype: str, out: Path) -> str:
    return f"{adapter} merged into {base}: a {dtype} model in {out}"


# ---------------------------------------------------------------------------------------------------- answers


def form_line(title: str, markers: Sequence[str] | None) -> str:
    """Which form answers are written in, and by which fields of the prompts; None: they have no benchmark's."""
    fields = "no benchmark's fields" if markers is None else " and ".join(f"`{name}`" for name in markers)
    return f"answers in the form of {title}: the prompts have {fields}"


def generated_lines(generator: str, out: Path, answers: int, cut: int, max_new_tokens: int) -> list[str]:
    """How many answers were written, and how many of them did not end by themselves."""
    lines = [f"{answers} answers of {generator} in {out}"]
    return [*lines, f"{cut} of them were cut at --max-new-tokens {max_new_tokens}"] if cut else lines


# ---------------------------------------------------------------------------------------------------- how good it is


def evaluation_lines(evaluation: Evaluation) -> list[str]:
    matched = f"   of {counted(evaluation.length_matched_n, 'pair')}"
    few = ", too few to tell" if evaluation.few else ""
    return [
        f"{of_prompts(evaluation.n, evaluation.prompts)}{few}; accuracy with 95% interval over prompts",
        f"  reward                  {evaluation.reward_accuracy}   (the reference itself: 0.500)",
        f"  reward, length-matched  {evaluation.length_matched_reward_accuracy}{matched}",
        f"  log-prob                {evaluation.logp_accuracy}",
        f"  mean log-prob           {evaluation.mean_logp_accuracy}",
        f"  the longer wins         {evaluation.length_accuracy}",
    ]


def counted(number: int, thing: str) -> str:
    """A number of things: 1 pair, 2 pairs."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def of_prompts(pairs: int, prompts: int) -> str:
    return f"{counted(pairs, 'pair')} of {counted(prompts, 'prompt')}"


def own_reference(model: str) -> str:
    return f"{model} is the reference itself: its log-probs are read from the data, nothing is computed"


def overlap_warning(evaluated: Path, pairs: int, prompts: int) -> str:
    return f"warning: {pairs} pairs and {prompts} prompts of {evaluated} were in this model's training data"


def comparison_lines(comparison: Comparison) -> list[str]:
    m, matched = comparison.mcnemar, comparison.length_matched_reward_accuracy
    once = ", a prompt counted once" if comparison.prompts < comparison.pairs else ""
    lines = [
        f"{of_prompts(comparison.pairs, comparison.prompts)}; A -> B, and B - A with 95% interval over prompts, paired",
        f"  reward accuracy         {_difference(comparison.reward_accuracy)}",
        f"  reward, length-matched  {_difference(matched)}   of {counted(matched.n, 'pair')}",
        f"  right by B alone {m.b_alone}, by A alone {m.a_alone} of {counted(comparison.pairs - m.ties, 'pair')}: "
        f"exact two-sided p = {m.p:.2g} (McNemar{once})",
    ]
    if m.ties:
        ties = f"{counted(m.ties, 'pair')} with a margin of 0 count{'s' * (m.ties == 1)}"
        lines.append(f"  {ties} for neither there, and half in the accuracies")
    if not comparison.same_reference:
        lines.append("note: the margins of A and B are taken against two different references")
    return lines


def _difference(figure: Difference) -> str:
    return f"{figure.a:.3f} -> {figure.b:.3f}   {figure.difference:+}   {figure.verdict}"


def rates_lines(rates: CheckedRates | JudgedRates) -> list[str]:
    """By whichever method they were found."""
    return judged_lines(rates) if rates.method == "judge" else checked_lines(rates)


def checked_lines(rates: CheckedRates) -> list[str]:
    """Win rates by programs that check constraints."""
    return [
        *_heading(rates),
        f"                              {'A':<23} B",
        f"  satisfied, strict           {rates.strict_a!s:<23} {rates.strict_b}",
        f"  satisfied, loose            {rates.loose_a!s:<23} {rates.loose_b}",
        f"  win rate of A, strict       {rates.win_rate}   ties one half: {_of_a(rates.verdict)}",
        f"  win rate of A, loose        {rates.loose_win_rate}",
    ]


def judged_lines(rates: JudgedRates) -> list[str]:
    """Win rates by a judge."""
    missing = f"{rates.unparsable} verdicts without A, B or tie on the last line, {rates.failed} that never came"
    lines = [
        *_heading(rates),
        f"judge {rates.judge_model}: {rates.judged} of {rates.pairs} pairs of answers in both orders",
    ]
    if rates.win_rate is None:
        return [*lines, f"  no pair has two verdicts: {missing}"]
    controlled = rates.length_controlled or "not defined: all pairs differ in length by the same"
    lines += [
        f"  win rate of A               {rates.win_rate}   ties one half: {_of_a(rates.verdict)}; of "
        f"{of_prompts(rates.judged, rates.judged_prompts)}",
        f"  length-controlled           {controlled}",
        f"  A wins, loses, neither      {rates.wins}, {rates.losses}, {rates.split}",
        f"  mean length                 {rates.length_a:,.0f} and {rates.length_b:,.0f} characters",
    ]
    if rates.first_shown is not None:
        lines.append(f"  for the one shown first     {rates.first_shown:.3f} of {rates.sided:,} verdicts for a side")
    return [*lines, f"  left out: {missing}"] if rates.judged < rates.pairs else lines


def _heading(rates: CheckedRates | JudgedRates) -> list[str]:
    return [f"A: {rates.a}", f"B: {rates.b}", f"{counted(rates.prompts, 'prompt')}; 95% intervals over prompts"]


def _of_a(verdict: str | None) -> str:
    return f"A is {verdict}" if verdict in ("higher", "lower") else str(verdict)
