"""The notebooks and the documents' Python run as they stand, with the tiny model and few pairs for what they name."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import polars as pl
import pytest

from tests.rmo_curate.scored import demo_records, write_jsonl

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    (page.name, code)
    for page in PAGES
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    if "import rmo_" in code
]
MODEL = '"smollm2-135m"'
PAIRS = 24


def cells(notebook: Path) -> list[str]:
    """The code of each cell."""
    held = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in held["cells"] if cell["cell_type"] == "code"]


def shown(cell: str, names: dict[str, object]) -> str:
    """Run a cell as a notebook does; what it would show of its last expression."""
    body = ast.parse(cell).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    if last is None:
        return ""
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return value._repr_html_() if hasattr(value, "_repr_html_") else repr(value)


@pytest.fixture
def beside_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder from which data/ is where it is from a notebook's folder."""
    folder = tmp_path / "docs" / "notebooks"
    folder.mkdir(parents=True)
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RMO_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_the_first_cell_to_the_last(notebook, beside_the_data, tiny_model_folder):
    code = cells(notebook)
    replaced = {f"MODEL = {MODEL}": f"MODEL = {str(tiny_model_folder)!r}", "PAIRS = 272": f"PAIRS = {PAIRS}"}
    for named, instead in replaced.items():
        assert "\n".join(code).count(named) == 1
        code = [cell.replace(named, instead) for cell in code]
    names: dict[str, object] = {}
    outputs = [shown(cell, names) for cell in code]
    assert all(outputs[i] for i, cell in enumerate(code) if "print(" not in cell)
    assert sum("<iframe" in output for output in outputs) == 2
    assert isinstance(pairs := names["pairs"], pl.DataFrame) and len(pairs) == PAIRS


def test_a_notebook_holds_no_outputs():
    assert NOTEBOOKS
    for notebook in NOTEBOOKS:
        held = json.loads(notebook.read_text(encoding="utf-8"))
        assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in held["cells"])


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=lambda text: text if text.endswith(".md") else "")
def test_a_documents_python_runs(page, code, tmp_path, monkeypatch, tiny_model_folder):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RMO_CACHE", str(tmp_path / "cache"))
    rows = demo_records(PAIRS)
    write_jsonl(tmp_path / "train.jsonl", rows)
    lines = (ROOT / "data" / "demo" / "heldout.jsonl").read_bytes().splitlines()
    write_jsonl(tmp_path / "heldout.jsonl", lines[:PAIRS])
    assert MODEL in code
    exec(compile(code.replace(MODEL, repr(str(tiny_model_folder))), page, "exec"), {"rows": rows})


def test_the_guide_has_an_example():
    assert "python.md" in [page for page, _ in EXAMPLES]
