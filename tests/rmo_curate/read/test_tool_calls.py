"""Calls of functions in data: read in every notation as the same pair, kept whole, and rendered or refused by name."""

from __future__ import annotations

import json

import pytest

from rmo_curate.audit.texts import read_data
from rmo_curate.read.messages import more_of
from rmo_curate.read.pair_rendering import full, render_pairs
from rmo_curate.read.sources import Pair, open_source
from rmo_curate.score.conversion import write_pairs_as_lines
from rmo_train.data.pairs import open_pairs
from rmo_train.data.rendering import Rendered, Renderer, TemplateRefused
from rmo_train.data.tool_calls import TOOL_CALL
from rmo_train.generation.prompts import read_prompts
from rmo_train.store.tables import PAIR_SCHEMA, REJECT_SCHEMA, prompt_group, read_table
from tests.command_line import curate
from tests.manifests import parts_of
from tests.rmo_curate.read.reading import jsonl, pairs, read, reasons
from tests.rmo_curate.scored import score
from tests.tiny import TEMPLATE, make_tokenizer, write_tiny_model

CONTENT = "{{ m.content }}"
CALLS = "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
CALLING = TEMPLATE.replace(CONTENT, CONTENT + CALLS)
WITH_IDS = CALLING.replace("{{ c.function | tojson }}", "{{ c | tojson }}")
WANTS_IDS = (
    "{% for m in messages if m.tool_calls and not m.tool_calls[0].id %}{{ raise_exception('no id') }}{% endfor %}"
)
OF_NULL = TEMPLATE.replace(CONTENT, "{% if m.content is none %}" + CALLS + "{% else %}" + CONTENT + "{% endif %}")
ARGUMENTS = {"unit": "C", "city": "Bern"}
HELD = '[{"name": "weather", "arguments": {"unit": "C", "city": "Bern"}}]'
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
ANSWER = {"role": "assistant", "content": "I do not know."}


