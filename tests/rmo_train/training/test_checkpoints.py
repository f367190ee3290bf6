"""Checkpoints: a run killed anywhere ends as the uninterrupted one, damage is found, the best one can be kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rmo_train.console.errors import UserError
from rmo_train.data.pairs import open_pairs
from rmo_train.model.policy import load_model
from rmo_train.store.files import file_hashes, read_json, write_json
from rmo_train.training import checkpoint, loop
from rmo_train.training.checkpoint import (
    best_checkpoint,
    load_state,
    newest_checkpoint,
    random_state,
    remove_old_checkpoints,
    restore_random_state,
)
from rmo_train.training.command import run_training
from rmo_train.training.record import Record, read_metrics
from rmo_train.training.settings import TrainSettings

QUICK = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "num_train_epochs": 2,
    "amplify": 0.25,
    "diversify": True,
}
CLOCKS = ("pairs_per_second", "tokens_per_second", "matmul_share", "peak_memory_gib")


class Killed(BaseException):
    pass


def weights(folder: Path) -> torch.Tensor:
    model = load_model(str(folder), "float32")
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def exact(out: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in CLOCKS} for line in read_metrics(out)]


def kill_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int) -> None:
    """Call number `call` of `owner.name` (from 1) does not come back, nor does what it would have done."""
    original, calls = getattr(owner, name), 0

    def dying(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise Killed
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.parametrize("lora", [None, 4])
@pytest.mark.parametrize("bf16", [False, True])
def test_kill_and_resume_equals_the_uninterrupted_run(lora, bf16, shards, tiny_model_folder, tmp_path, monkeypatch):
    settings = TrainSettings(**QUICK, lora=lora, bf16=bf16, save_steps=3)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_training(shards, str(tiny_model_folder), whole, settings)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, loop, "batch_metrics", 8)
        run_training(shards, str(tiny_model_folder), killed, settings)
    assert not (killed / "manifest.json").exists()
    run_training(shards, str(tiny_model_folder), killed, settings)
    assert exact(whole) == exact(killed)  # to the last bit, no step twice
    assert torch.equal(weights(whole), weights(killed))


def drawing(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Each forward pass draws a random number on the model's device, as dropout would; they are listed."""
    drawn: list[float] = []
    original = loop.forward_backward

    def forward_backward(job, *args):
        drawn.append(float(torch.rand((), device=next(job.model.parameters()).device)))
        return original(job, *args)

    monkeypatch.setattr(loop, "forward_backward", forward_backward)
    return drawn


def test_a_resumed_run_draws_the_random_numbers_of_the_uninterrupted_one(
    shards, tiny_model_folder, tmp_path, monkeypatch
):
    settings = TrainSettings(**QUICK, save_steps=2, max_steps=4)
    drawn = drawing(monkeypatch)
    run_training(shards, str(tiny_model_folder), tmp_path / "whole", settings)
    whole = list(drawn)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_at(patch, loop, "batch_metrics", 4)
        run_training(shards, str(tiny_model_folder), tmp_path / "killed", settings)
    drawn.clear()
    run_training(shards, str(tiny_model_folder), tmp_path / "killed", settings)
    assert len(drawn) < len(whole) and drawn == whole[-len(drawn) :]


ON_A_GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))


@pytest.mark.parametrize("name", ["cpu", ON_A_GPU])
def test_a_restored_random_state_draws_the_same_numbers(name):
    device = torch.device(name)
    saved = random_state(device)
    drawn = torch.rand(3), torch.rand(3, device=device)
    restore_random_state([saved], 0, device)
    assert all(map(torch.equal, (torch.rand(3), torch.rand(3, device=device)), drawn))


def test_each_process_draws_on_by_itself_and_so_does_its_gpu(monkeypatch):
    """Stand-ins for a GPU's two functions: process 1 of two gets its own states back, process 2 of now three the
    first one's."""
    restored: list[int] = []
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.tensor([7], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: restored.append(int(state)))
    gpu = torch.device("cuda")
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(random_state(gpu) | {"cuda": torch.tensor([seed], dtype=torch.uint8)})
    assert random_state(gpu)["cuda"] == 7 and "cuda" not in random_state(torch.device("cpu"))
    for rank, seed in ((1, 2), (2, 1)):
        restore_random_state(states, rank, gpu)
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(seed)))
    assert restored == [2, 1]


