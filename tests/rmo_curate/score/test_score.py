"""The scoring job on the tiny model: the pairs, rejects and scores that are written."""

from __future__ import annotations

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from rmo_curate.filter.command import run_filter
from rmo_curate.filter.settings import FilterSettings
from rmo_curate.runs.run import open_run
from rmo_train.console.errors import UserError
from rmo_train.data.pairs import open_pairs
from rmo_train.store import files
from rmo_train.training.command import run_training
from rmo_train.training.settings import TrainSettings
from tests.manifests import manifest_of
from tests.rmo_curate.scored import (
    PARTS,
    PROXY,
    checkpoint_names,
    contents,
    demo_records,
    perturbed,
    record,
    score,
    scores,
    write_jsonl,
)


def test_every_record_is_a_pair_or_a_reject(tiny_model_folder, tmp_path):
    records = [*(record(i) for i in range(9)), "{broken", record(0), record(10, chosen=""), record(11, chosen=5)]
    data = write_jsonl(tmp_path / "d.jsonl", records)
    run = tmp_path / "run"
    lines = score(data, tiny_model_folder, run, part_size=2)
    manifest = manifest_of(run)
    assert manifest["counts"] == {"records": 13, "pairs": 9, "rejects": 4, "too_long": 0, "scorable": 9}
    assert manifest["rejects"] == {"broken_line": 1, "duplicate": 1, "empty_response": 1, "not_text": 1}
    opened = open_run(run)
    rejects = opened.rejects().to_pylist()
    assert [(r["line"], r["reason"]) for r in rejects] == [
        (10, "broken_line"),
        (11, "duplicate"),
        (12, "empty_response"),
        (13, "not_text"),
    ]
    assert rejects[0]["raw"] == "{broken"
    assert opened.pairs(["id"]).num_rows == len(scores(run, "base")) == 9
    assert lines[0].startswith("13 records = 9 pairs + 4 rejects; 0 pairs too long; scored: base")


def test_a_pair_that_the_template_refuses_is_a_reject(tiny_model_folder, tmp_path):
    model = shutil.copytree(tiny_model_folder, tmp_path / "strict")
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (model / "chat_template.jinja").write_text(template)

    def turns(i, *prompt):
        return {
            "prompt": [{"role": r, "content": f"text {i}"} for r in prompt],
            "chosen": [{"role": "assistant", "content": f"good {i}"}],
            "rejected": [{"role": "assistant", "content": f"bad {i}"}],
        }

    records = [turns(0, "user"), turns(1, "system", "user"), turns(2, "user"), turns(3, "user")]
    data = write_jsonl(tmp_path / "d.jsonl", records)
    score(data, model, tmp_path / "run")
    assert manifest_of(tmp_path / "run")["counts"]["rejects"] == 1
    (reject,) = open_run(tmp_path / "run").rejects().to_pylist()
    assert (reject["line"], reject["reason"]) == (2, "bad_messages") and "no system turn" in reject["detail"]
    with pytest.raises(UserError, match=r"1 of 4 records rejected \(1 bad_messages\), more than --max-rejects 0.2"):
        score(data, model, tmp_path / "other", max_rejects=0.2)
    only = write_jsonl(tmp_path / "only.jsonl", records[1:2])
    with pytest.raises(UserError, match="chat template cannot render any of the pairs"):
        score(only, model, tmp_path / "none")


def test_pairs_over_the_length_are_flagged_and_not_scored(tiny_model_folder, tmp_path):
    data = write_jsonl(tmp_path / "d.jsonl", [record(0), record(1, chosen="word " * 200), record(2)])
    run = tmp_path / "run"
    score(data, tiny_model_folder, run, max_length=64)
    assert manifest_of(run)["counts"] | {"records": 0} == {
        "records": 0,
        "pairs": 3,
        "rejects": 0,
        "too_long": 1,
        "scorable": 2,
    }
    assert open_run(run).pairs(["flags"])["flags"].to_pylist() == [[], ["too_long"], []]
    assert len(scores(run, "base")) == 2
    with pytest.raises(UserError, match="all 3 pairs are longer than 8 tokens"):
        score(data, tiny_model_folder, tmp_path / "short", max_length=8)