def call(**more) -> dict:
    return {"type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}} | more


def record(message: dict, **more) -> dict:
    """A question that one answer meets with `message`, the other with a text."""
    return {"prompt": [{"role": "user", "content": "Rain?"}], "chosen": [message], "rejected": [ANSWER], **more}


def pair_of(tmp_path, message: dict, **more) -> Pair:
    return pairs(read(jsonl(tmp_path / "d.jsonl", record(message, **more)))[1])[0]


def rendered(pair: Pair, template: str) -> Rendered | TemplateRefused:
    return render_pairs(Renderer(make_tokenizer(template=template)), [pair])[0]


NOTATIONS = {
    "an object of arguments": {"role": "assistant", "content": "", "tool_calls": [call()]},
    "arguments as JSON": {"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}, "id": "a1", "type": "function"}]},
    "no content": {"role": "assistant", "tool_calls": [call(id="a2")]},
    "calls as JSON": {"role": "assistant", "content": "", "tool_calls": json.dumps([call()])},
    "a bare call": {"role": "assistant", "content": "", "tool_calls": [{"name": "weather", "arguments": ARGUMENTS}]},
    "function_call": {"role": "assistant", "content": None, "function_call": {
        "name": "weather", "arguments": json.dumps(ARGUMENTS)}},
    "LLaMA-Factory": {"from": "function_call", "value": json.dumps({"name": "weather", "arguments": ARGUMENTS})},
    "ms-swift": {"role": "tool_call", "content": json.dumps({"name": "weather", "arguments": ARGUMENTS})},
    "as pairs hold it": {"role": "tool_call", "content": HELD},
}  # fmt: skip


@pytest.mark.parametrize("notation", NOTATIONS)
def test_every_notation_of_a_call_is_the_same_pair(tmp_path, notation):
    pair = pair_of(tmp_path, NOTATIONS[notation])
    assert pair.chosen == [{"role": TOOL_CALL, "content": HELD}]
    assert pair.id == pair_of(tmp_path, NOTATIONS["an object of arguments"]).id


def test_messages_without_content_are_messages_in_the_cells_of_a_table_too(tmp_path):
    value = record(NOTATIONS["no content"])
    cells = {name: json.dumps(value[name]) for name in ("prompt", "chosen", "rejected")}
    assert pairs(read(jsonl(tmp_path / "d.jsonl", cells))[1])[0].chosen == [{"role": TOOL_CALL, "content": HELD}]


def test_a_text_beside_a_call_and_the_order_of_arguments_are_part_of_the_pair(tmp_path):
    said = pair_of(tmp_path, {"role": "assistant", "content": "I'll look.", "tool_calls": [call()]})
    assert json.loads(said.chosen[0]["content"])["content"] == "I'll look."
    reversed_ = {"name": "weather", "arguments": dict(reversed(ARGUMENTS.items()))}
    other = pair_of(tmp_path, {"role": "assistant", "content": "", "tool_calls": [reversed_]})
    same = pair_of(tmp_path, NOTATIONS["ms-swift"])
    with_tools = pair_of(tmp_path, NOTATIONS["ms-swift"], tools=TOOLS)
    assert len({said.id, other.id, same.id, with_tools.id}) == 4


def test_turns_of_calls_one_after_the_other_are_one_turn(tmp_path):
    turn = NOTATIONS["ms-swift"]
    value = {"messages": [{"role": "user", "content": "Rain?"}, turn, turn, {"role": "tool_response", "content": "4"},
                          ANSWER], "rejected_response": "no"}  # fmt: skip
    (pair,) = pairs(read(jsonl(tmp_path / "d.jsonl", value))[1])
    assert [m["role"] for m in pair.prompt] == ["user", TOOL_CALL, "tool"]
    assert json.loads(pair.prompt[1]["content"]) == 2 * json.loads(HELD)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"role": "assistant", "content": "", "tool_calls": [{}]}, "a call without a function name"),
        (
            {"role": "assistant", "content": "", "tool_calls": ["f"]},
            "a call that is not a function's {name, arguments}",
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": [None]},
            "a call that is not a function's {name, arguments}",
        ),
        ({"role": "assistant", "content": "", "tool_calls": 3}, "a call that is not a function's {name, arguments}"),
        (
            {"role": "assistant", "content": "", "tool_calls": [call(type="custom")]},
            "a call that is not a function's {name, arg",
        ),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}, "arguments of f, which are not JSON"),
        (
            {"role": "assistant", "tool_calls": [{"name": "f", "arguments": [1]}]},
            "arguments of f that are not an object",
        ),
        ({"role": "tool_call", "content": "no JSON"}, "the content, which are not JSON"),
        ({"role": "tool_call", "content": "[]"}, "an empty list of calls"),
        (
            {"role": "user", "content": "x", "tool_calls": [call()]},
            "(user) calls functions, which only the assistant may do",
        ),
        ({"role": "assistant", "tool_calls": [call()], "thinking": "hm"}, "has thinking, which a pair cannot hold"),
    ],
)
def test_a_call_that_cannot_be_read_is_a_reject_that_says_why(tmp_path, message, said):
    _, (reject, _) = read(jsonl(tmp_path / "d.jsonl", record(message), record(ANSWER | {"content": "yes"})))
    assert reject.reason == "bad_messages" and said in reject.detail


def test_calls_in_conversations_end_the_prompt_where_they_differ(tmp_path):
    shared = [{"role": "user", "content": "Rain?"}, NOTATIONS["no content"], {"role": "tool", "content": "wet"}]
    value = {"chosen": [*shared, NOTATIONS["function_call"]], "rejected": [*shared, ANSWER]}
    (pair,) = pairs(read(jsonl(tmp_path / "d.jsonl", value))[1])
    assert [m["role"] for m in pair.prompt] == ["user", TOOL_CALL, "tool"]
    assert (pair.chosen[0]["role"], pair.rejected) == (TOOL_CALL, [ANSWER])


def test_ids_of_calls_are_left_out_unless_the_template_reads_them(tmp_path):
    pair = pair_of(tmp_path, {"role": "assistant", "content": "", "tool_calls": [call(id="a1")]})
    assert more_of(pair.chosen[0]) == {"tool_calls": [{"id": "a1", **call()}]}
    assert isinstance(rendered(pair, CALLING), Rendered)
    assert isinstance(rendered(pair, OF_NULL), Rendered)
    for template in (WITH_IDS, WANTS_IDS + CALLING):
        refused = rendered(pair, template)
        assert isinstance(refused, TemplateRefused) and "(the ids of tool_calls), which a pair cannot" in str(refused)


