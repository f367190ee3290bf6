"""The scoring job with checkpoints of the user's own, and with what is added to a finished run."""

from __future__ import annotations

import re
from pathlib import Path

from rmo_curate.runs.run import open_run
from rmo_curate.score.command import run_proxy
from rmo_curate.score.engines import spec
from rmo_curate.score.engines.transformers import TransformersEngine
from rmo_curate.score.settings import ProxySettings
from tests.manifests import manifest_of
from tests.rmo_curate.scored import (
    PROXY,
    checkpoint_names,
    contents,
    marks,
    perturbed,
    score,
    scores,
)


def test_checkpoints_are_scored_in_the_order_given(demo_data, tiny_model_folder, tmp_path):
    later = perturbed(tiny_model_folder, tmp_path / "step 20", seed=2)
    early = perturbed(tiny_model_folder, tmp_path / "step.10", seed=1)
    run = tmp_path / "run"
    score(demo_data, tiny_model_folder, run, proxy=ProxySettings(), checkpoints=[f"{later}/", str(early)])
    base, first, second = checkpoint_names(run)  # a checkpoint is given, so no proxy is trained
    assert base == "base"
    assert re.fullmatch(r"step-20-[0-9a-f]{8}", first) and re.fullmatch(r"step\.10-[0-9a-f]{8}", second)
    assert all(e["kind"] == "user" and e["held_out"] is None for e in manifest_of(run)["checkpoints"][1:])
    assert scores(run, first) != scores(run, second) != scores(run, "base")
    assert open_run(run).trajectory().names == (base, first, second)


def test_a_checkpoint_given_later_is_only_added(demo_data, tiny_model_folder, run, tmp_path, monkeypatch):
    first = perturbed(tiny_model_folder, tmp_path / "zz", seed=1)
    second = perturbed(tiny_model_folder, tmp_path / "aa", seed=2)
    loaded = []

    class Engine(TransformersEngine):
        def __post_init__(self):
            loaded.append(Path(self.checkpoint).name)
            super().__post_init__()

    monkeypatch.setattr(spec, "TransformersEngine", Engine)
    before = {f: m for f, m in marks(run).items() if f != "manifest.json"}
    score(demo_data, tiny_model_folder, run, proxy=ProxySettings(), checkpoints=[str(first)])
    score(demo_data, tiny_model_folder, run, proxy=ProxySettings(), checkpoints=[str(second)])
    assert loaded == ["zz", "aa"]
    assert {f: m for f, m in marks(run).items() if f in before} == before
    base, one, two, oof = checkpoint_names(run)
    assert (base, one[:3], two[:3], oof) == ("base", "zz-", "aa-", "oof-2")
    score(demo_data, tiny_model_folder, run, proxy=ProxySettings(), checkpoints=[str(second), str(first)])
    assert checkpoint_names(run) == [base, one, two, oof] and loaded == ["zz", "aa"]


def test_proxies_can_be_added_to_a_run_without(demo_data, tiny_model_folder, full_run, tmp_path):
    run = tmp_path / "run"
    score(demo_data, tiny_model_folder, run)
    run_proxy(run, PROXY)
    assert contents(run) == contents(full_run)
