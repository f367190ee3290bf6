"""The messages of the trainer's commands: dataclasses -> lines for people.

Code that computes returns figures; the sentences around them are here. (Errors are raised where a mistake is found,
with their own words.) This module uses the types of all rooms but imports none of their code, so that any room may use
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmo_train.console.errors import size_text
from rmo_train.console.wording import counted

if TYPE_CHECKING:
    from rmo_train.evaluation.comparison import Comparison, Difference
    from rmo_train.evaluation.result import Evaluation
    from rmo_train.evaluation.winrate.results import CheckedRates, JudgedRates
    from rmo_train.forward.layout import Layout, Lengths, Obstacle
    from rmo_train.store.manifests import TooLong
    from rmo_train.training.command import Trained
    from rmo_train.training.hints import Hint
    from rmo_train.training.job import StepZero
    from rmo_train.training.plan import Plan
    from rmo_train.training.settings import TrainSettings


NAMED = 3  # ids in a warning

# ---------------------------------------------------------------------------------------------------- before step 1


def dry_run_lines(model: str, shards: Path, out: Path, planned: Sequence[str]) -> list[str]:
    return [f"would train {model} on {shards} and write it to {out}", *planned]


def unfiltered_line(run: Path, pairs: int) -> str:
    all_ = f"all of its {counted(pairs, 'pair')} are trained on"
    return f"{run} is a run folder, not shards: nothing was filtered, so {all_}"


def already_trained(out: Path) -> str:
    return f"{out}: already trained with these settings, nothing to do (--overwrite trains it again)"


def plan_lines(plan: Plan, settings: TrainSettings) -> list[str]:
    """What a training run will do."""
    amplified = "off"
    if a := plan.amplifier:
        amplified = f"weight {a.weight:.4g}, median {a.median:.4g}, scale {a.scale:.4g}, margin: {a.unit}"
    fraction = plan.bound_fraction(settings.seed)
    mixed = "off" if fraction is None else f"{settings.diversify_margin} margin, {fraction:.4%} of the bound"
    sft = f", SFT weight {plan.parameters.sft_weight:g}" if plan.parameters.sft_weight else ""
    return [
        f"{counted(plan.pairs, 'pair')}, {counted(plan.tokens_per_epoch, 'token')} per epoch (shared prompts counted "
        "once)",
        f"{counted(plan.steps, 'step')} of {counted(plan.pairs_per_step, 'pair')}, {plan.batches_per_epoch:,} per "
        f"epoch; warm-up: {counted(plan.warmup_steps, 'step')}; peak learning rate {settings.peak_learning_rate:g}",
        f"loss {settings.loss}, beta {plan.parameters.beta:g}{sft}",
        f"amplification: {amplified}",
        f"diversification: {mixed}",
        "labels: as given" if plan.confidence is None else f"labels: soft, mean confidence {plan.confidence:.3f}",
        *([] if plan.weight is None else [f"weights: mean {plan.weight:.3f} a pair"]),
    ]


def too_long_line(lost: TooLong) -> str:
    """How many pairs are lost to length, and how to keep them."""
    limit = f" of {lost.max_length:,} tokens" if lost.max_length else ""
    share = f"{lost.pairs:,} of {lost.of:,} pairs ({lost.pairs / lost.of:.0%})"
    return f"not scored, over the length limit{limit}: {share}; {keeping_them(lost)}"


def keeping_them(lost: TooLong) -> str:
    """The flag of `score` that keeps pairs that are now too long."""
    if lost.longest is None:
        return "score with a larger --max-length to keep them"
    if lost.context is None or lost.longest <= lost.context:
        return f"score with --max-length {lost.longest} to keep them"
    longest = f"the longest has {lost.longest:,} tokens, and the model's context is {lost.context:,}"
    if lost.max_length is not None and lost.max_length < lost.context:
        return f"score with --max-length {lost.context} to keep those that fit the model ({longest})"
    return f"{longest}: score with a model that has a longer context to keep them"


def too_long_to_train(
    over: Sequence[tuple[str, int]], limit: int, needed: int, room: int, *, checkpointing: bool
) -> str:
    """A warning about pairs that may not fit into memory: (id, tokens of prompt and both responses), longest first.

    limit: tokens that surely fit; needed: bytes of the longest pair's row; room: bytes available for it.
    """
    named = ", ".join(f"{pair} ({tokens:,} tokens)" for pair, tokens in over[:NAMED])
    more = f" and {len(over) - NAMED:,} more" if len(over) > NAMED else ""
    smaller = "" if checkpointing else "--gradient-checkpointing, "
    return (
        f"warning: these pairs have more than the {limit:,} tokens (prompt and both responses) that are sure to fit "
        f"into memory in training: {named}{more}. The longest takes about {needed / 2**30:.2g} GiB of "
        f"{room / 2**30:.2g}; if it does not fit: {smaller}--lora, --bf16, or score with a smaller --max-length and "
        "filter again"
    )


def checkpoint_lines(settings: TrainSettings, steps: int, size: int, free: int) -> list[str]:
    """When checkpoints are saved and how large they are; `size`: bytes of one; `free`: free bytes on the disk."""
    periods, most = [], 1  # while a new one is written, the disk holds one more than are kept
    if settings.save_minutes:
        periods.append(f"every {counted(settings.save_minutes, 'minute')}, the newest 2 until training ends")
        most += 2
    if settings.save_steps:
        kept = (steps - 1) // settings.save_steps
        if settings.save_total_limit:
            kept = min(kept, settings.save_total_limit)
        periods.append(f"every {counted(settings.save_steps, 'step')}, {kept} kept")
        most += kept
    said = f"checkpoints: {'; '.join(periods) or 'none except on Ctrl-C'}; about {size_text(size)} each"
    if most * size <= free:
        return [said]
    return [said, f"warning: they may need {size_text(most * size)}, but that disk has {size_text(free)} free"]


def stopped_line(out: Path, step: int, steps: int) -> str:
    return (
        f"stopped after step {step} of {steps}; checkpoint saved in {out / f'checkpoint-{step}'}. Run the same command "
        "again to continue from it"
    )


def layout_line(layout: Layout) -> str:
    """The attention path of a model on its data, and the reason for it."""
    name = "plain rows" if layout.path == "rows" else f"{layout.path} attention"
    if (choice := layout.choice) is None:
        return name
    if choice.asked:
        why = "as requested"
    elif choice.followed:
        why = "as for the references"
    elif layout.path != "rows":
        why = _savings(choice.lengths)
    elif choice.obstacle is not None:
        why = obstacle_line(choice.obstacle)
    else:
        why = f"{_savings(choice.lengths)}, too little to pay off"
    path, device = choice.reference
    unlike = f"; the references were computed with {path} on {device}" if path not in (None, layout.path) else ""
    return f"{name}: {why}{unlike}"


def _savings(lengths: Lengths) -> str:
    return f"sharing prompts saves {lengths.saved:.0%} of the tokens ({lengths.pair:.0f} per pair remain)"


def obstacle_line(met: Obstacle) -> str:
    """Why a model cannot use an attention path."""
    if met.window is not None:
        return f"the model's sliding window ({met.window}) is shorter than the data ({met.longest})"
    if met.error is not None:
        return f"the model does not accept packed rows ({met.error})"
    return "this architecture gives other log-probs when rows are packed"


def references_missing(data: Path, kept_in: Path) -> str:
    return f"{data} has no reference log-probs: they are computed once with the untrained model and kept in {kept_in}"


def step_zero(check: StepZero | None) -> str:
    """That the untrained policy reproduces the references; None: the data have none to compare with."""
    if check is None:
        return "the data have no reference log-probs to check the model against"
    return "step 0: the model reproduces the reference log-probs of the data"


# ---------------------------------------------------------------------------------------------------- while it trains

# By the name of a hint (`rmo_train.training.hints`); its figures fill the sentence.
HINTS = {
    "both fall": (
        "chosen and rejected answers are both becoming less likely (rewards {chosen:+.2f} and {rejected:+.2f} since "
        "the start). Try --sft-weight 0.1, a lower --learning-rate or a higher --beta"
    ),
    "too easy": (
        "accuracy 1.0 and loss {loss:.3f} on pairs seen for the first time. Either something gives the labels away "
        "(length, a phrase, repeated pairs; audit the data), or the steps are too large: try a lower --learning-rate"
    ),
    "against the labels": (
        "the margins of the first {count} steps are all negative (mean {margin:+.2f}, accuracy {accuracy:.2f}). Are "
        "chosen and rejected swapped in part of the data? If not, try a lower --learning-rate"
    ),
    "held out reversed": (
        "accuracy is {trained:.2f} in training and {held_out:.2f} on --eval-data. Are chosen and rejected swapped in "
        "one of the two?"
    ),
    "ranks by length": (
        "accuracy is {longer:.2f} where the chosen answer is longer and {shorter:.2f} where it is shorter: the model "
        "ranks by length, and its answers will grow. Try --loss simpo (rewards per token), and audit the lengths in "
        "the data"
    ),
    "ranks by length, held out": (
        "held-out accuracy is {plain:.2f}, and {gap:.2f} lower on pairs matched by length: the model ranks by length, "
        "and its answers will grow. Try --loss simpo (rewards per token), and audit the lengths in the data"
    ),
    "flat": (
        "after {step} of {steps} steps the margins have not moved (mean {margin:+.3f}, accuracy {accuracy:.2f}). Try a "
        "higher --learning-rate, such as ten times the {peak:.2g} reached so far"
    ),
    "loss rises": (
        "the loss has risen from {start:.3f} to {now:.3f} (gradients were clipped in {scaled:.0%} of the last steps): "
        "the steps are too large. Try a lower --learning-rate or a higher --warmup-ratio"
    ),
}


def hint_line(hint: Hint) -> str:
    return f"hint, step {hint.step}: {HINTS[hint.name].format(**hint.figures)}"


def speed_line(metrics: Mapping[str, Any]) -> str:
    """The speed of the run's steps."""
    return (
        f"{metrics['pairs_per_second']:.3g} pairs/s, {metrics['tokens_per_second']:,.0f} tokens/s, "
        f"{metrics['matmul_share']:.0%} of the machine's matmul rate, peak memory {metrics['peak_memory_gib']:.2f} GiB"
    )