def test_killed_at_every_moment_of_its_steps_a_run_ends_the_same(shards, tiny_model_folder, tmp_path, monkeypatch):
    settings = TrainSettings(**QUICK, save_steps=2, max_steps=5)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run_training(shards, str(tiny_model_folder), whole, settings)
    moments = [
        (loop, "batch_metrics", 1),  # before anything was saved
        (Record, "add", 3),  # step 3 done, not logged
        (checkpoint.torch, "save", 1),  # in the checkpoint of step 4, half of it written
        (loop, "batch_metrics", 3),  # step 5
        (checkpoint, "save_model", 1),  # as above, now from the checkpoint of step 4: none is left to write
    ]
    for owner, name, call in moments:
        with monkeypatch.context() as patch:
            kill_at(patch, owner, name, call)
            try:
                run_training(shards, str(tiny_model_folder), killed, settings)
            except Killed:
                assert not (killed / "manifest.json").exists()
    run_training(shards, str(tiny_model_folder), killed, settings)
    assert exact(whole) == exact(killed)
    assert torch.equal(weights(whole), weights(killed))
    assert sorted(p.name for p in whole.iterdir()) == sorted(p.name for p in killed.iterdir())


def test_a_truncated_checkpoint_is_named_and_the_one_before_is_used(shards, tiny_model_folder, tmp_path, capsys):
    out = tmp_path / "out"
    settings = TrainSettings(**QUICK, save_steps=3)
    run_training(shards, str(tiny_model_folder), out, settings)
    before = exact(out)
    state = out / "checkpoint-9" / "training.pt"
    state.write_bytes(state.read_bytes()[:-100])
    assert newest_checkpoint(out) == out / "checkpoint-6"
    assert "training.pt is damaged; using the previous checkpoint" in capsys.readouterr().err
    (out / "manifest.json").unlink()
    run_training(shards, str(tiny_model_folder), out, settings)
    assert "resuming from" in (said := capsys.readouterr().err) and "checkpoint-6" in said
    assert exact(out) == before


def recorded_anew(folder: Path) -> None:
    """The record says of the files as they are now that they are whole."""
    record = read_json(folder / "checkpoint.json")
    (folder / "checkpoint.json").unlink()
    write_json(folder / "checkpoint.json", record | {"sha256": file_hashes(folder)})


def truncated(folder: Path) -> None:
    state = folder / "training.pt"
    state.write_bytes(state.read_bytes()[:-100])
    recorded_anew(folder)


def emptied(folder: Path) -> None:
    (folder / "training.pt").write_bytes(b"")
    recorded_anew(folder)


def of_something_else(folder: Path) -> None:
    torch.save({"weights": torch.ones(2)}, folder / "training.pt")
    recorded_anew(folder)


def no_progress(folder: Path) -> None:
    write_json(folder / "trainer_state.json", {"global_step": 9})
    recorded_anew(folder)


def record_cut_off(folder: Path) -> None:
    (folder / "checkpoint.json").write_text('{"step": 9')


def record_of_something_else(folder: Path) -> None:
    (folder / "checkpoint.json").write_text("[]")


@pytest.fixture(scope="module")
def unfinished(shards, tiny_model_folder, tmp_path_factory) -> Path:
    """A training of 12 steps with checkpoints 3, 6 and 9, killed before its manifest was written. Copied, not used."""
    out = tmp_path_factory.mktemp("unfinished") / "out"
    run_training(shards, str(tiny_model_folder), out, TrainSettings(**QUICK, save_steps=3))
    (out / "manifest.json").unlink()
    return out


@pytest.mark.parametrize(
    ("harm", "file"),
    [
        (truncated, "training.pt"),
        (emptied, "training.pt"),
        (of_something_else, "training.pt"),
        (no_progress, "trainer_state.json"),
        (record_cut_off, "checkpoint.json"),
        (record_of_something_else, "checkpoint.json"),
    ],
)
def test_a_checkpoint_that_cannot_be_read_is_named_and_the_one_before_is_used(harm, file, unfinished, tmp_path, capsys):
    out = tmp_path / "out"
    shutil.copytree(unfinished, out)
    harm(out / "checkpoint-9")
    assert newest_checkpoint(out) == out / "checkpoint-6"
    assert f"checkpoint-9: {file} is damaged; using the previous checkpoint" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"checkpoint-9: {file} is damaged; give another checkpoint, or leave the flag"):
        load_state(out / "checkpoint-9", read_json(out / "run.json"))


def test_without_a_readable_checkpoint_training_starts_anew_and_says_so(
    unfinished, shards, tiny_model_folder, tmp_path, capsys
):
    out, settings = tmp_path / "out", TrainSettings(**QUICK, save_steps=3, save_total_limit=1)
    shutil.copytree(unfinished, out)
    before = exact(out)
    for folder in checkpoint.checkpoints(out):
        truncated(folder)
    run_training(shards, str(tiny_model_folder), out, settings)
    said = capsys.readouterr().err
    assert "checkpoint-3: training.pt is damaged; there is no earlier one, so training starts at step 0" in said
    assert exact(out) == before


