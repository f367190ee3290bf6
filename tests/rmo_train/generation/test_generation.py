"""`rmo-train generate` on a tiny model: the same answers in a batch of any size, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from rmo_train.console.errors import ProcessingError
from rmo_train.data.rendering import Renderer
from rmo_train.generation import command as generation
from rmo_train.generation.command import (
    GenerationSettings,
    answer,
    begin,
    end_tokens,
    generator_name,
    make_requests,
    run_generation,
)
from rmo_train.generation.decoding import Decoding, Draw, Request, decode, nucleus, until_end
from rmo_train.generation.prompts import Prompt, read_prompts
from rmo_train.model.policy import load_model, load_tokenizer
from tests.command_line import train
from tests.tiny import write_tiny_model

QUESTIONS = ["Why?", "What is the best way to learn how to cook a simple dinner for the family?", "How do I start", "I"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"instruction": q, "dataset": "mine"}) + "\n" for q in QUESTIONS))
    return path


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path):
    return load_model(str(tiny_model_folder), "float32", device="cpu")


@pytest.fixture(scope="module")
def requests(tiny_model_folder: Path) -> list[Request]:
    asked = [Prompt("", ({"role": "user", "content": q},)) for q in [*QUESTIONS, *QUESTIONS[:2]]]
    return make_requests(Renderer(load_tokenizer(str(tiny_model_folder))), begin(asked, 1), seed=42)


def one_by_one(model, request: Request, steps: int, ends: tuple[int, ...]) -> list[int]:
    """Greedy decoding without padding, cache or batch: the plain definition."""
    ids = list(request.ids)
    with torch.no_grad():
        for _ in range(steps):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in ends:
                break
    return ids[len(request.ids) :]


def test_greedy_answers_are_those_of_the_plain_forward(model, requests):
    free = [one_by_one(model, r, 12, ()) for r in requests]
    ends = (free[0][4], 2)  # a token that the first answer comes to: answers then end at different places
    plain = [one_by_one(model, r, 12, ends) for r in requests]
    assert len({len(ids) for ids in plain}) > 1
    assert decode(model, requests, Decoding(12, 0.0, 1.0, ends)) == plain


@settings(max_examples=10, deadline=None)
@given(size=st.integers(1, 7), temperature=st.sampled_from([0.0, 0.7, 1.5]), order=st.permutations(range(6)))
def test_an_answer_does_not_depend_on_its_batch(model, requests, size: int, temperature: float, order: list[int]):
    how = Decoding(8, temperature, 0.9, (2,))
    alone = [decode(model, [r], how)[0] for r in requests]
    assert decode(model, [requests[i] for i in order], how, size) == [alone[i] for i in order]


def test_seeds_differ_by_prompt_repeat_and_seed_alone(tiny_model_folder, requests):
    seeds = [r.seed for r in requests]
    assert len(set(seeds)) == 6  # a repeated prompt gets another draw
    renderer = Renderer(load_tokenizer(str(tiny_model_folder)))
    asked = [Prompt("elsewhere", ({"role": "user", "content": q},)) for q in reversed(QUESTIONS)]
    assert [r.seed for r in make_requests(renderer, begin(asked, 1), 42)] == seeds[3::-1]
    assert not {r.seed for r in make_requests(renderer, begin(asked, 1), 43)} & set(seeds)


def test_seeds_differ_by_sample_and_turn_too(tiny_model_folder):
    renderer = Renderer(load_tokenizer(str(tiny_model_folder)))
    asked = [Prompt("", ({"role": "user", "content": "Why?"},), later=("Why not?",))]
    first = begin(asked, 3)
    second = [replace(d, turns=("Because.",)) for d in first]
    seeds = [r.seed for dialogues in (first, second) for r in make_requests(renderer, dialogues, 42)]
    assert len(set(seeds)) == 6


def test_draws_have_the_probabilities_of_the_softmax():
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]])
    draw = Draw([7], 2.0, 1.0, torch.device("cpu"))
    drawn = torch.bincount(torch.cat([draw(None, logits).argmax(-1) for _ in range(20000)]), minlength=4) / 20000
    torch.testing.assert_close(drawn, (logits[0] / 2).softmax(-1), atol=0.012, rtol=0)  # 3.4 standard errors


def test_nucleus_by_hand():
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()[None, [2, 0, 3, 1]]
    for top_p, kept in ((0.4, [1]), (0.5, [1]), (0.6, [1, 3]), (0.81, [0, 1, 3]), (1.0, [0, 1, 2, 3]), (1e-9, [1])):
        assert nucleus(logits, top_p)[0].isfinite().nonzero().flatten().tolist() == kept


def test_what_follows_the_end_token_is_no_answer():
    assert until_end([5, 2, 9, 2], [2]) == [5, 2]
    assert until_end([5, 6], [2]) == [5, 6]


def test_the_models_own_generation_settings_do_not_apply(tiny_model_folder, tmp_path, requests, model):
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    config = {"repetition_penalty": 5.0, "do_sample": True, "min_new_tokens": 3, "eos_token_id": [2, 77]}
    (folder / "generation_config.json").write_text(json.dumps(config))
    how = Decoding(8, 0.0, 1.0, (2,))
    assert decode(load_model(str(folder), "float32", device="cpu"), requests, how) == decode(model, requests, how)
    assert end_tokens(str(folder), Renderer(load_tokenizer(str(folder)))) == (2, 77)  # but its end tokens do


def test_a_batch_that_does_not_fit_is_halved(model, requests, monkeypatch, capsys):
    how = Decoding(4, 0.0, 1.0, (2,))
    whole, sizes, real = decode(model, requests, how), [], model.generate

    def tight(input_ids, **settings):
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("no room")
        return real(input_ids=input_ids, **settings)

    monkeypatch.setattr(model, "generate", tight)
    assert decode(model, requests, how, 6) == whole
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1]
    assert "continuing with 3 answers at a time" in capsys.readouterr().err

    def none_fits(**settings):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(model, "generate", none_fits)
    with pytest.raises(ProcessingError, match="one answer does not fit"):
        decode(model, requests, how, 6)


# ---------------------------------------------------------------------------------------------------- the command


def test_the_file_is_alpaca_evals_in_the_order_of_the_prompts(tiny_model_folder, prompts, tmp_path):
    out = tmp_path / "new" / "outputs.json"
    done = train("generate", prompts, "--model", tiny_model_folder, "--out", out, "--max-new-tokens", 6,
                 "--dtype", "float32", "--batch-size", 3)  # fmt: skip
    assert done.code == 0, done
    assert done.out.startswith(f"4 answers by tiny in {out}")
    records = json.loads(out.read_text(encoding="utf-8"))
    assert [r["instruction"] for r in records] == QUESTIONS
    assert all(r.keys() == {"instruction", "output", "generator", "dataset"} for r in records)
    assert {(r["generator"], r["dataset"]) for r in records} == {("tiny", "mine")}
    assert not any(token in r["output"] for r in records for token in ("<|im_end|>", "<|im_start|>", "<|endoftext|>"))
    assert [p.name for p in out.parent.iterdir()] == ["outputs.json"]


def test_cut_answers_are_counted(tiny_model_folder, prompts, tmp_path):
    how = GenerationSettings(max_new_tokens=1, dtype="float32", limit=3)
    found = answer(str(tiny_model_folder), read_prompts(prompts, 3), how)
    cut = sum(not a.finished for (a,) in found)
    assert len(found) == 3 and cut
    lines = run_generation(str(tiny_model_folder), prompts, tmp_path / "o.json", how)
    assert lines[1:] == [f"{cut} of them cut off at --max-new-tokens 1"]


def test_a_finished_file_stays_unless_told(tiny_model_folder, prompts, tmp_path):
    out = tmp_path / "outputs.json"
    out.write_text("[]")
    given = ("generate", prompts, "--model", tiny_model_folder, "--out", out, "--max-new-tokens", 2)
    assert train(*given).refused("the file exists", "--overwrite")
    assert out.read_text() == "[]"
    assert train(*given, "--overwrite").code == 0
    assert len(json.loads(out.read_text())) == 4


def test_ctrl_c_leaves_nothing(tiny_model_folder, prompts, tmp_path, monkeypatch):
    def interrupted(model, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(LlamaForCausalLM, "generate", interrupted)
    stopped = train("generate", prompts, "--model", tiny_model_folder, "--out", tmp_path / "o.json")
    assert stopped.code == 130 and "o.json was not written" in stopped.err
    assert [p.name for p in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_what_cannot_be_answered_is_refused_before_the_model_is_loaded(prompts, tmp_path, monkeypatch):
    short = write_tiny_model(tmp_path / "short", context=40)
    (short / "model.safetensors").write_text("not read")
    monkeypatch.setattr(generation, "find_spec", lambda name: None)
    given = ("generate", prompts, "--model", short, "--out", tmp_path / "o.json")
    assert train(*given, "--max-new-tokens", 30).refused("prompts.jsonl, line 2: ", "(40 tokens)", "or less")
    assert train(*given, "--engine", "vllm").refused("vLLM is not installed", "--engine transformers")
    assert train(*given, "--top-p", 0).refused("--top-p: Input should be greater than 0, got 0.0")
    assert train(*given[:-1], tmp_path).refused("a folder; expected the name of a JSON file")


def test_the_generator_is_the_folders_name_or_the_hubs(tiny_model_folder, monkeypatch):
    monkeypatch.chdir(tiny_model_folder)
    assert [generator_name(name) for name in (".", f"{tiny_model_folder}/", "owner/name")] == ["tiny"] * 2 + [
        "owner/name"
    ]
