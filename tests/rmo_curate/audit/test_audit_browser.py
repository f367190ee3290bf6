"""The audit page in a real browser: it opens from a file, asks for nothing, runs nothing but its own script, fits a
phone; pairs are searched, sorted, narrowed and decided on, and the filter obeys what was decided."""

from __future__ import annotations

import json
import os
import shutil
import time

import numpy as np
import pytest

from rmo_curate.audit.command import write_audit, write_data_audit
from rmo_curate.audit.settings import AuditSettings
from rmo_curate.filter.settings import FilterSettings
from tests.command_line import curate
from tests.rmo_curate.audit.test_audit_data import planted
from tests.rmo_curate.audit.test_audit_evidence import by_taste
from tests.rmo_curate.scored import write_jsonl

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
    "--force-prefers-reduced-motion",  # a page that is still scrolling cannot be clicked
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
    of_margins = FilterSettings.model_validate({"rule": "irm", "noise_rate": "0.2"})
    summary = write_audit(run, tmp_path / "audit", AuditSettings.model_validate({"worst": 5}), of_margins)
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


# ---------------------------------------------------------------------------------------------------- the list


def listed(browser) -> list[str]:
    """The ids of the pairs in the list, as it stands."""
    return browser.execute_script("return [...document.querySelectorAll('.suspect')].map(row => row.pair.id)")


def open_all(browser) -> None:
    browser.execute_script("for (const row of document.querySelectorAll('.suspect')) row.open = true;")
    time.sleep(0.5)  # rows fill when their toggle event comes


def choose(browser, control: str, value: str) -> list[str]:
    """Set one of the page's fields as a reader does; the ids then listed."""
    element = browser.find_element("id", control)
    if element.tag_name == "select":
        from selenium.webdriver.support.ui import Select

        Select(element).select_by_value(value)
    else:
        element.clear()
        element.send_keys(value)
        time.sleep(0.4)  # the page waits until typing pauses
    return listed(browser)


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


def test_hostile_data_does_nothing(browser, data_page):
    assert browser.title == "Preference data audit: pairs.jsonl"
    assert browser.get_log("browser") == []
    open_all(browser)
    found = browser.execute_script(
        "const handlers = document.querySelectorAll('[onload], [onerror]');"
        "return [document.scripts.length, document.images.length, handlers.length]"
    )
    assert found == [2, 0, 0] and browser.title == "Preference data audit: pairs.jsonl"
    shown = [box.text for box in browser.find_elements("css selector", ".suspect .text-box")]
    assert any("{{ 7 * 7 }}" in text and "<script>" in text for text in shown)
    assert any(
        "more characters are not shown" in note.text for note in browser.find_elements("class name", "hidden-note")
    )
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert browser.get_log("browser") == []


def test_pairs_are_narrowed_searched_and_sorted(browser, data_page):
    every = [s["id"] for s in data_page["suspects"]]
    assert listed(browser) == [i.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for i in every]
    refuses = {s["id"] for s in data_page["suspects"] if "refusal" in s["findings"]}
    assert set(choose(browser, "finding", "refusal")) == refuses
    status = browser.find_element("id", "status").text
    assert status == f"{len(refuses)} of {len(every)} pairs"
    assert set(choose(browser, "side", "chosen")) == {
        s["id"] for s in data_page["suspects"] if s["findings"].get("refusal") == "chosen"
    }
    choose(browser, "side", "")
    choose(browser, "finding", "")
    assert choose(browser, "search", "BOILS AT A HUNDRED") and "reversed-1" in listed(browser)
    assert choose(browser, "search", "megabyte") == ["megabyte"]
    choose(browser, "search", " ")
    longest = choose(browser, "sort", "longer")
    difference = {s["id"]: s["chosen_length"] - s["rejected_length"] for s in data_page["suspects"]}
    assert [difference[i] for i in longest] == sorted(difference.values(), reverse=True)
    assert choose(browser, "sort", "worst") == listed(browser) != longest


def test_a_pair_says_how_likely_its_label_is_right_and_why(browser, tmp_path):
    data = write_jsonl(tmp_path / "pairs.jsonl", by_taste(200)[0])
    summary = write_data_audit([str(data)], tmp_path / "audit", AuditSettings.model_validate({}))
    numbers = json.loads(summary.json.read_text(encoding="utf-8"))
    browser.get(summary.page.resolve().as_uri())
    reasons = numbers["suspects"][0]["reasons"]
    rows = browser.find_elements("css selector", ".suspect[open] .believed tbody tr")
    assert len(rows) == len(reasons) + 1  # the last one is the prior
    for row, reason in zip(rows, reasons, strict=False):
        said, value = row.find_element("tag name", "th").text, row.find_element("tag name", "td").text
        assert said.lower() == reason["text"].lower()
        assert float(value.replace("\u2212", "-")) == pytest.approx(reason["log_odds"], abs=0.05)
    browser.execute_script("document.getElementById('threshold').dispatchEvent(new Event('input'))")
    assert browser.find_element("id", "cost").text.startswith("With P(label right) at ")