def trained_lines(trained: Trained) -> list[str]:
    """The result of a training run."""
    did = f"{counted(trained.steps, 'step')} on {counted(trained.pairs, 'pair')}"
    lines = [f"trained for {did}; the model is in {trained.out}"]
    if trained.metrics:
        lines.append(speed_line(trained.metrics))
    if trained.best is not None:
        lines.append(
            f"the model is {trained.best.name}, chosen by its reward accuracy on --eval-data, so the figures below are "
            "biased upwards"
        )
    return [*lines, *(evaluation_lines(trained.evaluation) if trained.evaluation else [])]


def next_lines(command: str | None) -> list[str]:
    """The command to run next, ready to be copied; no line if no command is certain to fit."""
    return [] if command is None else [f"next: {command}"]


def held_out_lines(model: str, out: Path) -> list[str]:
    """How to evaluate the model if no held-out pairs are known; the user names their folder."""
    return [f"to evaluate it: score held-out pairs with {model}, then rmo-train eval THEIR_RUN --model {out}"]


def merged_line(adapter: Path, base: str, dtype: str, out: Path) -> str:
    return f"merged {adapter} into {base}; the {dtype} model is in {out}"


# ---------------------------------------------------------------------------------------------------- answers


def form_line(title: str, markers: Sequence[str] | None) -> str:
    """The form in which answers are written, and the fields of the prompts that decided it (None: no form fits)."""
    if markers is None:
        return f"writing answers in {title}'s format: the prompts are in no benchmark's format"
    fields = " and ".join(f"`{name}`" for name in markers)
    return f"writing answers in {title}'s format: the prompts have {fields}"


