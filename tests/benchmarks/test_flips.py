"""Wrong labels made on purpose."""

from __future__ import annotations

import json

import numpy as np

from benchmarks.flips import REASONS, draw, flipped, write_flipped


def rows(n: int) -> list[dict]:
    return [
        {
            "id": f"r{i}",
            "chosen": "- a\n- b" if i % 2 else "a" * (i % 7),
            "rejected": "**b**" if i % 3 else "bbb",
            "chosen_model": f"m{i % 5}",
            "rejected_model": f"m{(i + 2) % 5}",
        }
        for i in range(n)
    ]


def test_a_flip_at_random_is_of_the_id_and_the_seed_alone():
    data = rows(2000)
    found = flipped(data, "uniform", 0.2, 1)
    assert abs(found.mean() - 0.2) < 0.03  # sd 0.009
    order = np.random.default_rng(0).permutation(2000)
    np.testing.assert_array_equal(flipped([data[i] for i in order], "uniform", 0.2, 1), found[order])
    assert (flipped(data, "uniform", 0.3, 1) | ~found).all()  # more of the same
    assert (flipped(data, "uniform", 0.2, 2) != found).any()
    assert not flipped(data, "none", 0.0, 1).any() and not flipped(data, "uniform", 0.0, 1).any()


def test_a_reason_flips_only_what_goes_against_it_and_as_many_as_asked():
    data = rows(1000)
    against = {
        "longer": [len(r["chosen"]) < len(r["rejected"]) for r in data],
        "formatted": [r["chosen"].count("- ") < r["rejected"].count("**") for r in data],
    }
    for reason in REASONS:
        found = flipped(data, reason, 0.1, 0)
        assert found.sum() == 100
        if reason in against:
            assert np.array(against[reason])[found].all()
    found = flipped(data, "generator", 0.1, 0)
    winners = {data[i]["rejected_model"] for i in np.flatnonzero(found)}
    losers = {data[i]["chosen_model"] for i in np.flatnonzero(found)}
    assert winners and losers and not winners & losers  # some models are favoured, the others are not
    few = flipped(data, "longer", 0.9, 0)  # as far as there are any
    np.testing.assert_array_equal(few, against["longer"])


def test_a_flipped_record_has_its_answers_exchanged_and_all_else_as_it_was(tmp_path):
    data = [*rows(3), {"id": "é", "chosen": "ü", "rejected": "o"}]
    path = write_flipped(data, np.array([False, True, False, True]), tmp_path / "new" / "a.jsonl")
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert found[0] == data[0] and found[2] == data[2]
    assert found[1] == data[1] | {"chosen": data[1]["rejected"], "rejected": data[1]["chosen"]}
    assert found[3] == {"id": "é", "chosen": "o", "rejected": "ü"}


def test_a_draw_depends_on_its_arguments_alone():
    assert draw("a", "x", 1) == draw("a", "x", 1) != draw("a", "x", 2) != draw("b", "x", 2)
    assert 0 <= draw("a") < 1
