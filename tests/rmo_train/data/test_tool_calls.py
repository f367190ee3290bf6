"""Function calls through chat templates: written as the model writes them, or the pair is refused by name.

The templates are written for these tests, in the notation of the family that names them.
"""

from __future__ import annotations

import json

import pytest

from rmo_train.data.rendering import (
    BOUNDARY_MISMATCH,
    TEMPLATE_DROPS_TOOLS,
    TEMPLATE_REWRITES_RESPONSE,
    CallsLeftOut,
    Renderer,
    TemplateRefused,
)
from rmo_train.data.tool_calls import TOOL_CALL, Turn, readable, turn_of
from tests.rmo_train.data.test_templates import CHATML, FAMILIES, LLAMA3, Family, assistant, tokenizer_of, user

TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
    "{% if m.role == 'tool' %}<tool_response>\n{{ m.content }}\n</tool_response>{% else %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call>'


@pytest.fixture
def calling():
    return tokenizer_of(Family(TOOLS, ("", "<|im_end|>"), "", ""))


def test_calls_and_results_in_a_prompt_survive(calling):
    prompt = [user("Rain?"), assistant(CALL), {"role": "tool", "content": '{"rain": true}'}]
    pair = Renderer(calling).render(prompt, [assistant("Yes")], [assistant("No")], json.dumps([WEATHER]))
    assert calling.decode(pair.prompt_ids) == (
        f"<|im_start|>system\n{json.dumps(WEATHER)}\n<|im_end|>\n<|im_start|>user\nRain?<|im_end|>\n"
        f"<|im_start|>assistant\n{CALL}<|im_end|>\n"
        '<|im_start|>user\n<tool_response>\n{"rain": true}\n</tool_response><|im_end|>\n<|im_start|>assistant\n'
    )
    assert pair.flags == ()


def test_calls_and_results_in_a_response_survive(calling):
    chosen = [assistant(CALL), {"role": "tool", "content": "wet"}, assistant("Yes")]
    pair = Renderer(calling).render([user("Rain?")], chosen, [assistant("No")], json.dumps([WEATHER]))
    assert calling.decode(pair.chosen_ids) == (
        f"{CALL}<|im_end|>\n<|im_start|>user\n<tool_response>\nwet\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\nYes<|im_end|>"
    )
    assert pair.flags == ()


def test_calls_apart_from_the_content_reach_the_template(calling):
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    chosen = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    pair = Renderer(calling).render([user("Rain?")], chosen, [assistant("No")], json.dumps([WEATHER]))
    assert calling.decode(pair.chosen_ids) == (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}}\n</tool_call><|im_end|>'
    )


# -------------------------------------------------------------------------------------------------- as tables hold them

# As Qwen 2.5's and Hermes': the line break before a call belongs to the call, the one before a text to the text.
QWEN = (
    "{% if tools %}<|im_start|>system\n{% for t in tools %}{{ t | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant"
    "{% if m.content %}{{ '\\n' + m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ '\\n' }}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% else %}"
    "<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As GPT-OSS': a turn with a call ends with a token of its own.
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>"
    "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments | tojson }}<|call|>"
    "{% else %}{{ m.content }}{{ '<|return|>' if m.role == 'assistant' else '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|message|>{% endif %}"
)
# As DeepSeek V3's: a turn has a call where its content is null.
NULL = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is none %}{{ m.tool_calls[0].function | tojson }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BERN = {"name": "weather", "arguments": {"unit": "C", "city": "Bern"}}
BASEL = {"name": "weather", "arguments": {"unit": "C", "city": "Basel"}}
ENDS = ("", "<|im_end|>")


def called(*calls: dict, text: str = "") -> dict[str, str]:
    return {"role": TOOL_CALL, "content": Turn(text, calls).content()}


def renderer(template: str, special: tuple[str, ...] = ENDS) -> Renderer:
    return Renderer(tokenizer_of(Family(template, special, "", "")))


def written(call: dict) -> str:
    return f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


def test_a_turn_with_calls_is_json_in_tables_and_the_order_of_arguments_is_kept():
    assert called(BERN) == {
        "role": "tool_call",
        "content": '[{"name": "weather", "arguments": {"unit": "C", "city": "Bern"}}]',
    }
    said = called(BERN, BASEL, text="I'll look.")
    assert json.loads(said["content"]) == {"content": "I'll look.", "tool_calls": [BERN, BASEL]}
    assert turn_of(said["content"]) == Turn("I'll look.", [BERN, BASEL])
    calls = [{"type": "function", "function": call} for call in (BERN, BASEL)]
    assert readable(said) == {"role": "assistant", "content": "I'll look.", "tool_calls": calls}
    assert readable(user("Hi")) == user("Hi")


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[]", "{}", '[{"name": "f"}]', '{"content": "x", "tool_calls": []}']
)
def test_what_is_no_call_is_refused_and_not_rendered_as_something_else(content):
    with pytest.raises(ValueError, match=r"."):
        turn_of(content)
    broken = {"role": TOOL_CALL, "content": content}
    with pytest.raises(TemplateRefused, match="cannot render"):
        renderer(QWEN).render([user("Rain?")], [broken], [assistant("No")])