def test_scores_are_those_of_a_plain_padded_forward(tiny_model_folder, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    score(write_jsonl(tmp_path / "d.jsonl", demo_records(32)), tiny_model_folder, tmp_path / "run", part_size=8)
    pairs, found = open_pairs(tmp_path / "run"), scores(tmp_path / "run", "base")
    assert len(pairs) == len(found) == 32
    model = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32).eval()
    for at in range(0, 32, 8):
        rows = [
            (np.concatenate([pairs.prompt[i], y]), len(pairs.prompt[i]))
            for i in range(at, at + 8)
            for y in (pairs.chosen[i], pairs.rejected[i])
        ]
        ids = torch.zeros(16, max(len(r) for r, _ in rows), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for k, (row, _) in enumerate(rows):
            ids[k, : len(row)], mask[k, : len(row)] = torch.from_numpy(row).long(), 1
        with torch.no_grad():
            logps = model(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
        for k, (row, start) in enumerate(rows):
            expected = sum(float(logps[k, t - 1, row[t]]) for t in range(start, len(row)))
            assert found[pairs.ids[at + k // 2]][k % 2] == pytest.approx(expected, abs=1e-4)


def test_score_parts_end_where_a_prompt_ends(tiny_model_folder, tmp_path):
    sizes = [3, 1, 4, 1, 1, 6, 1]  # pairs of each prompt, dealt in turns so that groups are not contiguous in the data
    order = sorted((k, g) for g, n in enumerate(sizes) for k in range(n))
    records = [record(g, chosen=f"answer {k}") for k, g in order]
    run = tmp_path / "run"
    score(write_jsonl(tmp_path / "d.jsonl", records), tiny_model_folder, run, part_size=4)
    group_of = dict(zip(open_pairs(run).ids, open_pairs(run).groups, strict=True))
    parts = [pq.read_table(p)["id"].to_pylist() for p in sorted((run / "scores" / "base").glob(PARTS))]
    assert [len(p) for p in parts] == [4, 4, 8, 1]  # 3+1 | 4 | 1+1+6 | 1: at least 4 but for the last
    groups = [{group_of[i] for i in part} for part in parts]
    assert sum(len(g) for g in groups) == len(set.union(*groups)) == len(sizes)


def test_scoring_repeats_to_the_last_bit_beside_other_work(tiny_model_folder, tmp_path, busy):
    data = write_jsonl(tmp_path / "d.jsonl", demo_records(12))
    score(data, tiny_model_folder, tmp_path / "alone", proxy=PROXY)
    with busy:
        score(data, tiny_model_folder, tmp_path / "beside", proxy=PROXY)
    alone, beside = contents(tmp_path / "alone"), contents(tmp_path / "beside")
    assert alone.keys() == beside.keys()
    assert [name for name in alone if alone[name] != beside[name]] == []


@pytest.mark.parametrize("asked", ["segments", "dense", "rows"])
def test_what_comes_after_the_reference_is_computed_as_it_was(asked, tiny_model_folder, tmp_path, capsys):
    data = write_jsonl(tmp_path / "d.jsonl", demo_records(12))
    run, shards = tmp_path / "run", tmp_path / "shards"
    score(data, tiny_model_folder, run, attention=asked)
    reference = manifest_of(run)["reference"]
    assert (reference["attention"], reference["device"]) == (asked, "cpu")
    score(data, tiny_model_folder, run, checkpoints=[str(perturbed(tiny_model_folder, tmp_path / "other"))])
    (other,) = (name for name in checkpoint_names(run) if name != "base")
    run_filter(run, shards, FilterSettings(rule="none"))
    run_training(
        shards, str(tiny_model_folder), tmp_path / "out", TrainSettings(max_steps=1, gradient_accumulation_steps=1)
    )
    assert manifest_of(run / "scores" / other)["computed_by"] == {"attention": asked, "device": "cpu"}
    assert files.read_json(tmp_path / "out" / "layout.json")["attention"] == asked
    assert capsys.readouterr().err.count("as for the references") == (0 if asked == "segments" else 2)
