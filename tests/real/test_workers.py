"""Workers on a real local Ray: whatever happens to them, every part is there once, and as one process computes it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from rmo_curate.score.crew import Alone, Computed, Described, Job, Part
from rmo_curate.score.engines.base import Work
from rmo_curate.score.settings import WorkerSettings
from rmo_curate.score.workers import WORKING, RayCrew, require_ray
from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.forward.layout import Layout
from rmo_train.store.files import read_json
from tests.manifests import manifest_of
from tests.rmo_curate.score.test_scoring import pair_data

ray = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
pytestmark = pytest.mark.real

PAIRS = pair_data([([i], [10 + i, i], [20 + i]) for i in range(60)])
HANG = 3600.0  # seconds
DEMO = Path(__file__).parents[2] / "data" / "demo" / "train.jsonl"


@dataclass(frozen=True)
class Slow:
    """An engine that takes its time and scores a pair by its tokens; its `fault` strikes at one pair."""

    model: str = "slow"
    seconds: float = 0.0
    fault: str = ""
    at: int = -1  # the first token of the pair
    once: str = ""  # a file that is there after the first time
    noted: str = ""  # a folder: which node scored a pair, and on which GPUs, in a file named by its first token

    def load(self):
        return SlowEngine(self)


@dataclass
class SlowEngine:
    spec: Slow
    layout: Layout = field(default_factory=lambda: Layout("segments", 1024))

    def work(self, data, rows):
        return Work(2 * len(rows), 2 * len(rows), 10 * len(rows), 6 * len(rows))

    def score(self, data, rows, advance=lambda pairs: None):
        time.sleep(self.spec.seconds)
        tokens = data.prompt.take(rows).values
        if self.spec.at in tokens:
            strike(self.spec)
        if self.spec.noted:
            note = f"{ray.get_runtime_context().get_node_id()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
            for token in tokens:
                (Path(self.spec.noted) / str(token)).write_text(note)
        return np.stack([-1.0 * tokens, -2.0 * tokens], axis=1)

    def noise_sd(self, data):
        return 0.25


def strike(spec: Slow) -> None:
    if spec.once:
        if Path(spec.once).exists():
            return
        Path(spec.once).touch()
    if spec.fault == "cuda":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if spec.fault == "memory":
        raise MemoryError
    if spec.fault == "user":
        raise UserError("--attention dense: this model takes no mask; use --attention rows")
    if spec.fault == "hang":
        time.sleep(HANG)
    os.kill(os.getpid(), signal.SIGKILL)


def jobs(spec: Slow, size: int = 2) -> list[Job]:
    parts = [Part(f"part-{i:05d}.parquet", PAIRS, np.arange(i, i + size)) for i in range(0, len(PAIRS), size)]
    return [Job(spec, parts, PAIRS)]


def computed(crew, todo: list[Job], advance=lambda pairs: None) -> dict[str, np.ndarray]:
    """File -> log-probs; each part once, and one description of each model."""
    answers = list(crew.run(todo, advance))
    assert sum(isinstance(a, Described) for a in answers) == len(todo)
    parts = [a for a in answers if isinstance(a, Computed)]
    assert len({a.file for a in parts}) == len(parts)
    return {a.file: a.logps for a in parts if a.logps is not None}


@pytest.fixture
def crew(tmp_path):
    hired = RayCrew(2, None, tmp_path)
    yield hired
    hired.close()
    assert not (tmp_path / WORKING).exists()


def same(mine: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert mine.keys() == other.keys()
    for file, logps in mine.items():
        np.testing.assert_array_equal(logps, other[file])


@pytest.mark.parametrize("fault", ["", "cuda", "memory", "kill"])
def test_a_worker_that_fails_once_costs_nothing_but_time(crew, tmp_path, fault, capsys):
    pairs = []
    spec = Slow(fault=fault, at=31, once=str(tmp_path / "struck") if fault else "")
    same(computed(crew, jobs(spec if fault else Slow()), pairs.append), computed(Alone(), jobs(Slow())))
    assert sum(pairs) == len(PAIRS)
    said = capsys.readouterr().err
    assert "2 Ray workers, one core each" in said and ("a worker failed at part-00030" in said) == bool(fault)
    assert (tmp_path / "logs" / "worker-part-00030.log").exists() == bool(fault)


@pytest.mark.parametrize("fault", ["cuda", "kill"])
def test_a_part_that_fails_three_times_is_named_and_all_others_are_finished(crew, tmp_path, fault):
    answers = []
    with pytest.raises(ProcessingError) as e:
        for answer in crew.run(jobs(Slow(fault=fault, at=31)), lambda pairs: None):
            answers.append(answer)
    files = {a.file for a in answers if isinstance(a, Computed)}
    assert len(files) == 29 and "part-00030.parquet" not in files
    log = tmp_path / "logs" / "worker-part-00030.log"
    assert "part-00030.parquet: 3 workers failed" in str(e.value) and str(log) in str(e.value)
    assert ("illegal memory access" if fault == "cuda" else "died") in log.read_text()


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (None, ProcessingError, "--workers 2: Ray did not start here .too slow.; the machine may be too busy"),
        ("auto", UserError, "--ray auto: no Ray cluster found there .too slow."),
    ],
)
def test_a_ray_that_does_not_start_is_said(tmp_path, monkeypatch, address, error, said):
    def fails(**given):
        raise Exception("too slow\nmore")

    monkeypatch.setattr(ray, "init", fails)
    crew = RayCrew(2, address, tmp_path)
    with pytest.raises(error, match=said):
        next(crew.run(jobs(Slow()), lambda pairs: None))


def test_an_address_where_nothing_listens_is_refused_before_anything_is_read():
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        require_ray(WorkerSettings(ray=address))
        require_ray(WorkerSettings(ray="auto"))  # Ray knows where to look
    for wrong in (address, f"ray://{address}", "127.0.0.1:70000", "no-such-machine.invalid:6379"):
        with pytest.raises(UserError, match=rf"--ray {wrong}: no Ray cluster found there"):
            require_ray(WorkerSettings(ray=wrong))


def test_a_mistake_of_the_users_is_told_at_once(crew):
    with pytest.raises(UserError, match="takes no mask"):
        computed(crew, jobs(Slow(fault="user", at=31)))


def test_a_worker_that_hangs_is_not_waited_for(crew, tmp_path):
    spec = Slow(seconds=0.2, fault="hang", at=31, once=str(tmp_path / "struck"))
    start = time.monotonic()
    logps = computed(crew, jobs(spec))
    assert (tmp_path / "struck").exists() and time.monotonic() - start < HANG / 10
    same(logps, computed(Alone(), jobs(Slow())))


def test_twenty_kills_at_random_moments_lose_nothing_and_score_nothing_twice(crew, tmp_path):
    rng, killed, over = np.random.default_rng(0), [], threading.Event()
    finished: list[str] = []  # parts, in all

    def kill() -> None:
        """One worker after every two parts, at a random moment of its next: however slow the machine is."""
        while not over.is_set():
            time.sleep(rng.uniform(0.0, 0.3))
            if len(finished) < 2 * len(killed):
                continue
            try:
                rows = read_json(tmp_path / WORKING)["workers"]
                pid = int(rows[rng.integers(len(rows))]["where"].split(":")[1])
                os.kill(pid, signal.SIGKILL)
            except (OSError, ValueError, IndexError, UserError):  # nobody is at work, or is gone already
                continue
            killed.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    done: dict[str, np.ndarray] = {}
    try:
        while len(killed) < 20 or len(done) < 60:
            todo = jobs(Slow(seconds=0.3), size=1)
            if len(done) == 60:
                done = {}
            missing = [Part(p.file, p.data, p.rows) for p in todo[0].parts if p.file not in done]
            try:
                for answer in crew.run([Job(todo[0].spec, missing, PAIRS)], lambda pairs: None):
                    if isinstance(answer, Computed):
                        assert answer.file not in done and answer.logps is not None
                        done[answer.file] = answer.logps
                        finished.append(answer.file)
            except ProcessingError:
                continue  # one part met three kills: the same command again goes on
    finally:
        over.set()
        thread.join()
    assert len(killed) >= 20
    same(done, computed(Alone(), jobs(Slow(), size=1)))


def test_a_node_that_goes_away_takes_nothing_with_it(tmp_path):
    from ray.cluster_utils import Cluster

    notes = tmp_path / "notes"
    notes.mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    leaving = cluster.add_node(num_cpus=1)
    staying = cluster.head_node.node_id
    crew = RayCrew(2, cluster.address, tmp_path)
    done: dict[str, np.ndarray] = {}
    before: set[str] = set()  # notes when the node goes
    try:
        for answer in crew.run(jobs(Slow(seconds=0.3, noted=str(notes))), lambda pairs: None):
            if isinstance(answer, Computed) and answer.logps is not None:
                done[answer.file] = answer.logps
            if len(done) == 10 and not before:
                cluster.remove_node(leaving, allow_graceful=False)
                before = {note.name for note in notes.iterdir()}
    finally:
        crew.close()
        cluster.shutdown()
    by = {note.name: note.read_text().split()[0] for note in notes.iterdir()}
    assert leaving.node_id in {by[name] for name in before}  # it had its share,
    rest = [by[name] for name in by.keys() - before]  # and the other the rest, where a half would be its share:
    assert rest.count(staying) > 0.75 * len(rest)  # a worker without its node ends when it notices, a few notes later
    assert len(done) == 30
    same(done, computed(Alone(), jobs(Slow())))


def test_a_worker_has_as_many_gpus_as_a_model_is_split_over(tmp_path, capsys):
    from ray.cluster_utils import Cluster

    notes = tmp_path / "notes"
    notes.mkdir()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 4})  # Ray takes our word for it
    crew = RayCrew("auto", cluster.address, tmp_path, gpus_each=2)
    try:
        same(computed(crew, jobs(Slow(seconds=0.2, noted=str(notes)))), computed(Alone(), jobs(Slow())))
    finally:
        crew.close()
        cluster.shutdown()
    assert {note.read_text().split()[1] for note in notes.iterdir()} == {"0,1", "2,3"}
    assert "2 Ray workers, 2 GPUs each, of 4 GPUs and 1 core" in capsys.readouterr().err


def score(model: Path, run: Path, *more: str) -> subprocess.Popen:
    arguments = ["score", str(DEMO), "--model", str(model), "--out", str(run), "--part-size", "16", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "rmo_curate", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_run_of_workers_equals_a_run_of_one_process_also_when_the_driver_is_killed(tiny_model_folder, tmp_path):
    dtype = ("--dtype", "float32")
    assert score(tiny_model_folder, tmp_path / "one", *dtype).wait() == 0
    first = score(tiny_model_folder, tmp_path / "two", *dtype, "--workers", "2")
    deadline = time.monotonic() + 180
    while not list((tmp_path / "two/scores/base").glob("part-*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.communicate()
    again = score(tiny_model_folder, tmp_path / "two", *dtype, "--workers", "2")
    said = "".join(again.communicate())
    assert again.returncode == 0, said
    from rmo_curate.runs.run import open_run

    one, two = open_run(tmp_path / "one"), open_run(tmp_path / "two")
    assert [c.name for c in one.manifest.checkpoints] == [c.name for c in two.manifest.checkpoints]
    for stage in ("scores/base", "scores/oof-probe", "states"):
        mine, other = manifest_of(tmp_path / "two" / stage), manifest_of(tmp_path / "one" / stage)
        assert [(p["file"], p["rows"]) for p in mine["parts"]] == [(p["file"], p["rows"]) for p in other["parts"]]
        assert mine["key"] == other["key"]
    mine, other = (run.scores(run.trajectory(None)) for run in (two, one))
    np.testing.assert_allclose(mine.chosen_logp, other.chosen_logp, atol=1e-4)
    np.testing.assert_allclose(mine.rejected_logp, other.rejected_logp, atol=1e-4)
