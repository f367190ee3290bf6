"""A judge over HTTP, on a real server of this machine: both orders, its failures said, nothing asked for twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rmo_train.console.errors import UserError
from rmo_train.evaluation.winrate import endpoint
from rmo_train.evaluation.winrate.endpoint import base_of
from rmo_train.evaluation.winrate.judge import Judged, request_text, verdict
from rmo_train.evaluation.winrate.judgements import Judgements
from rmo_train.evaluation.winrate.results import JudgedRates, as_json, from_json
from tests.command_line import Outcome, train
from tests.rmo_train.evaluation.winrate.judge_server import MODEL, JudgeServer, judging, the_longer


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(endpoint, "FIRST_WAIT", 0.01)
    monkeypatch.delenv(endpoint.KEY, raising=False)


def files(folder: Path, a: list[str], b: list[str]) -> tuple[Path, Path]:
    for name, answers in (("a", a), ("b", b)):
        records = [
            {"instruction": f"Prompt {i}", "output": t, "generator": f"model-{name}"} for i, t in enumerate(answers)
        ]
        (folder / f"{name}.json").write_text(json.dumps(records))
    return folder / "a.json", folder / "b.json"


def winrate(pair: tuple[Path, Path], url: str, *flags: object, model: str = MODEL) -> Outcome:
    out = pair[0].parent / "out.json"
    return train("winrate", *pair, "--judge", url, "--judge-model", model, "--out", out, *flags)


def stored(folder: Path) -> JudgedRates:
    rates = from_json(json.loads((folder / "out.json").read_text()))
    assert isinstance(rates, JudgedRates)
    assert json.loads(json.dumps(as_json(rates))) == json.loads((folder / "out.json").read_text())
    return rates


# ---------------------------------------------------------------------------------------------------- one verdict


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("B is clear.\nA", "A"),
        ("Reasons.\n\n**B**\n\n", "B"),
        ("Tie", "tie"),
        ("Reasons.\nMy final verdict is: [[A]].", "A"),
        ("Verdict: tie", "tie"),
        ("<think>A or B?</think>\nWell.\n`B`\n```", "B"),
        ("A is better because it is clear.", None),
        ("A\nB or A", None),
        ("a", None),
        ("", None),
        ("...", None),
        ("neither", None),
    ],
)
def test_the_verdict_is_what_stands_alone_on_the_last_line(reply: str, said: str | None):
    assert verdict(reply) == said


def test_what_the_judge_reads_has_both_answers_in_order_and_all_turns():
    text = request_text(("Q {1}", "and then?"), ("first {a}", "more"), ("second",))
    places = [
        text.index(part) for part in ("[turn 1]\nQ {1}", "[turn 2]\nand then?", "first {a}", "more", "\nsecond\n")
    ]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("verdicts", "win"),
    [
        (("A", "A"), 1.0), (("A", "tie"), 0.75), (("A", "B"), 0.5), (("tie", "tie"), 0.5), (("B", "tie"), 0.25),
        (("B", "B"), 0.0), (("same", "same"), 0.5), (("A", "unparsable"), None), (("failed", "A"), None),
    ],
)  # fmt: skip
def test_a_pairs_share_by_hand(verdicts: tuple[str, str], win: float | None):
    assert Judged("x", 0, verdicts, 1, 1).win == win


# ---------------------------------------------------------------------------------------------------- a whole run


def test_both_orders_are_asked_and_counted_by_hand(tmp_path: Path):
    """By length: A wins prompt 0, B prompt 1, a tie in 2; prompt 3 has the same answer twice and is not asked for."""
    pair = files(tmp_path, ["long long", "x", "one", "same"], ["short", "yy", "two", "same"])
    with judging(the_longer) as server:
        done = winrate(pair, server.url)
    assert done.code == 0, done
    assert sorted(server.asked) == sorted(
        [("long long", "short"), ("short", "long long"), ("x", "yy"), ("yy", "x"), ("one", "two"), ("two", "one")]
    )
    rates = stored(tmp_path)
    assert [one["verdicts"] for one in rates.by_prompt] == [["A", "A"], ["B", "B"], ["tie", "tie"], ["same", "same"]]
    assert rates.win_rate and rates.win_rate.value == 0.5
    assert (rates.wins, rates.losses, rates.split, rates.judged, rates.pairs) == (1, 1, 2, 4, 4)
    assert (rates.length_a, rates.length_b) == ((9 + 1 + 3 + 4) / 4, (5 + 2 + 3 + 4) / 4)
    assert rates.first_shown == 0.5 and rates.judge_url == server.url
    assert "win rate of A               0.500" in done.out and len(done.out.splitlines()) <= 24


def test_a_taste_for_the_first_place_cancels_and_is_shown(tmp_path: Path):
    pair = files(tmp_path, ["a", "aa", "aaa"], ["b", "bb", "bbb"])
    with judging(lambda first, second: "A") as server:
        assert winrate(pair, server.url).code == 0
    rates = stored(tmp_path)
    assert rates.win_rate and (rates.win_rate.value, rates.first_shown, rates.split) == (0.5, 1.0, 3)


def test_swapped_files_have_one_less_the_rates_and_cost_nothing(tmp_path: Path):
    a, b = files(tmp_path, ["aaaa", "a" * 9, "a", "aa" * 7], ["b", "bb", "bbb", "bbbb"])
    with judging(the_longer) as server:
        winrate((a, b), server.url)
        there = stored(tmp_path)
        asked = len(server.asked)
        winrate((b, a), server.url)
        back = stored(tmp_path)
        assert len(server.asked) == asked == 8
    assert there.win_rate and back.win_rate and there.length_controlled and back.length_controlled
    assert there.win_rate.value == 0.75 and back.win_rate.value == 0.25
    assert back.length_controlled.value == pytest.approx(1 - there.length_controlled.value, abs=1e-6)
    assert there.length_controlled.value < there.win_rate.value


def test_samples_stand_against_each_other_in_order_and_need_be_as_many(tmp_path: Path):
    a, b = files(tmp_path, ["aaa", "a"], ["bb", "bb"])
    for path in (a, b):  # two answers to one prompt
        path.write_text(path.read_text().replace("Prompt 1", "Prompt 0"))
    with judging(the_longer) as server:
        assert winrate((a, b), server.url).code == 0
        rates = stored(tmp_path)
        assert [(one["sample"], one["verdicts"]) for one in rates.by_prompt] == [(0, ["A", "A"]), (1, ["B", "B"])]
        assert (rates.prompts, rates.pairs) == (1, 2)
        b.write_text(json.dumps(json.loads(b.read_text())[:1]))
        assert winrate((a, b), server.url).refused("2 answers in one file, 1 in the other")


def test_mt_benchs_answers_need_their_questions(tmp_path: Path):
    for name, texts in (("a", ["one", "two"]), ("b", ["three", "four"])):
        record = {"question_id": 81, "model_id": name, "choices": [{"index": 0, "turns": texts}]}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    pair = tmp_path / "a.json", tmp_path / "b.json"
    with judging(lambda first, second: "tie") as server:
        assert winrate(pair, server.url).refused("give the questions with --prompts FILE")
        (tmp_path / "q.jsonl").write_text(json.dumps({"question_id": 81, "turns": ["First?", "Second?"]}))
        assert winrate(pair, server.url, "--prompts", tmp_path / "q.jsonl").code == 0
    text = server.bodies[0]["messages"][0]["content"]
    assert "[turn 1]\nFirst?\n\n[turn 2]\nSecond?" in text
    assert server.asked[0] in [("[turn 1]\none\n\n[turn 2]\ntwo", "[turn 1]\nthree\n\n[turn 2]\nfour")] * 2


# ---------------------------------------------------------------------------------------------------- what goes wrong


def test_unparsable_verdicts_are_counted_and_no_ties(tmp_path: Path):
    pair = files(tmp_path, ["aaa", "a"], ["bb", "bb"])
    with judging(lambda first, second: "Both are nice." if first == "a" else the_longer(first, second)) as server:
        done = winrate(pair, server.url)
        assert done.code == 0
        rates = stored(tmp_path)
        assert (rates.unparsable, rates.judged, rates.win_rate and rates.win_rate.value) == (1, 1, 1.0)
        assert rates.by_prompt[1]["verdicts"] == ["unparsable", "B"] and rates.by_prompt[1]["win"] is None
        assert "left out: 1 verdict without A, B or tie on the last line, 0 never received" in done.out
        asked = len(server.asked)
        assert winrate(pair, server.url).code == 0 and len(server.asked) == asked  # kept, too


def test_a_judge_without_any_verdict_is_an_error_that_shows_what_it_says(tmp_path: Path):
    pair = files(tmp_path, ["aaa"], ["bb"])
    with judging(lambda first, second: "I like both.") as server:
        done = winrate(pair, server.url)
    assert done.code == 3 and "no pair of answers has both verdicts" in done.err and "I like both." in done.err
    assert stored(tmp_path).win_rate is None


def test_what_passes_is_asked_again_and_what_does_not_is_exit_3_and_goes_on(tmp_path: Path):
    pair = files(tmp_path, ["aaa", "stubborn", "a"], ["bb", "bb", "bb"])
    times: dict[tuple[str, str], int] = {}
    broken = True

    def reply(first: str, second: str):
        times[first, second] = times.get((first, second), 0) + 1
        if broken and first == "stubborn":
            return 500, {"error": {"message": "out of order"}}
        if times[first, second] == 1:
            return (429, 503)[len(first) % 2], {"error": {"message": "busy"}}
        return the_longer(first, second)

    with judging(reply) as server:
        done = winrate(pair, server.url)
        assert done.code == 3
        assert "did not reply to 1 of 6 requests (first: status 500: out of order (6 tries)" in done.err
        assert "run the same command again" in done.err and "win rate of A" in done.out
        assert times["stubborn", "bb"] == endpoint.TRIES
        rates = stored(tmp_path)
        assert (rates.failed, rates.judged) == (1, 2)
        broken, asked = False, len(server.asked)
        assert winrate(pair, server.url).code == 0
        assert server.asked[asked:] == [("stubborn", "bb")]  # what is missing, and no more
    assert (stored(tmp_path).failed, stored(tmp_path).judged) == (0, 3)


def test_a_server_that_stays_away_is_given_up(tmp_path: Path):
    pair = files(tmp_path, ["a" * (i + 2) for i in range(50)], ["b"] * 50)
    with judging(lambda first, second: (503, {"error": {"message": "away"}})) as server:
        done = winrate(pair, server.url, "--concurrency", 2)
    assert done.code == 3 and "did not reply to 100 of 100 requests (first: status 503: away" in done.err
    assert len(server.asked) <= 12 * endpoint.TRIES


def test_a_wrong_url_model_or_key_is_said_at_once(tmp_path: Path):
    pair = files(tmp_path, ["aaa", "a"], ["bb", "bb"])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{s.getsockname()[1]}/v1"
    assert winrate(pair, nobody).refused(f"--judge {nobody}: no answer (", "is the server running?")
    with judging(lambda first, second: (401, {"error": {"message": "no key"}})) as server:
        assert winrate(pair, server.url, model="gpt-9").refused(
            "--judge-model gpt-9: not found at", f"it serves {MODEL}"
        )
        assert winrate(pair, server.url.removesuffix("/v1")).refused("not found", "http://localhost:8000/v1")
        assert not server.asked
        assert winrate(pair, server.url).refused("the key was refused (status 401: no key); set OPENAI_API_KEY")
        assert len(server.asked) == 1
    with judging(lambda first, second: (200, {"hello": "world"})) as server:
        assert winrate(pair, server.url).refused("its reply is not a chat completion", "OpenAI-compatible")
    for url, said in (("ftp://x/v1", "not a URL"), ("http://key@x/v1", "the URL contains a key or a query")):
        with pytest.raises(UserError, match=said):
            base_of(url)
    assert base_of("https://x.org/v1/chat/completions/") == base_of("https://x.org/v1") == "https://x.org/v1"


def test_settings_that_a_model_refuses_are_replaced(tmp_path: Path):
    pair = files(tmp_path, ["aaa", "a"], ["bb", "bb"])
    server: JudgeServer

    def reply(first: str, second: str):
        for name in ("max_tokens", "temperature"):
            if name in server.bodies[-1]:
                return 400, {"error": {"message": f"Unsupported parameter: '{name}'", "param": name}}
        return the_longer(first, second)

    with judging(reply) as server:
        assert winrate(pair, server.url, "--judge-tokens", 77, "--concurrency", 1).code == 0
    assert "temperature" not in server.bodies[-1] and server.bodies[-1]["max_completion_tokens"] == 77
    assert len(server.asked) == 4 + 2  # refused once each, not once a verdict


def test_the_key_is_sent_and_written_nowhere(tmp_path: Path, monkeypatch):
    monkeypatch.setenv(endpoint.KEY, "sk-secret")
    pair = files(tmp_path, ["aaa"], ["bb"])
    with judging(lambda first, second: (500, {"error": {"message": "no"}}) if first == "bb" else "A") as server:
        done = winrate(pair, server.url)
    assert set(server.keys) == {"Bearer sk-secret"}
    assert done.code == 3 and "sk-secret" not in done.out + done.err
    assert not any(b"sk-secret" in path.read_bytes() for path in tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- stopping


def test_more_judge_tokens_ask_again(tmp_path: Path):
    pair = files(tmp_path, ["aaa"], ["bb"])
    with judging(the_longer) as server:
        winrate(pair, server.url)
        winrate(pair, server.url, "--judge-tokens", 2000)
    assert len(server.asked) == 4


def test_half_a_line_is_dropped_and_the_next_is_not_joined_to_it(tmp_path: Path):
    path = tmp_path / "kept.jsonl"
    kept = Judgements(path)
    kept.add("1", MODEL, "A")
    kept.add("2", MODEL, "B")
    path.write_bytes(path.read_bytes()[:-9])
    again = Judgements(path)
    assert again.replies == {"1": "A"}
    again.add("3", MODEL, "tie")
    assert Judgements(path).replies == {"1": "A", "3": "tie"}


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_half_way_asks_only_for_what_is_missing(sent: int, tmp_path: Path):
    pair = files(tmp_path, ["a" * (i + 1) for i in range(20)], ["b" * (21 - i) for i in range(20)])
    out = tmp_path / "out.json"

    def slow(first: str, second: str) -> str:
        time.sleep(0.1)
        return the_longer(first, second)

    with judging(slow) as server:
        command = [sys.executable, "-m", "rmo_train", "winrate", *pair, "--judge", server.url, "--judge-model", MODEL,
                   "--out", out, "--concurrency", "2"]  # fmt: skip
        root = Path(__file__).parents[4]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
        while len(server.asked) < 12 and run.poll() is None:
            time.sleep(0.02)
        run.send_signal(sent)
        _, err = run.communicate(timeout=60)
        assert run.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 130), err
        if sent == signal.SIGINT:
            assert "verdicts stored in" in err and "Traceback" not in err
        assert not out.exists()
        kept = len(Judgements(tmp_path / "out.json.judgements.jsonl").replies)
        assert 9 <= kept < 40
        asked = len(server.asked)
        assert winrate(pair, server.url).code == 0
        assert len(server.asked) - asked == 40 - kept
        resumed = out.read_text()
        (tmp_path / "out.json.judgements.jsonl").unlink()
        assert winrate(pair, server.url).code == 0
    assert out.read_text() == resumed
