"""Near-duplicates: hashed words against Python's own, MinHash against the exact similarity, planted copies found."""

from __future__ import annotations

import random
import re

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmo_curate.audit import near
from rmo_curate.audit.shingles import PERMUTATIONS, PROMPT_MARK, WIDTH, jaccard, profile, shingle_sets, shingles, words
from rmo_curate.audit.texts import Texts

WORDS = [f"word{i}" for i in range(500)]
patient = hypothesis.settings(deadline=None)


def sentence(rng: random.Random, n: int) -> str:
    return " ".join(rng.choices(WORDS, k=n))


def texts_of(pairs: list[tuple[str, str, str]]) -> Texts:
    texts = Texts()
    for i, (prompt, chosen, rejected) in enumerate(pairs):
        messages = (
            [{"role": "user", "content": prompt}],
            *([{"role": "assistant", "content": t}] for t in (chosen, rejected)),
        )
        texts.add(f"p{i}", *messages)
    return texts


def found_in(texts: Texts) -> list[near.NearPair]:
    signatures = np.minimum.reduce(
        [profile(texts.prompt, PROMPT_MARK)[1], profile(texts.chosen)[1], profile(texts.rejected)[1]]
    )
    return near.near_pairs(texts, signatures)


def plain_sets(text: str) -> set[tuple[str, ...]]:
    """Three-word sequences in Python, of ASCII text."""
    found = re.findall(r"[a-z0-9]+", text.lower())
    if not found:
        return set()
    return {tuple(found[i : i + WIDTH]) for i in range(max(1, len(found) - WIDTH + 1))}


@patient
@given(st.lists(st.text("abcXYZ019 .,;\n-_'", max_size=60), min_size=1, max_size=5))
def test_words_and_shingles_are_those_of_python(given_texts: list[str]):
    encoded = [t.lower().encode() for t in given_texts]
    hashed = words(encoded)
    expected = [re.findall(r"[a-z0-9]+", t.lower()) for t in given_texts]
    assert hashed.lengths.tolist() == [len(e) for e in expected]
    names = dict(zip([w for e in expected for w in e], hashed.values.tolist(), strict=False))
    assert [names[w] for e in expected for w in e] == hashed.values.tolist()  # equal words, equal hashes
    assert len(set(names.values())) == len(names)  # and others, others
    sets = shingle_sets(given_texts)
    assert [len(s) for s in sets] == [len(plain_sets(t)) for t in given_texts]
    assert shingles(hashed).lengths.sum() >= sum(map(len, sets))


def test_where_a_text_stands_does_not_change_its_words():
    alone = shingle_sets(["the quick brown fox"])[0]
    among = shingle_sets(["x " * 1000, "the quick brown fox", "y"])[1]
    np.testing.assert_array_equal(alone, among)


def test_scripts_without_spaces_are_read_by_the_character():
    assert words(["春天来了".encode()]).lengths.tolist() == [4]
    assert words(["“привет” — мир".encode()]).lengths.tolist() == [2]


@patient
@given(st.integers(0, 10_000))
def test_jaccard_is_that_of_sets(seed: int):
    rng = random.Random(seed)
    a, b = sentence(rng, 30), sentence(rng, 30)
    b = " ".join(a.split()[: rng.randint(0, 30)] + b.split())
    one, other = plain_sets(a), plain_sets(b)
    sets = shingle_sets([a, b])
    assert jaccard(*sets) == pytest.approx(len(one & other) / len(one | other))
    assert jaccard(*sets) == jaccard(*reversed(sets))


def test_equal_places_of_signatures_estimate_the_similarity():
    rng = random.Random(1)
    errors = []
    for _ in range(200):
        a = sentence(rng, 120)
        b = " ".join(a.split()[:100] + sentence(rng, 20).split())
        rows = profile([a, b])[1]
        errors.append(float((rows[0] == rows[1]).mean()) - jaccard(*shingle_sets([a, b])))
    # One place agrees with probability J: the mean error of 200 x 32 places is within 5 standard errors of 0.
    assert abs(np.mean(errors)) < 5 * 0.5 / np.sqrt(200 * PERMUTATIONS)


def test_planted_copies_are_found_and_nothing_else():
    rng = random.Random(2)
    pairs = [(sentence(rng, 20), sentence(rng, 60), sentence(rng, 60)) for _ in range(400)]
    prompt, chosen, rejected = pairs[7]
    copies = [
        (prompt, chosen + " indeed", rejected),  # a word more
        (prompt.upper() + "!", chosen, rejected),  # case and marks
        (prompt, rejected, chosen + " so"),  # the other way round
    ]
    texts = texts_of([*pairs, *copies])
    found = {(p.first, p.second): p for p in found_in(texts)}
    assert {place for pair in found for place in pair} == {7, 400, 401, 402}
    assert any(p.swapped for p in found.values() if 402 in (p.first, p.second))
    assert not any(p.swapped for p in found.values() if 402 not in (p.first, p.second))
    assert all(p.similarity >= near.SIMILARITY for p in found.values())


def test_pairs_that_share_only_a_prompt_or_only_answers_are_no_copies():
    rng = random.Random(3)
    prompt, chosen, rejected = sentence(rng, 40), sentence(rng, 60), sentence(rng, 60)
    texts = texts_of(
        [
            (prompt, chosen, rejected),
            (prompt, sentence(rng, 60), sentence(rng, 60)),
            (sentence(rng, 40), chosen, rejected),
        ]
    )
    assert found_in(texts) == []


def test_ten_thousand_equal_pairs_cost_no_square():
    texts = texts_of(
        [("one and the same question", "one and the same good answer", "a bad one of all of them")] * 10_000
    )
    found = found_in(texts)
    assert len(found) < 3 * len(texts)
    assert {p for pair in found for p in (pair.first, pair.second)} == set(range(len(texts)))


def test_the_nearest_prompt_of_other_data():
    rng = random.Random(4)
    own = [sentence(rng, 40) for _ in range(50)]
    other = [sentence(rng, 40) for _ in range(50)] + [own[3] + " please", own[9]]
    rows = near.nearest_prompts(profile(own)[1], profile(other)[1], own, other)
    assert rows[3] == 50 and rows[9] == 51 and (np.delete(rows, [3, 9]) == -1).all()
    assert (near.nearest_prompts(profile(own)[1], profile([])[1], own, []) == -1).all()
