"""A proxy whose files were damaged after its training is found by its hashes before it is used, and trained again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rmo_curate.score import proxies
from rmo_train.store import files
from tests.rmo_curate.scored import PROXY, Killed, contents, marks, score


def adapter(run: Path, fold: int) -> Path:
    (found,) = (run / "proxies" / "oof" / f"fold-{fold}").glob("step-*/adapter_model.safetensors")
    return found


def spoil(path: Path, how: str) -> None:
    good = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(good[: len(good) // 2] if how == "truncated" else bytes(len(good)))


@pytest.mark.parametrize("how", ["truncated", "zeros", "gone"])
def test_a_damaged_proxy_is_said_and_trained_again(demo_data, tiny_model_folder, full_run, run, capsys, how):
    others = marks(run / "proxies/oof/fold-0") | marks(run / "scores")
    spoil(adapter(run, 1), how)
    score(demo_data, tiny_model_folder, run, proxy=PROXY)
    said = "missing" if how == "gone" else "damaged"
    err = capsys.readouterr().err
    assert f"{adapter(run, 1).parent}: adapter_model.safetensors is {said}; this proxy will be retrained" in err
    assert marks(run / "proxies/oof/fold-0") | marks(run / "scores") == others  # the same weights: scores stay
    assert contents(run) == contents(full_run)


def test_a_proxy_damaged_before_the_next_was_trained(
    demo_data, tiny_model_folder, full_run, tmp_path, monkeypatch, capsys
):
    run, train = tmp_path / "run", proxies.train_proxy

    def killed(run, data, reference, family, fold):
        if fold == 1:
            raise Killed
        train(run, data, reference, family, fold)

    with monkeypatch.context() as patch:
        patch.setattr(proxies, "train_proxy", killed)
        with pytest.raises(Killed):
            score(demo_data, tiny_model_folder, run, proxy=PROXY)
    spoil(adapter(run, 0), "zeros")
    score(demo_data, tiny_model_folder, run, proxy=PROXY)
    assert "adapter_model.safetensors is damaged" in capsys.readouterr().err
    assert contents(run) == contents(full_run)


def test_other_weights_after_training_again_are_scored_again(demo_data, tiny_model_folder, full_run, run, capsys):
    model = adapter(run, 1).parent
    manifest = files.read_json(run / "proxies/oof/manifest.json")
    other = {"adapter_model.safetensors": "ab" * 32}  # as if trained on a machine that rounds otherwise
    manifest["models"][f"fold-1/{model.name}"] |= other
    files.write_json(run / "proxies/oof/manifest.json", manifest)
    trained = json.loads((model / "trained.json").read_text())
    files.write_json(model / "trained.json", trained | {"sha256": trained["sha256"] | other})
    (score_stage,) = (run / "scores").glob("oof-*")
    before = marks(score_stage)
    score(demo_data, tiny_model_folder, run, proxy=PROXY)
    assert "retraining gave different weights, so its pairs will be scored again" in capsys.readouterr().err
    assert not before.items() & marks(score_stage).items()
    assert contents(run) == contents(full_run)