def test_the_slider_tells_what_a_threshold_costs(browser, page):
    browser.get(page)
    said = set()
    places = set()
    for value in (0, 3, 8):
        browser.execute_script(
            "const s = document.getElementById('threshold');"
            "s.value = arguments[0]; s.dispatchEvent(new Event('input'));",
            value,
        )
        said.add(browser.find_element("id", "cost").text)
        places.add(
            browser.execute_script(
                "return document.getElementById('curve-mark').querySelector('path').getBoundingClientRect().x"
            )
        )
    assert len(said) == len(places) == 3 and "Nothing is dropped." in said
    assert any("nats up" in text and "of the 60 scored pairs" in text for text in said)


def test_the_slider_starts_at_what_the_filter_drops(browser, page):
    browser.get(page)
    said = browser.find_element("id", "cost").text
    dropped = browser.find_element("css selector", "[data-count=dropped-noisy]").get_attribute("textContent")
    assert f" {dropped} pair" in said and "This is the filter's own cut." in said


def test_decisions_are_kept_downloaded_and_obeyed(browser, page, tmp_path):
    from selenium.webdriver.common.keys import Keys

    browser.get(page)
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(downloads)})
    assert not browser.find_element("id", "download").is_enabled()
    first, second, third = listed(browser)[:3]
    rows = browser.find_elements("class name", "suspect")
    rows[0].find_element("css selector", "summary").send_keys("d")  # the first pair is open
    rows[0].find_element("css selector", "summary").send_keys("n")
    rows[1].find_element("css selector", "summary").send_keys("f")
    rows[1].find_element("css selector", "summary").send_keys("n")
    time.sleep(0.5)
    rows[2].find_element("css selector", ".actions button[value=drop]").click()
    rows[2].find_element("css selector", ".actions button[value=keep]").send_keys(Keys.ENTER)
    browser.get(page)  # a reload loses none
    assert [
        row.find_element("class name", "decided").text for row in browser.find_elements("class name", "suspect")[:3]
    ] == ["drop", "flip", "keep"]
    browser.find_element("id", "download").click()
    file = downloads / "decisions.json"
    for _ in range(100):
        if file.exists():
            break
        time.sleep(0.1)
    assert json.loads(file.read_text()) == {
        "schema": "rmo-decisions-1",
        "decisions": [
            {"id": first, "action": "drop"},
            {"id": second, "action": "flip"},
            {"id": third, "action": "keep"},
        ],
    }
    shards = tmp_path / "shards"
    outcome = curate("filter", tmp_path / "run", "--out", shards, "--decisions", file, "--high-q", 0.9)
    assert outcome.code == 0 and "reviewed: 1 keep, 1 drop, 1 flip" in outcome.out, outcome
    kept = kept_ids(shards)
    assert first not in kept and {second, third} <= kept
    browser.execute_script("window.confirm = () => true")
    browser.find_element("id", "forget").click()
    browser.get(page)
    assert not browser.find_element("id", "download").is_enabled()


def kept_ids(shards) -> set[str]:
    import pyarrow.parquet as pq

    return {
        i
        for part in shards.rglob("*.parquet")
        if "dropped" not in str(part)
        for i in pq.read_table(part, columns=["id"])["id"].to_pylist()
    }


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


def test_words_that_only_one_answer_has_are_marked(browser, tmp_path):
    said = "I'm sorry, but I can't say that it is {} today."
    rows = [{"id": "a", "prompt": "Is it so?", "chosen": said.format("red"), "rejected": said.format("blue and green")}]
    rows.append({"id": "b", "prompt": "And so?", "chosen": "I cannot help you.", "rejected": "Tie two knots of rope."})
    data = write_jsonl(tmp_path / "p.jsonl", rows)
    summary = write_data_audit([str(data)], tmp_path / "o", AuditSettings.model_validate({}))
    browser.get(summary.page.resolve().as_uri())
    open_all(browser)
    marks = browser.execute_script("return [...document.querySelectorAll('.suspect mark')].map(m => m.textContent)")
    assert marks == ["red", "blue and green"]  # of the first pair; the second one's answers have nothing in common
    assert "answers share few words" in browser.find_element("id", "list").text
