"""The documents tell the truth: their commands parse and run, their recipes load, their links and their tree exist."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from rmo.cli import app as rmo
from rmo.recipe import load_recipe
from rmo_curate.cli import app as curate
from rmo_train.cli import app as train
from tests import command_line

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)")
LINES = {"rmo-curate": curate, "rmo-train": train, "rmo": rmo}
APPS = {program: typer.main.get_command(app) for program, app in LINES.items()}


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


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = (re.sub(r"[^\w\s-]", "", h).strip().lower() for h in re.findall(r"^#+ (.*)$", text, re.M))
    return {re.sub(r"\s", "-", heading) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files_and_to_headings_in_them(page: Path):
    for target, anchor in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}#{anchor}"
        if page.is_relative_to(DOCS):
            assert there.resolve().is_relative_to(DOCS), f"{page.name}: the site does not have {target}"


def test_every_page_is_in_the_navigation_of_the_site():
    nav = re.findall(r"[\w/.-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1])
    assert sorted(nav) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def test_the_generated_parts_of_the_documents_are_up_to_date():
    checked = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert checked.returncode == 0, f"run: python docs/generate.py\n{checked.stdout}{checked.stderr[-2000:]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_table_is_wider_than_six_columns(page: Path):
    text = re.sub(r"`[^`\n]*`|\\\|", "", BLOCK.sub("", page.read_text(encoding="utf-8")))
    assert [line for line in text.splitlines() if line.startswith("|") and line.count("|") > 7] == []


@pytest.mark.real
def test_the_site_is_built_without_a_warning(tmp_path: Path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(https?:[^"'> ]+)""", page)
    assert loaded == []


@pytest.mark.parametrize(
    ("page", "folder", "report"),
    [("tutorial.md", Path("data", "demo"), "tour/report"), ("README.md", Path(), "runs/report")],
    ids=["tutorial", "README"],
)
def test_the_commands_of_a_page_run_as_they_stand(page, folder, report, tmp_path, tiny_model_folder, monkeypatch):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, n in (("train.jsonl", 48), ("heldout.jsonl", 24)):  # a part of them: the commands are the promise
        records = (ROOT / "data" / "demo" / name).read_text(encoding="utf-8").splitlines(keepends=True)
        (tmp_path / folder / name).write_text("".join(records[:n]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    lines = [line for name, line in commands() if name == page]
    assert len(lines) >= 8
    for line in lines:
        program, *arguments = shlex.split(re.sub("smollm2-135m|MODEL", str(tiny_model_folder), line))
        outcome = {"rmo-curate": command_line.curate, "rmo-train": command_line.train}[program](*arguments)
        assert outcome.code == 0, f"{line}\n{outcome.err}"
    assert (tmp_path / report / "report.html").is_file()


def test_every_room_is_in_the_tree_and_every_module_in_its_rooms_tour():
    tree = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for package in ("rmo_train", "rmo_curate", "rmo", "benchmarks"):
        for init in (ROOT / package).rglob("__init__.py"):
            tour = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
            inside = [p.stem for p in init.parent.glob("*.py") if not p.stem.startswith("__")]
            rooms = [p.parent.name for p in init.parent.glob("*/__init__.py")]
            assert [name for name in (*inside, *rooms) if not re.search(rf"\b{name}\b", tour)] == [], init
            if init.parent.parent == ROOT / package:
                assert f"{init.parent.name}/" in tree, init


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

    result = CliRunner().invoke(LINES[program], [name, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output