def test_an_answer_that_is_a_call_starts_where_the_prompt_ends_and_ends_its_turn():
    render = renderer(QWEN)
    pair = render.render([user("Rain?")], [called(BERN)], [called(BASEL)], json.dumps([WEATHER]))
    decode = render.tokenizer.decode
    system = f"<|im_start|>system\n{json.dumps(WEATHER)}\n<|im_end|>\n"
    assert decode(pair.prompt_ids) == f"{system}<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n"
    assert decode(pair.chosen_ids) == f"{written(BERN)}<|im_end|>"
    assert decode(pair.rejected_ids) == f"{written(BASEL)}<|im_end|>"
    assert pair.flags == ()


def test_a_call_in_the_prompt_a_text_beside_a_call_and_two_calls_are_written():
    render = renderer(QWEN)
    prompt = [user("Rain?"), called(BERN), {"role": "tool", "content": "wet"}]
    pair = render.render(prompt, [called(BERN, BASEL, text="Both.")], [assistant("No")])
    decode = render.tokenizer.decode
    assert f"assistant\n{written(BERN)}<|im_end|>\n<|im_start|>user\nwet<|im_end|>" in decode(pair.prompt_ids)
    assert decode(pair.chosen_ids) == f"Both.\n{written(BERN)}\n{written(BASEL)}<|im_end|>"
    assert pair.flags == ()
    assert render.render_prompt(prompt) == pair.prompt_ids


def test_a_call_ends_with_the_token_that_the_template_ends_calls_with():
    render = renderer(HARMONY, ("", "<|return|>", "<|start|>", "<|message|>", "<|call|>", "<|end|>"))
    pair = render.render([user("Rain?")], [called(BERN)], [assistant("No")])
    decode = render.tokenizer.decode
    assert decode(pair.chosen_ids) == f"weather {json.dumps(BERN['arguments'])}<|call|>"
    assert decode(pair.rejected_ids) == "No<|return|>"


def test_a_template_that_wants_null_for_a_missing_text_gets_it():
    render = renderer(NULL)
    pair = render.render([user("Rain?")], [called(BERN)], [assistant("No")])
    assert render.tokenizer.decode(pair.chosen_ids) == f"{json.dumps(BERN)}<|im_end|>"
    with pytest.raises(CallsLeftOut, match="leaves out function calls"):  # beside a text it writes none
        render.render([user("Rain?")], [called(BERN, text="I'll look.")], [assistant("No")])


NAME_ALONE = QWEN.replace("{{ call.function.arguments | tojson }}", "{}")
FIRST_ALONE = QWEN.replace("in m.tool_calls or []", "in (m.tool_calls or [])[:1]")


@pytest.mark.parametrize("template", [CHATML, LLAMA3, NAME_ALONE, FIRST_ALONE])
@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_a_template_that_leaves_out_a_part_of_a_call_is_never_used_on_it(template, side):
    special = FAMILIES["llama3"].special if template == LLAMA3 else ENDS
    sides = {"prompt": [user("Rain?")], "chosen": [assistant("Yes")], "rejected": [assistant("No")]}
    call = called(BERN, BASEL)
    sides[side] = [user("Rain?"), call, {"role": "tool", "content": "wet"}] if side == "prompt" else [call]
    with pytest.raises(CallsLeftOut, match="function calls"):
        renderer(template, special).render(**sides)


def test_smollm2_has_no_place_for_calls(smollm2_tokenizer):
    render = Renderer(smollm2_tokenizer)
    with pytest.raises(CallsLeftOut, match="no place for function calls"):
        render.render([user("Rain?")], [called(BERN)], [assistant("No")])
    pair = render.render([user("Rain?")], [assistant("Yes")], [assistant("No")], json.dumps([WEATHER]))
    assert pair.flags == (TEMPLATE_DROPS_TOOLS,)


def test_a_template_that_wants_ids_says_so_itself():
    wants = (
        "{% for m in messages if m.tool_calls and not m.tool_calls[0].id %}{{ raise_exception('no id') }}{% endfor %}"
    )
    with pytest.raises(TemplateRefused, match="no id") as caught:
        renderer(wants + QWEN).render([user("Rain?")], [called(BERN)], [assistant("No")])
    assert not isinstance(caught.value, CallsLeftOut)


@pytest.mark.parametrize(("template", "flags"), [(QWEN, ()), (CHATML, (TEMPLATE_DROPS_TOOLS,))])
def test_tools_that_the_template_does_not_write_are_flagged(template, flags):
    pair = renderer(template).render([user("Rain?")], [assistant("Yes")], [assistant("No")], json.dumps([WEATHER]))
    assert pair.flags == flags


def test_a_text_beside_a_call_that_the_template_drops_is_flagged():
    drops = QWEN.replace("{% if m.content %}", "{% if m.content and not m.tool_calls %}")
    pair = renderer(drops).render([user("Rain?")], [called(BERN, text="I'll look.")], [assistant("No")])
    assert pair.flags == (TEMPLATE_REWRITES_RESPONSE,)


def test_a_prompt_that_ends_within_a_token_of_a_call_is_flagged_as_any_other():
    start = "{% if add_generation_prompt %}<|im_start|>assistant"
    glued = QWEN.replace(start + "\n", start + ":")
    pair = renderer(glued).render([user("Rain?")], [called(BERN)], [called(BASEL)])
    assert BOUNDARY_MISMATCH in pair.flags
