"""What scoring will cost: said before it starts, and all that `--dry-run` prints."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from rmo_curate.read.pair_rendering import batches, characters_of, render_pairs
from rmo_curate.read.sources import Pair, Source
from rmo_curate.score.engines.choice import AUTO
from rmo_curate.score.length_limit import LengthLimit, limit_line
from rmo_curate.score.proxies import TrainedFamily
from rmo_curate.score.settings import ProxySettings
from rmo_train.console.wording import counted
from rmo_train.data.pairs import PairData
from rmo_train.data.rendering import Rendered, Renderer
from rmo_train.store.manifests import Reference

SAMPLE, SAMPLE_CHARACTERS = 256, 2**24  # pairs that a dry run renders, of long ones fewer
TRAINING_PASSES = 3  # forward passes that one training pass costs
StatesFrom = Literal["reference", "own"]  # whose forward pass the hidden states for a probe come from
STATES_OF_PROBE = {  # by the engine of the forward passes
    "transformers": "from the same pass",
    "vllm": "from one more pass, through transformers, since vLLM does not return them",
    "the faster": "from the same pass, or from one more if vLLM is faster",
}


def cost_line(pairs: PairData, checkpoints: int, family: TrainedFamily | None, states: StatesFrom | None = None) -> str:
    """What is about to be computed, in tokens and in forward passes over the data.

    states: None where none are to be read.
    """
    tokens = int((pairs.prompt.lengths + pairs.chosen.lengths + pairs.rejected.lengths).sum())
    line = f"{counted(len(pairs), 'pair')}, about {counted(tokens, 'token')} per pass; passes: 1 reference"
    if states == "reference":
        line += " (with the hidden states for the probe)"
    if checkpoints:
        line += f" + {counted(checkpoints, 'checkpoint')}"
    if family is not None:
        folds = family.folds
        trained = folds * family.total * family.settings.batch_size / len(pairs)
        line += (
            f" + {counted(len(family.steps), 'proxy', 'proxies')} + about {TRAINING_PASSES * trained:.1f} to train "
            f"{folds} ({counted(family.total, 'step')} each)"
        )
    if states == "own":
        line += " + 1 for the hidden states for the probe"
        if pairs.reference.engine == "vllm":
            line += ", through transformers, since vLLM does not return them"
    return line


@dataclass(frozen=True)
class Lengths:
    """Of a rendered pair."""

    longest: int  # tokens of the prompt and the longer response
    tokens: int  # of the prompt and both responses


def rendered_sample(source: Source, renderer: Renderer) -> list[Lengths | None]:
    """The first pairs, at most `SAMPLE` and about `SAMPLE_CHARACTERS` of them; None where the template refuses one."""
    sample: list[Lengths | None] = []
    characters = 0
    for batch in batches(islice((r for r in source.records() if isinstance(r, Pair)), SAMPLE)):
        for rendered in render_pairs(renderer, batch):
            sample.append(lengths_of(rendered) if isinstance(rendered, Rendered) else None)
        characters += sum(map(characters_of, batch))
        if characters >= SAMPLE_CHARACTERS:
            break
    return sample


def lengths_of(pair: Rendered) -> Lengths:
    prompt, responses = len(pair.prompt_ids), (len(pair.chosen_ids), len(pair.rejected_ids))
    return Lengths(prompt + max(responses), prompt + sum(responses))


def dry_run_lines(
    source: Source,
    renderer: Renderer,
    reference: Reference,
    limit: LengthLimit,
    proxy: ProxySettings,
    checkpoints: int,
) -> list[str]:
    """What `score` would do; tokens are those of the first pairs, scaled up. Writes nothing."""
    from rmo_train.model.models import weights_bytes

    pairs = source.counts["pairs"]
    sample = rendered_sample(source, renderer)
    rows = [r for r in sample if r is not None]
    fit = [r for r in rows if r.longest <= limit.tokens]
    longest = max((r.longest for r in rows), default=0)
    tokens = sum(r.tokens for r in fit) / max(1, len(sample))
    engine = "the faster" if reference.engine == AUTO else reference.engine or ""
    folds, probed = proxy.trained_folds, proxy.kind == "probe"
    passes = 1 + checkpoints + bool(folds) + (probed and engine == "vllm")
    lines = [
        f"{counted(sum(source.counts.values()), 'record')}, {counted(pairs, 'pair')}, about {tokens * pairs:,.0f} "
        "tokens per pass",
        limit_line(limit),
        f"of the first {counted(len(sample), 'pair')}, {len(rows) - len(fit)} are longer than that; the longest has "
        f"{longest:,} tokens, about {limit.row_bytes(longest) / 2**30:.2g} GiB per row",
        f"reference {reference.name} ({weights_bytes(reference.name or '') / 2**30:.2f} GiB), "
        f"{engine} engine, {reference.dtype}",
        f"{passes} forward pass{'es' * (passes > 1)} over the data",
    ]
    if folds:
        part = pairs if folds == 1 else math.ceil(pairs * (1 - 1 / folds))
        steps = math.ceil(math.ceil(part / min(proxy.batch_size, part)) * proxy.epochs)
        lines.append(f"{counted(folds, 'proxy', 'proxies')} to train, about {counted(steps, 'step')} each")
    if probed:
        lines.append(
            f"a cross-fitted probe on the reference's hidden states; the states come {STATES_OF_PROBE[engine]}"
        )
    return lines
