"""What a command proposes next can be copied, and works."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.command_line import Outcome, curate, train
from tests.rmo_curate.scored import demo_records, write_jsonl


def following(outcome: Outcome) -> list[str]:
    """The words of the command that is proposed, as a shell reads them."""
    assert outcome.code == 0, outcome
    lines = outcome.out.splitlines()
    (at,) = [i for i, line in enumerate(lines) if line.startswith("next: ")]
    said = lines[at].removeprefix("next: ")
    return shlex.split(said if said.startswith("rmo-") else lines[at + 1])  # the audit says why, then the command


def test_from_raw_data_to_a_trained_model_by_what_is_proposed(tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my data").mkdir()
    data = write_jsonl(Path("my data/train.jsonl"), demo_records(24))
    done = ["inspect"]
    words = following(curate("inspect", data, "--model", tiny_model_folder))
    while words[0] == "rmo-curate":
        done.append(words[1])
        words = following(curate(*words[1:]))
    assert done == ["inspect", "score", "audit", "filter"]
    assert words[:2] == ["rmo-train", "run"]
    assert train(*words[1:], "--max-steps", "1").code == 0


def test_a_proxy_leads_to_an_audit_and_a_full_folder_is_not_proposed_again(tiny_model_folder, tmp_path):
    data = write_jsonl(tmp_path / "train.jsonl", demo_records(24))
    run = tmp_path / "run"
    scored = curate("score", data, "--model", tiny_model_folder, "--out", run, "--proxy", "none")
    assert scored.code == 0 and "next: " not in scored.out  # held-out pairs, say
    audit = following(curate("proxy", run))
    assert audit == ["rmo-curate", "audit", str(run), "--out", str(tmp_path / "run-report")]
    (tmp_path / "run-report").mkdir()
    assert following(curate("proxy", run))[-1] == str(tmp_path / "run-report-2")


def test_with_a_recipe_its_own_commands_are_proposed(tiny_model_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("train.jsonl"), demo_records(24))
    Path("rmo.yaml").write_text(
        f"data: {{train: train.jsonl}}\nscore: {{model: {tiny_model_folder}, out: run}}\nfilter: {{out: shards}}\n"
        "train: {out: model}\naudit: {out: report}\n"
    )
    assert following(curate("score")) == ["rmo-curate", "audit"]
    assert following(curate("filter")) == ["rmo-train", "run"]
