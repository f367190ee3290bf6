"""The audit page in a real browser: it opens from a file, asks for nothing, runs nothing but its own script, fits a
phone, and works in a notebook."""

from __future__ import annotations

import json
import time

import pytest

from rmo_curate.audit.command import write_data_audit
from rmo_curate.audit.settings import AuditSettings
from tests.rmo_curate.audit.test_audit_data import planted
from tests.rmo_curate.scored import write_jsonl

pytestmark = pytest.mark.real


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
    assert browser.execute_script("return [document.scripts.length, document.images.length]") == [2, 0]  # ours
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


def at_size(browser, width: int, height: int):
    window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_first_screen_answers_three_questions(browser, page, width, height):
    at_size(browser, width, height)
    try:
        browser.get(page)
        first = ["h1", "#command", "#copy", ".worst li:nth-child(3)"]
        bottoms = browser.execute_script(
            "return arguments[0].map(s => document.querySelector(s).getBoundingClientRect().bottom)", first
        )
        assert max(bottoms) <= height
        assert len(browser.find_elements("css selector", ".worst li")) == 3
        assert browser.find_element("id", "command").text.startswith("rmo-curate filter ")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_tables_fit_a_phone(browser, page):
    at_size(browser, 390, 844)
    try:
        browser.get(page)
        wide = browser.execute_script(
            "return [...document.querySelectorAll('.table')].filter(t => t.scrollWidth > t.clientWidth)"
            ".map(t => t.querySelector('table').getAttribute('aria-label'))"
        )
        assert wide == []
        button = browser.find_element("id", "keys")
        assert button.is_displayed()
        button.click()
        assert "exchange chosen and rejected" in browser.find_element("id", "help").text
        browser.find_element("id", "close").click()
        assert not browser.find_element("id", "help").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_command_is_copied_and_a_worst_pair_opens(browser, page):
    browser.get(page)
    browser.find_element("id", "copy").click()
    time.sleep(0.3)
    assert browser.find_element("id", "copy").text == "Copied"
    browser.find_element("css selector", ".worst li:nth-child(2) a").click()
    opened = browser.execute_script("return [...document.querySelectorAll('.suspect[open]')].map(row => row.pair.rank)")
    assert opened == [2]


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


def test_a_findings_name_opens_what_it_means(browser, data_page):
    link = browser.find_element("css selector", "a[href='#explained-refusal']")
    link.click()
    target = browser.find_element("id", "explained-refusal")
    assert target.get_attribute("open") is not None
    assert "How it is computed." in target.text


def test_in_a_notebooks_frame_its_links_and_lists_work(browser, tmp_path):
    summary = write_data_audit([str(write_jsonl(tmp_path / "d.jsonl", planted()))], tmp_path / "o", AuditSettings())
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset=utf-8><p>cell</p>{summary._repr_html_()}", encoding="utf-8")
    browser.get(notebook.as_uri())
    browser.switch_to.frame(browser.find_element("tag name", "iframe"))
    browser.find_element("css selector", "a[href='#explained-refusal']").click()
    assert browser.find_element("id", "explained-refusal").get_attribute("open") is not None
    assert (
        browser.execute_script("return document.getElementById('explained-refusal').getBoundingClientRect().top") < 400
    )
    assert browser.find_elements("class name", "suspect")
    browser.switch_to.default_content()
    assert browser.find_element("tag name", "p").text == "cell"
