"""`rmo-curate score` on data and models that are wrong: what is said, and that nothing is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rmo_curate.runs.run import open_run
from tests.command_line import curate
from tests.manifests import manifest_of
from tests.rmo_curate.scored import perturbed, record, score_line, write_jsonl
from tests.tiny import make_tokenizer

pytestmark = pytest.mark.usefixtures("working_folder")

MODEL_ONLY = ("config.json", "model.safetensors", "generation_config.json")


def rejects(run: Path) -> list[tuple[int, str]]:
    return [(r["line"], r["reason"]) for r in open_run(run).rejects().to_pylist()]


def test_a_wrong_path_names_the_nearest(data, model):
    outcome = score_line("pairs.json", model)
    assert outcome.refused("pairs.json: no such file or folder", "did you mean 'pairs.jsonl'?")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no records; expected preference pairs"),
        ("\n\n", "no records; expected preference pairs"),
        ("{broken\n[1]\n", "none of 2 records is an object"),
        ('{"prompt": "a", "chosn": "b", "rejected": "c"}\n', "no column 'chosen'"),
        ('{"ask": "a", "chosen": "b", "rejected": "c"}\n', "--map prompt=ask"),
        ('{"prompt": "a", "chosen": "b", "rejected": "b"}\n', "identical_responses: 1, the first at pairs.jsonl:1"),
    ],
    ids=["empty", "blank", "broken", "misspelt", "no prompt", "only rejects"],
)
def test_data_without_a_pair(working_folder, model, content, said):
    (working_folder / "pairs.jsonl").write_text(content)
    assert score_line("pairs.jsonl", model).refused("pairs.jsonl", said)
    assert not Path("run").exists()


def test_a_misspelt_column_names_the_nearest(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [{"prompt": "a", "chosn": "b", "rejected": "c"}])
    assert score_line("pairs.jsonl", model).refused("the columns are prompt, chosn, rejected; did you mean 'chosn'")


def test_records_that_are_no_pairs_are_kept_with_their_reasons(working_folder, model):
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    records = [
        *(record(i) for i in range(4)),
        '{"prompt": "cut',
        record(5, chosen=""),
        record(6, rejected="good answer 6"),
        record(7, rejected=["a", "list"]),
        record(8, chosen=None),
        {"chosen": chat, "rejected": [chat[0], {"role": "assistant", "content": "?"}]},
        {"prompt": [chat[0]], "chosen": [chat[1]], "rejected": [{"role": "assistant", "content": "?"}]},
    ]
    write_jsonl(working_folder / "pairs.jsonl", records)
    outcome = score_line("pairs.jsonl", model)
    assert outcome.code == 0 and outcome.out.startswith("11 records = 4 pairs + 7 rejects")
    assert outcome.err.count("warning: 7 of 11 records rejected") == 1
    assert rejects(Path("run")) == [
        (5, "broken_line"),
        (6, "empty_response"),
        (7, "identical_responses"),
        (8, "not_text"),
        (9, "missing_field"),
        (10, "missing_field"),
        (11, "other_form"),
    ]


def test_more_rejects_than_allowed(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [*(record(i) for i in range(9)), "{broken"])
    outcome = score_line("pairs.jsonl", model, "--max-rejects", 0.05)
    assert outcome.refused("1 of 10 records rejected (1 broken_line), more than --max-rejects 0.05 allows")
    assert not Path("run").exists()
    assert score_line("pairs.jsonl", model, "--max-rejects", 0.1).code == 0


def test_a_pair_that_is_too_long_is_flagged_and_dropped_by_the_filter(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [*(record(i) for i in range(6)), record(6, chosen="word " * 99)])
    outcome = score_line("pairs.jsonl", model, "--max-length", 64)
    assert outcome.code == 0 and "7 records = 7 pairs + 0 rejects; 1 pair too long" in outcome.out
    assert curate("filter", "run", "--out", "shards", "--rule", "none").code == 0
    counts = manifest_of(Path("shards"))["counts"]
    assert (counts["pairs"], counts["kept"], counts["too_long"]) == (7, 6, 1)


def test_one_id_on_two_contents_is_no_error(working_folder, model):
    write_jsonl(working_folder / "pairs.jsonl", [record(0, id="a"), record(1, id="b"), record(2, id="a")])
    outcome = score_line("pairs.jsonl", model)
    assert outcome.code == 0 and "3 records = 3 pairs" in outcome.out
    assert "1 record with the id of an earlier pair but different content" in outcome.err


def test_a_model_that_is_not_there(data, model):
    wrong = model.parent / (model.name + "y")
    assert score_line(data, wrong).refused(f"{wrong}: no such model folder", f"did you mean '{model.name}'?")
    assert not Path("run").exists()


def test_a_model_without_a_tokenizer(data, model, working_folder):
    bare = working_folder / "bare"
    bare.mkdir()
    for name in MODEL_ONLY:
        shutil.copy(model / name, bare)
    assert score_line(data, bare).refused(f"{bare}: no tokenizer", "save_pretrained(")
    assert not Path("run").exists()


def test_a_model_without_a_chat_template(data, model, working_folder):
    plain = shutil.copytree(model, working_folder / "plain")
    make_tokenizer(template=None).save_pretrained(plain)
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    assert score_line(data, plain).refused("no chat template", "give an instruction-tuned model")
    assert not Path("run").exists()


def test_a_model_without_weights(data, model, working_folder):
    empty = shutil.copytree(model, working_folder / "empty")
    (empty / "model.safetensors").unlink()
    assert score_line(data, empty).refused(f"{empty}: no weights", "was the model saved completely?")
    assert not Path("run").exists()


def test_a_checkpoint_with_another_tokenizer_or_template(data, model, working_folder):
    other = perturbed(model, working_folder / "other")
    make_tokenizer(vocabulary=300).save_pretrained(other)
    outcome = score_line(data, model, "--checkpoint", other)
    assert outcome.refused(
        f"--checkpoint {other}: its tokenizer differs from that of --model {model}", "Save the checkpoint"
    )
    spoken = perturbed(model, working_folder / "spoken")
    template = spoken / "chat_template.jinja"
    template.write_text(template.read_text() + "\n")
    outcome = score_line(data, model, "--checkpoint", spoken)
    assert outcome.refused(f"--checkpoint {spoken}: its chat template differs from that of --model")
    assert not Path("run").exists()


def test_a_checkpoint_that_is_the_reference(data, model, working_folder):
    same = shutil.copytree(model, working_folder / "same")
    outcome = score_line(data, model, "--checkpoint", same)
    assert outcome.refused(f"--checkpoint {same}: the same weights as --model", "give a trained checkpoint")
    assert not Path("run").exists()


def test_a_length_beyond_the_context(data, model):
    assert score_line(data, model, "--max-length", 4096).refused("--max-length 4096: the context of", "is 2048 tokens")
    assert not Path("run").exists()
