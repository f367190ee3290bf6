"""Two audit pages in a real browser: of a run, and of data with one of each defect."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from rmo_curate.audit.command import write_audit, write_data_audit
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.filter.settings import FilterSettings
from tests.rmo_curate.audit.test_audit_data import planted
from tests.rmo_curate.scored import write_jsonl

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-prefers-reduced-motion",  # a page that is still scrolling cannot be clicked
)
HOSTILE = (
    "<script>document.title='owned'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">"
    "<link rel=stylesheet href=http://127.0.0.1:9/y><svg onload=\"document.title='owned'\"></svg></style></details>"
    "{{ 7 * 7 }} \u202egnihton\u202c \u0627\u0644\u0639\u0631\u0628\u064a\u0629 " + "unbroken" * 60
)


@pytest.fixture(scope="package")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER, env={**os.environ, "NO_PROXY": "*"}))
    yield driver
    driver.quit()


@pytest.fixture
def page(make_run, tmp_path, browser):
    """The address of a report on sixty pairs, the worst of them hostile; the browser's logs are empty."""
    flipped = np.arange(60) % 6 == 0
    base = np.linspace(-8, 8, 60)
    moved = np.where(flipped, -5.0, 4.0) + np.linspace(-1, 1, 60)
    rows = [{"chosen_tokens": 5 + i % 4, "rejected_tokens": 6} for i in range(60)]
    rows[0] |= {"prompt": HOSTILE, "chosen": HOSTILE * 20, "rejected": HOSTILE}
    run = make_run(
        {"base": base.tolist(), "oof-4": (base + moved / 2).tolist(), "oof-8": (base + moved).tolist()},
        rows=rows,
        rejects=[{"reason": "missing_field", "detail": HOSTILE, "raw": HOSTILE}],
    )
    of_margins = FilterSettings.model_validate({"rule": "irm", "noise_rate": "0.2"})
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({"worst": 5}), of_margins)
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    return summary.page.resolve().as_uri()


@pytest.fixture
def data_page(tmp_path, browser):
    """The page on data with one of each defect; all texts of the first pairs are hostile."""
    formula = HOSTILE + "\u2028\u0000 $x^2$ \\[\\int\\]"
    long = "I'm sorry, but I can't help. " + "lots " * 200_000
    rows = [
        {"id": HOSTILE[:400], "prompt": HOSTILE, "chosen": "I cannot give it. " + HOSTILE, "rejected": formula},
        {"id": "megabyte", "prompt": "Write a lot.", "chosen": long, "rejected": "x" * 1_000_000, "source": HOSTILE},
        {"id": "half", "prompt": "half a character", "chosen": "\ud800", "rejected": HOSTILE},
        *planted(),
    ]
    data = write_jsonl(tmp_path / "pairs.jsonl", rows)
    summary = write_data_audit([str(data)], tmp_path / "audit", AuditSettings.model_validate({}))
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(summary.page.resolve().as_uri())
    return json.loads(summary.json.read_text(encoding="utf-8"))