def generated_lines(generator: str, out: Path, answers: int, cut: int, max_new_tokens: int) -> list[str]:
    """How many answers were written, and how many of them were cut off."""
    lines = [f"{counted(answers, 'answer')} by {generator} in {out}"]
    return [*lines, f"{cut:,} of them cut off at --max-new-tokens {max_new_tokens}"] if cut else lines


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


def of_prompts(pairs: int, prompts: int) -> str:
    return f"{counted(pairs, 'pair')} of {counted(prompts, 'prompt')}"


def own_reference(model: str) -> str:
    return f"{model} is the reference: its log-probs are in the data, so nothing is computed"


def overlap_warning(evaluated: Path, pairs: int, prompts: int) -> str:
    both = f"{counted(pairs, 'pair')} and {counted(prompts, 'prompt')}"
    return f"warning: this model was trained on {both} of {evaluated}"


def comparison_lines(comparison: Comparison) -> list[str]:
    m, matched = comparison.mcnemar, comparison.length_matched_reward_accuracy
    once = ", a prompt counted once" if comparison.prompts < comparison.pairs else ""
    lines = [
        f"{of_prompts(comparison.pairs, comparison.prompts)}; A -> B, and B - A with 95% interval over prompts, paired",
        f"  reward accuracy         {_difference(comparison.reward_accuracy)}",
        f"  reward, length-matched  {_difference(matched)}   of {counted(matched.n, 'pair')}",
    ]
    if m.ties == comparison.pairs:
        lines.append("  McNemar's test does not apply: one of the two models has a margin of 0 on each of these pairs")
        lines.append("  (the reference has 0 on all pairs, each counting one half: 0.500)")
    else:
        lines.append(
            f"  right by B alone {m.b_alone}, by A alone {m.a_alone} of {counted(comparison.pairs - m.ties, 'pair')}: "
            f"exact two-sided p = {m.p:.2g} (McNemar{once})"
        )
        if m.ties:
            ties = f"{counted(m.ties, 'pair')} with a margin of 0 count{'s' * (m.ties == 1)}"
            lines.append(f"  {ties} for neither in the test, and one half in the accuracies")
    if not comparison.same_reference:
        lines.append("note: the margins of A and B are relative to different reference models")
    return lines


