import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmo_train.store import id_hash
from rmo_train.store.id_hash import draw_bits, first_places, fractions, hash64, places, step

WORD = 2**64


def plain_step(h: int) -> int:
    """splitmix64 in Python's integers."""
    h = (h + 0x9E3779B97F4A7C15) % WORD
    h = (h ^ h >> 30) * 0xBF58476D1CE4E5B9 % WORD
    h = (h ^ h >> 27) * 0x94D049BB133111EB % WORD
    return h ^ h >> 31


def plain_hash(text: str | bytes, key: int) -> int:
    data = text.encode() if isinstance(text, str) else text
    for at in range(0, len(data), 8):
        key = plain_step(key ^ int.from_bytes(data[at : at + 8], "little"))
    return plain_step(key ^ len(data))


def test_a_step_is_splitmix64_with_its_published_outputs():
    # The first outputs from seed 1234567; the state grows by the golden gamma between them.
    gamma = 0x9E3779B97F4A7C15
    states = np.array([0, 1234567, (1234567 + gamma) % WORD], dtype=np.uint64)
    assert step(states).tolist() == [0xE220A8397B1DCDAF, 6457827717110365317, 3203168211198807973]


def test_a_hash_by_hand():
    # "" has no word and length 0; "a" is the word 0x61 and length 1.
    expected = [0xE220A8397B1DCDAF, plain_step(plain_step(0x61) ^ 1)]
    assert hash64(pa.array(["", "a"])).tolist() == expected


texts = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=12)


@settings(deadline=None)
@given(texts, st.integers(0, WORD - 1), st.integers(0, 12), st.integers(1, 5))
def test_many_strings_hash_as_each_alone_however_they_lie_in_memory(strings, key, cut, block):
    expected = [plain_hash(s, key) for s in strings]
    whole = pa.array(["before", *strings], pa.string())[1:]  # an offset into its buffers
    assert hash64(whole, key).tolist() == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_hash, "BLOCK", block)
        assert hash64(pa.chunked_array([whole[:cut], whole[cut:]], pa.string()), key).tolist() == expected


def test_binary_is_hashed_by_its_bytes():
    names = [b"", b"\xed\xa0\x80 is no UTF-8", "ü".encode()]
    assert hash64(pa.array(names, pa.binary()), 7).tolist() == [plain_hash(name, 7) for name in names]


def test_draws_are_keyed_by_stage_and_seed():
    key = int.from_bytes(hashlib.sha256(b"fold\x1f3").digest()[:8], "big")
    assert draw_bits("fold", 3, pa.array(["a", "b"])).tolist() == [plain_hash("a", key), plain_hash("b", key)]


def test_fractions_are_pinned():
    """Shards that were filtered once are filtered alike for ever."""
    ids = pa.array(["p7", "0" * 32])
    key = int.from_bytes(hashlib.sha256(b"ambiguous\x1f42").digest()[:8], "big")
    expected = [(plain_hash(i, key) >> 11) / 2**53 for i in ids.to_pylist()]
    assert fractions("ambiguous", 42, ids).tolist() == expected
    assert expected == [0.44327425545366317, 0.4423340019136335]
    assert fractions("ambiguous", 42, pa.array([], pa.string())).tolist() == []


def test_fractions_are_uniform_and_those_of_two_seeds_unrelated():
    n = 100_000
    ids = pa.array([f"{i}" for i in range(n)])  # the least random ids there are
    first, second = fractions("ambiguous", 1, ids), fractions("ambiguous", 2, ids)
    cells = np.histogram2d(first, second, bins=16, range=[[0, 1], [0, 1]])[0]
    # chi squared of 255 degrees of freedom has mean 255 and sd 22.6
    assert abs(((cells - n / 256) ** 2 / (n / 256)).sum() - 255) < 4 * 22.6
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / n**0.5  # neighbours
    assert ((first >= 0) & (first < 1)).all()


few = st.lists(st.sampled_from(["", "a", "b", "ab", "12345678", "123456789", "ü"]), max_size=30)


@settings(deadline=None)
@given(few, few)
def test_places_are_those_of_pyarrows_own_lookup(strings, among):
    strings, among = pa.chunked_array([strings], pa.string()), pa.chunked_array([among, among], pa.string())
    expected = pc.fill_null(pc.index_in(strings, value_set=among.combine_chunks()), -1).to_pylist()
    assert places(strings, among).tolist() == expected
    assert places(among, among).tolist() == pc.index_in(among, value_set=among.combine_chunks()).to_pylist()


def test_places_stay_exact_where_every_string_has_the_same_hash(monkeypatch):
    strings, among = pa.array(["a", "b", "c"]), pa.array(["c", "a", "a"])
    monkeypatch.setattr(id_hash, "hash64", lambda strings, key=0: np.zeros(len(strings), dtype=np.uint64))
    assert places(strings, among).tolist() == [1, -1, 0]
    assert places(among, among).tolist() == [0, 1, 1]


def test_a_null_is_nowhere():
    strings = pa.array(["a", None, "a", None])
    assert places(strings, strings).tolist() == [0, -1, 0, -1]


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=60), st.lists(st.integers(0, 40), max_size=60))
def test_first_places_are_those_of_a_plain_search(hashes, wanted):
    spread = 2**40  # low bits alike, so that slots are fought over
    found = first_places(np.array(hashes, dtype=np.uint64) * spread, np.array(wanted, dtype=np.uint64) * spread)
    assert found.tolist() == [hashes.index(w) if w in hashes else -1 for w in wanted]
