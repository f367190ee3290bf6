"""What messages hold besides role and content: left out if the chat template does not read it, else refused."""

from __future__ import annotations

import json
import pickle

import pytest

from rmo_curate.read.messages import FullMessage, more_of
from rmo_curate.read.pair_rendering import render_pairs
from rmo_curate.read.sources import Pair, open_source
from rmo_curate.score.inspection import REFUSED, inspect_source
from rmo_train.data.rendering import Rendered, Renderer, TemplateRefused
from rmo_train.store.tables import REJECT_SCHEMA, read_table
from tests.manifests import parts_of
from tests.rmo_curate.read.reading import jsonl, pairs, read
from tests.rmo_curate.scored import score
from tests.tiny import TEMPLATE, make_tokenizer, write_tiny_model

NAMED = TEMPLATE.replace("{{ m.role }}", "{{ m.role }}{% if m.name %} {{ m.name }}{% endif %}")
# As Mistral's: a tool's answer without the id of its call is an error.
BY_CALL = "{% for m in messages if m.role == 'tool' and not m.tool_call_id %}{{ raise_exception('no id') }}{% endfor %}"


def turns(*more: dict) -> list[dict]:
    """A question, a call written in the text, and the tool's answer; `more` is added to the tool's turn."""
    call = '<tool_call>{"name": "weather"}</tool_call>'
    tool = {"role": "tool", "content": "wet"}
    for keys in more:
        tool = tool | keys
    return [{"role": "user", "content": "Rain?"}, {"role": "assistant", "content": call}, tool]


def record(**more) -> dict:
    answers = {side: [{"role": "assistant", "content": text}] for side, text in (("chosen", "yes"), ("rejected", "no"))}
    return {"prompt": turns(more), **answers}


def rendered(pair: Pair, template: str) -> Rendered | TemplateRefused:
    return render_pairs(Renderer(make_tokenizer(template=template)), [pair])[0]


@pytest.fixture
def named(tmp_path) -> Pair:
    return pairs(read(jsonl(tmp_path / "d.jsonl", record(name="weather", tool_call_id="a1")))[1])[0]


def test_a_key_that_the_template_does_not_read_is_left_out(named, tmp_path):
    plain = pairs(read(jsonl(tmp_path / "plain.jsonl", record()))[1])[0]
    assert rendered(named, TEMPLATE) == rendered(plain, TEMPLATE)
    assert isinstance(rendered(named, TEMPLATE), Rendered) and named.id == plain.id


@pytest.mark.parametrize("template", [NAMED, BY_CALL + TEMPLATE])
def test_a_key_that_the_template_reads_makes_the_pair_a_reject(named, template):
    refused = rendered(named, template)
    assert isinstance(refused, TemplateRefused) and "(name, tool_call_id), which a pair cannot hold" in str(refused)


def test_a_pair_that_the_template_refuses_with_all_its_keys_keeps_the_template_s_reason(named):
    refused = rendered(
        named, "{% if messages|length > 2 %}{{ raise_exception('too many turns') }}{% endif %}" + TEMPLATE
    )
    assert isinstance(refused, TemplateRefused) and "too many turns" in str(refused)


@pytest.mark.parametrize("nothing", [None, "", [], {}])
def test_a_key_without_a_value_says_nothing(tmp_path, nothing):
    pair = pairs(read(jsonl(tmp_path / "d.jsonl", record(name=nothing)))[1])[0]
    assert isinstance(rendered(pair, NAMED.replace("m.name %}", "m.name is defined %}")), Rendered)


def test_turns_of_a_shared_conversation_keep_what_else_they_say(tmp_path):
    value = {
        "conversations": [{"from": "human", "value": "Rain?", "name": "Ann"}],
        "chosen": {"from": "gpt", "value": "yes"},
        "rejected": {"from": "gpt", "value": "no"},
    }
    pair = pairs(read(jsonl(tmp_path / "d.jsonl", value))[1])[0]
    assert more_of(pair.prompt[0]) == {"name": "Ann"} and not more_of(pair.chosen[0])
    assert isinstance(rendered(pair, TEMPLATE), Rendered) and isinstance(rendered(pair, NAMED), TemplateRefused)


def test_conversations_that_differ_in_other_keys_alone_share_their_prompt(tmp_path):
    chosen = [{"role": "user", "content": "Q", "turn": 1}, {"role": "assistant", "content": "yes", "turn": 2}]
    rejected = [{"role": "user", "content": "Q", "turn": 7}, {"role": "assistant", "content": "no", "turn": 8}]
    pair = pairs(read(jsonl(tmp_path / "d.jsonl", {"chosen": chosen, "rejected": rejected}))[1])[0]
    assert pair.prompt == [{"role": "user", "content": "Q"}]


def test_a_message_reaches_a_rendering_process_whole():
    message = FullMessage({"role": "user", "content": "Q"}, {"name": "Ann"})
    assert more_of(pickle.loads(pickle.dumps(message))) == {"name": "Ann"}


def test_score_keeps_the_whole_record_beside_its_reason_and_inspect_counts_it(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    (model / "chat_template.jinja").write_text(NAMED)
    plain = record() | {"chosen": [{"role": "assistant", "content": "sure"}]}
    data = jsonl(tmp_path / "d.jsonl", record(name="weather"), plain, named_answer("\ud800"))
    score(tmp_path / "d.jsonl", model, tmp_path / "run")
    folder = tmp_path / "run" / "rejects"
    first, second = read_table(folder, parts_of(folder), REJECT_SCHEMA).to_pylist()
    assert first["line"] == 1 and first["reason"] == "bad_messages" and "content (name), which" in first["detail"]
    assert json.loads(first["raw"])["prompt"] == turns({"name": "weather"})
    assert second["line"] == 3 and "ud800" in second["raw"]
    found = inspect_source(open_source([data]), Renderer(make_tokenizer(template=NAMED)), 1024)
    assert found.problems[REFUSED].count == 2


def named_answer(name: str) -> dict:
    """A record whose chosen message has a name."""
    return record() | {"chosen": [{"role": "assistant", "content": "certainly", "name": name}]}
