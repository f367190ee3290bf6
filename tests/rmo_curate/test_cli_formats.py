"""`rmo-curate score` on data of other forms and names: what the run folder holds of them."""

import json

import pyarrow.parquet as pq

from rmo_train.store.files import read_json
from tests.command_line import curate


def test_ranked_answers_under_another_name_become_pairs_that_add_up(tmp_path, tiny_model_folder):
    def ranked(prompt, *answers):
        return {
            "prompt": prompt,
            "key": f"k-{prompt}",
            "ranking": [{"answer": text, "rank": rank} for text, rank in answers],
        }

    rows = [ranked("one", ("a", 1), ("b", 2), ("c", 3)), ranked("two", ("a", 1), ("b", 1)), ranked("six", ("x", 2))]
    data, run = tmp_path / "a.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["score", data, "--model", tiny_model_folder, "--out", run, "--proxy", "none", "--dtype", "float32"]
    assert curate(*line).refused("--map chosen=NAME", "nectar: prompt is text")
    assert curate(*line, "--map", "answers=ranking").code == 0
    counts = read_json(run / "manifest.json")["counts"]
    assert (counts["records"], counts["pairs"], counts["rejects"]) == (5, 3, 2)
    pairs = pq.read_table(run / "pairs" / "part-00000.parquet").to_pylist()
    assert [(p["chosen"][0]["content"], p["rejected"][0]["content"], p["rejected_rank"]) for p in pairs] == [
        ("a", "b", 2), ("a", "c", 3), ("b", "c", 3)
    ]  # fmt: skip
    again = curate(*line, "--map", "answers=ranking", "--map", "id=key")
    assert again.refused("columns: the folder has {'answers': 'ranking'}")
