"""The documents tell the truth: their commands parse, their recipes load, their links and their tree exist."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from rmo.recipe import load_recipe
from rmo_curate.cli import app as curate
from rmo_train.cli import app as train

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)
APPS = {"rmo-curate": typer.main.get_command(curate), "rmo-train": typer.main.get_command(train)}


def commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for _, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                if line.split(" ")[0] in APPS:
                    found.append((page.name, line.split("  #")[0].split("   ")[0].strip()))
    return found


def options(command: object) -> set[str]:
    return {flag for p in command.params for flag in (*p.opts, *p.secondary_opts)} | {"--help"}


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_in_the_documents_exists_with_its_flags(page: str, line: str):
    program, name, *rest = shlex.split(line.replace("[", "").replace("]", "").replace("|", " "))
    command = APPS[program].commands.get(name)
    assert command is not None, f"{page}: {program} has no command {name!r}"
    for word in rest:
        if word.startswith("--"):
            assert word.split("=")[0] in options(command), f"{page}: {program} {name} has no {word}"


def test_every_recipe_in_the_documents_loads(tmp_path: Path):
    recipes = [
        b for p in PAGES for kind, b in BLOCK.findall(p.read_text(encoding="utf-8")) if kind == "yaml" and "score:" in b
    ]
    assert recipes
    for i, text in enumerate(recipes):
        path = tmp_path / f"{i}.yaml"
        path.write_text(text, encoding="utf-8")
        load_recipe(path)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_room_is_in_the_readme_and_every_module_in_its_rooms_tour():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for package in ("rmo_train", "rmo_curate", "rmo", "benchmarks"):
        for init in (ROOT / package).rglob("__init__.py"):
            tour = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
            inside = [p.stem for p in init.parent.glob("*.py") if not p.stem.startswith("__")]
            rooms = [p.parent.name for p in init.parent.glob("*/__init__.py")]
            assert [name for name in (*inside, *rooms) if not re.search(rf"\b{name}\b", tour)] == [], init
            if init.parent.parent == ROOT / package:
                assert f"{init.parent.name}/" in readme, init


def test_the_readmes_demo_is_what_was_kept_of_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme[readme.index("<!-- demo-output -->") : readme.index("<!-- /demo-output -->")]
    rows = [tuple(cell.strip() for cell in line.split("│")[1:3]) for line in shown.splitlines() if "│" in line]
    kept = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text(encoding="utf-8"))
    assert rows == [(label.strip(), value) for section in kept for label, value in section]


@pytest.mark.parametrize("module", ["rmo_train.cli", "rmo_curate.cli", "rmo.cli"])
def test_importing_a_command_line_loads_nothing_heavy(module: str):
    heavy = "torch transformers datasets polars matplotlib peft vllm sklearn jinja2"
    code = f"import sys, {module}; print([m for m in '{heavy}'.split() if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize(("program", "name"), [(p, n) for p, app in APPS.items() for n in app.commands])
def test_every_help_answers(program: str, name: str):
    from typer.testing import CliRunner

    result = CliRunner().invoke(curate if program == "rmo-curate" else train, [name, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_the_tables_of_detection_are_those_that_the_results_give():
    from benchmarks.cells import cells
    from benchmarks.detect_table import filled, tables

    plan = yaml.safe_load((ROOT / "benchmarks" / "plan.yaml").read_text(encoding="utf-8"))["detect"]
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    lines = list(tables(cells(plan), ROOT / "benchmarks" / "results" / "detect"))
    assert filled(page, lines) == page, "python -m benchmarks.detect --table --write"
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) > 20 and all(row.count("|") - 1 <= 6 for row in rows)