def test_one_form_for_all_writes_calls_as_openai_does_and_reads_them_back(tmp_path):
    message = {"role": "assistant", "content": "I'll look.", "tool_calls": [call(id="a1")]}
    source, (pair,) = read(jsonl(tmp_path / "d.jsonl", record(message, tools=TOOLS)))
    write_pairs_as_lines(source, tmp_path / "o.jsonl")
    assert json.loads((tmp_path / "o.jsonl").read_text())["chosen"] == [message] == [full(pair.chosen[0])]
    (again,) = pairs(read(str(tmp_path / "o.jsonl"))[1])
    assert (again.id, again.chosen, again.tools) == (pair.id, pair.chosen, pair.tools)


# ---------------------------------------------------------------------------------------------------- the commands


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("data") / "d.jsonl"
    after = {"prompt": [{"role": "user", "content": "Rain?"}, NOTATIONS["no content"],
                        {"role": "tool", "content": "wet", "tool_call_id": "a2"}],
             "chosen": [ANSWER | {"content": "Yes."}], "rejected": [ANSWER]}  # fmt: skip
    plain = {"prompt": "Snow?", "chosen": "Yes.", "rejected": "Never."}
    plain = {
        name: [{"role": "user" if name == "prompt" else "assistant", "content": text}] for name, text in plain.items()
    }
    return jsonl(path, record(NOTATIONS["no content"], tools=TOOLS), after, plain)


def model_with(folder, template: str):
    model = write_tiny_model(folder)
    (model / "chat_template.jinja").write_text(template)
    return model


def test_score_holds_calls_in_its_tables_and_every_reader_finds_them(data, tmp_path):
    run = tmp_path / "run"
    score(data, model_with(tmp_path / "model", CALLING), run)
    rows = read_table(run / "pairs", parts_of(run / "pairs"), PAIR_SCHEMA).to_pylist()
    assert [row["chosen"][0]["role"] for row in rows] == [TOOL_CALL, "assistant", "assistant"]
    tokenizer = make_tokenizer(template=CALLING)
    assert tokenizer.decode(rows[0]["chosen_ids"]) == f"{HELD[1:-1]}<|im_end|>"
    assert HELD[1:-1] in tokenizer.decode(rows[1]["prompt_ids"])
    groups = [prompt_group(pair.prompt, pair.tools) for pair in pairs(read(data)[1])]
    assert open_pairs(run).groups.tolist() == groups and len(set(groups)) == 3
    prompt = read_prompts(run)[1]
    assert Renderer(tokenizer).render_prompt(prompt.messages) == rows[1]["prompt_ids"]


def test_a_template_without_calls_makes_rejects_with_that_reason(data, tmp_path):
    run = tmp_path / "run"
    score(data, model_with(tmp_path / "model", TEMPLATE), run)
    rejects = read_table(run / "rejects", parts_of(run / "rejects"), REJECT_SCHEMA).to_pylist()
    assert [(r["line"], r["reason"]) for r in rejects] == [
        (1, "tool_calls_not_rendered"),
        (2, "tool_calls_not_rendered"),
    ]
    assert json.loads(rejects[0]["raw"])["chosen"][0]["tool_calls"] == [call(id="a2")]
    assert read_table(run / "pairs", parts_of(run / "pairs"), PAIR_SCHEMA).num_rows == 1


def test_the_text_of_a_call_in_the_audit_is_its_json(data):
    texts = read_data([str(data)], None, None).texts
    assert texts.chosen[0] == HELD and texts.rejected[0] == ANSWER["content"]


def test_shards_with_calls_are_data_again(data, tmp_path):
    run, shards = tmp_path / "run", tmp_path / "shards"
    score(data, model_with(tmp_path / "model", CALLING), run)
    assert curate("filter", run, "--out", shards, "--rule", "none").code == 0
    again = open_source([str(shards / "data")])
    assert reasons(list(again.records())) == ["pair"] * 3
    assert [p.chosen for p in pairs(list(again.records()))] == [p.chosen for p in pairs(read(data)[1])]