def test_damaged_checkpoints_do_not_make_the_run_remove_those_that_it_writes(unfinished, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(unfinished, out)
    remove_old_checkpoints(out, 6, 1, keep_best=False)  # 9 is damaged, the run went on from 3 and has written 6
    assert [p.name for p in checkpoint.checkpoints(out)] == ["checkpoint-6", "checkpoint-9"]


def test_only_the_newest_checkpoints_stay(shards, tiny_model_folder, tmp_path):
    settings = TrainSettings(**QUICK, save_steps=2, save_total_limit=2)
    run_training(shards, str(tiny_model_folder), tmp_path / "out", settings)
    assert sorted(p.name for p in (tmp_path / "out").glob("checkpoint-*")) == ["checkpoint-10", "checkpoint-8"]


def test_the_best_checkpoint_stays_and_becomes_the_model(shards, make_shards, tiny_model_folder, tmp_path):
    """Training makes held-out accuracy worse here: the held-out labels are the training labels' opposite."""
    held_out = opposite(shards, make_shards, tmp_path / "heldout")
    settings = TrainSettings(
        **QUICK | {"learning_rate": 1e-2, "amplify": 0, "diversify": False}, save_total_limit=1, save_steps=2,
        eval_steps=2, load_best_model_at_end=True,
    )  # fmt: skip
    out = tmp_path / "out"
    lines = run_training(shards, str(tiny_model_folder), out, settings, eval_data=held_out)
    accuracy = {line["step"]: line["eval/reward_accuracy"] for line in read_metrics(out) if line["step"] % 2 == 0}
    best = max(accuracy, key=lambda step: (accuracy[step], -step))
    assert best < 10, accuracy
    kept = out / f"checkpoint-{best}"
    assert best_checkpoint(out) == kept
    assert sorted(p.name for p in out.glob("checkpoint-*")) == sorted({kept.name, "checkpoint-10"})
    assert torch.equal(weights(out), weights(kept))
    assert read_json(out / "eval_results.json")["reward_accuracy"]["value"] == accuracy[best]
    assert read_json(out / "trainer_state.json")["best_model_checkpoint"] == kept.name
    assert any(f"the model is {kept.name}" in line and "biased upwards" in line for line in lines)
    assert not {"training.pt", "checkpoint.json", ".taking"} & {p.name for p in out.iterdir()}


def opposite(shards: Path, make_shards, folder: Path) -> Path:
    """The pairs of `shards` with chosen and rejected exchanged, under other ids and prompts."""
    data = open_pairs(shards)
    return make_shards(
        folder,
        start=1000,
        end=False,
        prompt_ids=[data.prompt[i] for i in range(24)],
        chosen_ids=[data.rejected[i] for i in range(24)],
        rejected_ids=[data.chosen[i] for i in range(24)],
        chosen_tokens=data.rejected.lengths,
        rejected_tokens=data.chosen.lengths,
        ref_chosen_logps=data.ref_rejected,
        ref_rejected_logps=data.ref_chosen,
    )


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("data", "data"),
        ("model", "model"),
        ("loss", {"loss": "ipo"}),
        ("pairs_per_step", {"gradient_accumulation_steps": 4}),
        ("beta", {"beta": 0.3}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_the_name_of_the_field(
    field, change, shards, make_shards, tiny_model_folder, tmp_path
):
    from tests.tiny import write_tiny_model

    settings = TrainSettings(**QUICK, save_steps=3, max_steps=4)
    run_training(shards, str(tiny_model_folder), tmp_path / "a", settings)
    data = make_shards(tmp_path / "other", start=500) if change == "data" else shards
    model = write_tiny_model(tmp_path / "model", seed=9) if change == "model" else tiny_model_folder
    changed = settings.model_copy(update=change) if isinstance(change, dict) else settings
    with pytest.raises(UserError, match=f"{field}: the folder has"):
        run_training(
            data, str(model), tmp_path / "b", changed, ignore_identity=True,
            resume_from_checkpoint=tmp_path / "a" / "checkpoint-3",
        )  # fmt: skip


def test_a_run_goes_on_with_another_split_of_its_batch(shards, tiny_model_folder, tmp_path):
    """Devices and micro-steps may change between two calls, pairs per step may not."""
    settings = TrainSettings(**QUICK, save_steps=3, max_steps=6)
    run_training(shards, str(tiny_model_folder), tmp_path / "a", settings)
    other = settings.model_copy(update={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1})
    run_training(
        shards, str(tiny_model_folder), tmp_path / "b", other, resume_from_checkpoint=tmp_path / "a" / "checkpoint-3"
    )
    assert exact(tmp_path / "a")[3:] == exact(tmp_path / "b")
