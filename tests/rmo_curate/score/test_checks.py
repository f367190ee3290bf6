"""What can be wrong with the workers that are asked for: said before any record is read."""

from __future__ import annotations

import pytest

from rmo_curate.score import job
from rmo_curate.score import workers as hiring
from rmo_curate.score.checks import check_workers
from rmo_curate.score.settings import WorkerSettings
from rmo_train.console.errors import UserError
from tests.rmo_curate.scored import score_line


@pytest.fixture
def machine(monkeypatch):
    """machine(cores, gpus): what this machine has, with Ray."""

    def has(cores: int, gpus: int) -> None:
        monkeypatch.setattr(hiring, "find_spec", lambda name: object())
        monkeypatch.setattr("os.cpu_count", lambda: cores)
        monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)

    return has


@pytest.fixture
def nothing_read(monkeypatch, tmp_path):
    """No record is read in this test, and no run is begun."""

    def read(*args, **kwargs):
        raise AssertionError("the data were read")

    monkeypatch.setattr(job, "open_source", read)
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "run").exists()


def test_more_workers_than_the_machine_has_cores(demo_data, tiny_model_folder, machine, nothing_read):
    machine(2, 0)
    assert score_line(demo_data, tiny_model_folder, "--workers", 99).refused(
        "--workers 99: this machine has only 2 cores; give at most that many"
    )


def test_workers_without_ray(demo_data, tiny_model_folder, monkeypatch, nothing_read):
    monkeypatch.setattr(hiring, "find_spec", lambda name: None)
    for flag, value in (("--workers", 2), ("--workers", "auto"), ("--ray", "auto")):
        assert score_line(demo_data, tiny_model_folder, flag, value).refused(f"{flag}: Ray is not installed")


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_number_of_workers_that_is_none(value, demo_data, tiny_model_folder, nothing_read):
    assert score_line(demo_data, tiny_model_folder, "--workers", value).refused(
        "--workers", "expected 1 or more, or auto"
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--tensor-parallel-size", 2), "the engine here is transformers, which cannot split a model"),
        (("--tensor-parallel-size", 4, "--workers", 3), "2 of 3 workers would find 4 GPUs on one machine"),
    ],
)
def test_a_model_over_several_gpus(flags, said, demo_data, tiny_model_folder, machine, nothing_read):
    machine(64, 8)
    assert score_line(demo_data, tiny_model_folder, "--engine", "transformers", *flags).refused(said)


def test_as_many_workers_as_there_are_cores_or_gpus_are_let_through(machine):
    machine(2, 8)
    for workers in (WorkerSettings(workers=8), WorkerSettings(workers="auto"), WorkerSettings(workers=99, ray="auto")):
        check_workers(workers, 1)
    check_workers(WorkerSettings(workers=4), 2)
    for workers, gpus_each, said in ((9, 1, "--workers 9"), (5, 2, "2 GPUs on one machine")):
        with pytest.raises(UserError, match=said):
            check_workers(WorkerSettings(workers=workers), gpus_each)