def _difference(figure: Difference) -> str:
    return f"{figure.a:.3f} -> {figure.b:.3f}   {figure.difference:+}   {figure.verdict}"


def rates_lines(rates: CheckedRates | JudgedRates) -> list[str]:
    """Win rates of either method."""
    return judged_lines(rates) if rates.method == "judge" else checked_lines(rates)


def checked_lines(rates: CheckedRates) -> list[str]:
    """Win rates by programs that check constraints."""
    return [
        *_heading(rates),
        f"                              {'A':<23} B",
        f"  satisfied, strict           {rates.strict_a!s:<23} {rates.strict_b}",
        f"  satisfied, loose            {rates.loose_a!s:<23} {rates.loose_b}",
        f"  win rate of A, strict       {rates.win_rate}   ties count one half: {_of_a(rates.verdict)}",
        f"  win rate of A, loose        {rates.loose_win_rate}",
    ]


def judged_lines(rates: JudgedRates) -> list[str]:
    """Win rates by a judge."""
    unreadable = f"{counted(rates.unparsable, 'verdict')} without A, B or tie on the last line"
    missing = f"{unreadable}, {rates.failed:,} never received"
    lines = [
        *_heading(rates),
        f"judge {rates.judge_model}: {rates.judged:,} of {counted(rates.pairs, 'pair')} of answers, in both orders",
    ]
    if rates.win_rate is None:
        return [*lines, f"  no pair of answers has both verdicts: {missing}"]
    controlled = rates.length_controlled or "undefined: the difference in length is the same in every pair"
    lines += [
        f"  win rate of A               {rates.win_rate}   ties count one half: {_of_a(rates.verdict)}; of "
        f"{of_prompts(rates.judged, rates.judged_prompts)}",
        f"  length-controlled           {controlled}",
        f"  A wins, loses, neither      {rates.wins}, {rates.losses}, {rates.split}",
        f"  mean length                 {rates.length_a:,.0f} and {rates.length_b:,.0f} characters",
    ]
    if rates.first_shown is not None:
        lines.append(
            f"  for the one shown first     {rates.first_shown:.3f} of {rates.sided:,} verdicts other than ties"
        )
    return [*lines, f"  left out: {missing}"] if rates.judged < rates.pairs else lines


def _heading(rates: CheckedRates | JudgedRates) -> list[str]:
    return [f"A: {rates.a}", f"B: {rates.b}", f"{counted(rates.prompts, 'prompt')}; 95% intervals over prompts"]


def _of_a(verdict: str | None) -> str:
    return f"A is {verdict}" if verdict in ("higher", "lower") else str(verdict)
