"""The list of pairs in a real browser: they are searched, sorted, narrowed and decided on, and the filter obeys what
was decided."""

from __future__ import annotations

import json
import time

import pytest

from rmo_curate.audit.command import write_data_audit
from rmo_curate.audit.settings import AuditSettings
from tests.command_line import curate
from tests.rmo_curate.audit.test_audit_evidence import by_taste
from tests.rmo_curate.scored import write_jsonl

pytestmark = pytest.mark.real


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
