"""Prompts of the alignment experiment: a task on a topic, and a constraint that a program checks.

Topics are split between training, validation and held-out, so that no prompt of one part is about a topic of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import flips
from benchmarks.constraints import KINDS, Constraint, draw

PARTS = {"train": 0, "validation": 48, "heldout": 56}  # the first topic of each
TASKS = (
    "Write a short text about {topic}.",
    "Tell me briefly about {topic}.",
    "Describe {topic} in a few words.",
    "What should a beginner know about {topic}? Be brief.",
    "Give one good thought about {topic}.",
    "Explain {topic} to a friend in a short answer.",
    "Write a short message about {topic}.",
    "Say something interesting about {topic}. Keep it short.",
)
TOPICS = (
    "keeping bees", "the night bus", "a market in winter", "repairing a bicycle", "learning to swim",
    "moving to a new town", "an old library", "growing tomatoes on a balcony", "the first day at a new job",
    "walking in the rain", "baking bread at home", "a long train ride", "sharing a flat", "the smell of coffee",
    "a lost key", "birds in the city", "running a small shop", "writing letters by hand", "camping by a lake",
    "cleaning the kitchen", "a broken phone", "teaching a child to read", "the stars in summer", "cooking for guests",
    "an early morning", "saving electricity", "a visit to the dentist", "playing chess", "old family photographs",
    "a noisy neighbour", "planting a tree", "choosing a present", "the history of a village", "riding a horse",
    "a day without the internet", "good shoes", "making soup", "waiting in a queue", "a small boat",
    "learning a new language", "sleeping well", "an empty house", "a street musician", "packing a suitcase",
    "public parks", "drinking enough water", "a school trip", "snow in the mountains",
    "making new friends", "a dripping tap", "the local newspaper", "painting a wall", "a cat on the roof",
    "working from home", "a picnic", "reading before bed",
    "feeding ducks", "a late parcel", "a walk to the harbour", "fixing a zip", "dancing for the first time",
    "a hot afternoon", "growing older", "keeping a diary", "the last page of a book", "a village bakery",
    "borrowing tools", "a wooden table", "being on time", "a thunderstorm", "collecting stamps", "an apple orchard",
)  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """One prompt: what is asked, and the constraint that its answers are checked against."""

    id: str
    topic: str
    constraint: Constraint
    text: str


def topics_of(part: str) -> tuple[str, ...]:
    starts = [*PARTS.values(), len(TOPICS)]
    at = list(PARTS).index(part)
    return TOPICS[starts[at] : starts[at + 1]]


def make_prompts(part: str, number: int, seed: int) -> list[Prompt]:
    """`number` different prompts of a part, as many of each topic and kind as can be; a function of its arguments."""
    topics, found, texts = topics_of(part), [], set()
    cells = [(topic, kind) for topic in topics for kind in KINDS]
    turn = 0
    while len(found) < number:
        for topic, kind in sorted(cells, key=lambda c: flips.draw("prompt", seed, turn, *c)):
            prompt = _prompt(part, topic, kind, turn, seed)
            if prompt.text not in texts and len(found) < number:
                texts.add(prompt.text)
                found.append(prompt)
        turn += 1
    return found


def _prompt(part: str, topic: str, kind: str, turn: int, seed: int) -> Prompt:
    name = f"{part}-{TOPICS.index(topic)}-{kind}-{turn}"
    constraint = draw(kind, name, seed)
    task = TASKS[int(flips.draw("task", name, seed) * len(TASKS))].format(topic=topic)
    first = flips.draw("order", name, seed) < 0.25
    text = f"{constraint.wording} {task}" if first else f"{task} {constraint.wording}"
    return Prompt(name, topic, constraint, text)


def by_id(prompts: Sequence[Prompt]) -> dict[str, Prompt]:
    return {p.id: p for p in prompts}
