"""The audit page in a real browser: it opens from a file, asks for nothing, runs nothing, and fits a phone."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest

from rmo_curate.audit.collect import AuditSettings
from rmo_curate.audit.report import write_audit

pytestmark = pytest.mark.real

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
HOSTILE = (
    "<script>document.title='owned'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">"
    "<link rel=stylesheet href=http://127.0.0.1:9/y><svg onload=\"document.title='owned'\"></svg></style></details>"
    "{{ 7 * 7 }} \u202egnihton\u202c \u0627\u0644\u0639\u0631\u0628\u064a\u0629 " + "unbroken" * 60
)


@pytest.fixture(scope="module")
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
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({"worst": 5}))
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    return summary.page.resolve().as_uri()


def test_it_opens_without_errors_and_asks_for_nothing(browser, page):
    browser.get(page)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in requested if not url.startswith("data:")] == [page]
    assert browser.title == "Preference data audit: run"


def test_hostile_text_reads_as_text(browser, page):
    browser.get(page)
    assert browser.title == "Preference data audit: run"
    assert browser.execute_script("return document.scripts.length + document.images.length") == 0
    box = browser.find_element("css selector", ".suspect .box .text-box")
    assert box.text.startswith("<script>document.title='owned'</script>") and "{{ 7 * 7 }}" in box.text


def test_nothing_could_run_or_load_even_if_it_got_in(browser, page):
    """The policy is the second wall: markup put in behind the escaping's back is blocked."""
    browser.get(page)
    browser.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title = \"owned\"';"
        "document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'http://127.0.0.1:9/x'; document.body.append(i);"
    )
    assert browser.title == "Preference data audit: run"
    blocked = [entry["message"] for entry in browser.get_log("browser")]
    assert len([m for m in blocked if "Content Security Policy" in m]) >= 2


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_fits_the_window_and_follows_the_theme(browser, page, width, theme):
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    window = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
    try:
        browser.get(page)
        wide, red = browser.execute_script(
            "return [document.documentElement.scrollWidth,"
            " Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])]"
        )
        assert wide <= width
        assert (red < 60) == (theme == "dark")
        bar = browser.find_element("css selector", ".chart .fill-kept")
        assert bar.value_of_css_property("fill") == {"light": "rgb(43, 108, 176)", "dark": "rgb(105, 167, 234)"}[theme]
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_suspect_opens_from_the_keyboard(browser, page):
    from selenium.webdriver.common.keys import Keys

    browser.get(page)
    closed = browser.find_elements("css selector", "details.suspect:not([open])")[0]
    summary = closed.find_element("css selector", "summary")
    summary.send_keys(Keys.ENTER)
    assert closed.get_attribute("open") is not None
    assert closed.find_element("css selector", ".sides").is_displayed()


def test_long_answers_scroll_in_their_box(browser, page):
    browser.get(page)
    heights = browser.execute_script(
        "return [...document.querySelectorAll('.suspect[open] .text-box')]"
        ".map(e => [e.clientHeight, e.scrollHeight, e.tabIndex])"
    )
    assert max(shown for shown, _, _ in heights) <= 360
    assert all(tab == 0 for shown, whole, tab in heights if whole > shown + 1)
