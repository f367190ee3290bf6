"""Chat templates of the families in use: where the prompt ends, one BOS, one end of turn, reasoning.

The templates are written for these tests, in the notation of the family that names them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from rmo_train.data.rendering import (
    BOUNDARY_MISMATCH,
    TEMPLATE_REWRITES_HISTORY,
    TEMPLATE_REWRITES_RESPONSE,
    Conversation,
    Renderer,
    TemplateRefused,
)
from tests.tiny import make_tokenizer


@dataclass(frozen=True)
class Family:
    template: str
    special: tuple[str, ...]  # its special tokens: the BOS (or "") and the EOS first
    prompt: str  # "Hi" rendered to be answered
    answer: str  # "Yes" as a response
    tail: str = ""  # what the template writes after it


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
# Thoughts stay with the last answer only; without any, an empty block is written. The last answer is an assistant's
# message after which no user speaks.
QWEN3 = (
    "{% set seen = namespace(last=0) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set seen.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}"
    "{% set answer = m.content.split('</think>')[-1].lstrip('\n') %}"
    "{% set thought = '' %}"
    "{% if '</think>' in m.content %}"
    "{% set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}{% endif %}"
    "{% if loop.index0 > seen.last %}<think>\n{{ thought }}\n</think>\n\n{% endif %}{{ answer }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)

FAMILIES = {
    "chatml": Family(
        CHATML, ("", "<|im_end|>"), "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "Yes<|im_end|>", "\n"
    ),
    "llama3": Family(
        LLAMA3,
        ("<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"),
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "Yes<|eot_id|>",
    ),
    "gemma": Family(
        GEMMA,
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n",
        "Yes<end_of_turn>",
        "\n",
    ),
    "mistral": Family(MISTRAL, ("<s>", "</s>", "[INST]", "[/INST]"), "<s>[INST] Hi [/INST]", " Yes</s>"),
    "phi3": Family(
        PHI3,
        ("<s>", "<|eos|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|user|>\nHi<|end|>\n<|assistant|>\n",
        "Yes<|end|>",
        "\n<|eos|>",
    ),
    "qwen3": Family(
        QWEN3,
        ("", "<|im_end|>"),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<think>\n\n</think>\n\nYes<|im_end|>",
        "\n",
    ),
}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def tokenizer_of(family: Family):
    """A tokenizer with the family's template and special tokens, which puts a BOS before every text by itself."""
    from tokenizers import processors

    tokenizer = make_tokenizer(template=family.template)
    bos, eos, *others = family.special
    tokenizer.add_special_tokens({"additional_special_tokens": others} | ({"bos_token": bos} if bos else {}))
    tokenizer.add_special_tokens({"eos_token": eos})
    if bos:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
        )
        assert tokenizer("Hi").input_ids[0] == tokenizer.bos_token_id  # the trap is set
    return tokenizer


@pytest.fixture(params=FAMILIES)
def family(request) -> Family:
    return FAMILIES[request.param]


def test_prompt_and_response_end_where_the_family_ends_them(family: Family):
    tokenizer = tokenizer_of(family)
    pair = Renderer(tokenizer).render([user("Hi")], [assistant("Yes")], [assistant("No.")])
    assert tokenizer.decode(pair.prompt_ids) == family.prompt
    assert tokenizer.decode(pair.chosen_ids) == family.answer
    assert tokenizer.decode(pair.rejected_ids) == family.answer.replace("Yes", "No.")
    assert pair.flags == ()


def test_parts_are_the_tokens_of_the_whole_conversation(family: Family):
    tokenizer = tokenizer_of(family)
    prompt, chosen = [user("What is best?"), assistant("Dinner."), user("Why?")], [assistant("I do not know.")]
    pair = Renderer(tokenizer).render(prompt, chosen, [assistant("Family")])
    whole = tokenizer.apply_chat_template(prompt + chosen, tokenize=True, return_dict=False)
    assert pair.prompt_ids + pair.chosen_ids + tokenizer.encode(family.tail, add_special_tokens=False) == whole


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if family.special[0]])
def test_one_bos_where_the_template_writes_it_and_none_where_it_does_not(name: str):
    tokenizer = tokenizer_of(FAMILIES[name])  # which would add one of its own
    pair = Renderer(tokenizer).render([user("Hi")], [assistant("Yes")], [assistant("No.")])
    places = [i for i, token in enumerate(pair.prompt_ids + pair.chosen_ids) if token == tokenizer.bos_token_id]
    assert places == ([0] if "bos_token" in FAMILIES[name].template else [])


def test_one_end_of_turn_closes_each_response(family: Family):
    tokenizer = tokenizer_of(family)
    renderer = Renderer(tokenizer)
    for content in ("Yes", "Yes\n", f"Yes{tokenizer.decode([renderer.turn_end.token])}"):
        pair = renderer.render([user("Hi")], [assistant(content)], [assistant("No.")])
        assert pair.chosen_ids.count(renderer.turn_end.token) == 1
        assert pair.chosen_ids[-1] == renderer.turn_end.token


def test_an_answer_that_begins_the_other_is_scored_from_its_first_token(family: Family):
    """The trap: what two answers share at their beginning is no part of the prompt."""
    tokenizer = tokenizer_of(family)
    renderer = Renderer(tokenizer)
    for short, long in (("Yes", "Yes, and more"), ("I", "I do")):
        pair = renderer.render([user("Hi")], [assistant(short)], [assistant(long)])
        assert pair.prompt_ids == renderer.render_prompt([user("Hi")])
        assert tokenizer.decode(pair.chosen_ids) == family.answer.replace("Yes", short)
        assert tokenizer.decode(pair.rejected_ids) == family.answer.replace("Yes", long)


def test_a_family_without_a_system_role_refuses_the_pair_and_says_why():
    renderer = Renderer(tokenizer_of(FAMILIES["gemma"]))
    with pytest.raises(TemplateRefused, match=r"system, user.*System role not supported"):
        renderer.render([{"role": "system", "content": "Be kind"}, user("Hi")], [assistant("Yes")], [assistant("No")])


def test_answers_that_the_template_makes_alike_are_refused():
    renderer = Renderer(tokenizer_of(FAMILIES["llama3"]))  # trims the content
    with pytest.raises(TemplateRefused, match="same tokens"):
        renderer.render([user("Hi")], [assistant("Yes")], [assistant(" Yes\n")])


# ---------------------------------------------------------------------------------------------------- reasoning


@pytest.fixture
def reasoning():
    return tokenizer_of(FAMILIES["qwen3"])


def test_enable_thinking_moves_the_empty_thought_into_the_prompt(reasoning):
    chosen, rejected = [assistant("Yes")], [assistant("No")]
    pair = Renderer(reasoning).render([user("Hi")], chosen, rejected, template_kwargs='{"enable_thinking":false}')
    assert reasoning.decode(pair.prompt_ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert reasoning.decode(pair.chosen_ids) == "Yes<|im_end|>"
    assert pair.flags == ()


def test_template_kwargs_reach_the_prompt_to_generate_from(reasoning):
    ids = Renderer(reasoning).render_prompt([user("Hi")], template_kwargs='{"enable_thinking":false}')
    assert reasoning.decode(ids).endswith("</think>\n\n")


def test_pairs_of_one_prompt_keep_their_own_template_kwargs(reasoning):
    pairs = [
        Conversation([user("Hi")], [assistant("Yes")], [assistant("No")], None, kwargs)
        for kwargs in (None, '{"enable_thinking":false}', None)
    ]
    first, second, third = Renderer(reasoning).render_many(pairs)
    assert first == third != second


def test_a_thought_in_a_response_is_scored(reasoning):
    thinking = "<think>\nRain is wet.\n</think>\n\nYes"
    pair = Renderer(reasoning).render([user("Hi")], [assistant(thinking)], [assistant("No")])
    assert reasoning.decode(pair.chosen_ids) == f"{thinking}<|im_end|>"
    assert pair.flags == ()


def test_a_thought_that_the_template_takes_out_of_the_history_stays_out_of_the_prompt(reasoning):
    prompt = [user("Hi"), assistant("<think>\nA greeting.\n</think>\n\nHello"), user("Rain?")]
    pair = Renderer(reasoning).render(prompt, [assistant("Yes")], [assistant("No")])
    assert "A greeting" not in reasoning.decode(pair.prompt_ids) and "Hello" in reasoning.decode(pair.prompt_ids)
    assert pair.flags == ()


def test_a_thought_that_is_lost_in_a_response_of_several_turns_is_flagged(reasoning):
    turns = [assistant("<think>\nWhich?\n</think>\n\nWhich one?"), user("The first."), assistant("Then yes.")]
    pair = Renderer(reasoning).render([user("Hi")], turns, [assistant("No")])
    assert TEMPLATE_REWRITES_RESPONSE in pair.flags
    assert "Which one?" in reasoning.decode(pair.chosen_ids) and "Which?" not in reasoning.decode(pair.chosen_ids)


def test_a_template_that_opens_a_thought_to_be_generated_is_flagged_and_loses_no_token():
    """It opens a thought in the prompt to generate from, and drops thoughts from what was said."""
    opening = QWEN3.replace("{% if loop.index0 > seen.last %}", "{% if false %}").replace(
        "<|im_start|>assistant\n{% if enable", "<|im_start|>assistant\n<think>\n{% if enable"
    )
    tokenizer = tokenizer_of(Family(opening, ("", "<|im_end|>"), "", ""))
    thinking = [assistant("<think>\nRain is wet.\n</think>\n\nYes")]
    pair = Renderer(tokenizer).render([user("Hi")], thinking, [assistant("No")])
    assert pair.flags == (TEMPLATE_REWRITES_HISTORY, TEMPLATE_REWRITES_RESPONSE, BOUNDARY_MISMATCH)
    assert tokenizer.decode(pair.prompt_ids + pair.chosen_ids) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>"
    )
    with pytest.raises(TemplateRefused, match="same tokens"):  # they differ in what was dropped
        Renderer(tokenizer).render([user("Hi")], thinking, [assistant("Yes")])


@pytest.mark.parametrize(
    "name", ["tools", "tokenize", "add_generation_prompt", "chat_template", "continue_final_message", "messages"]
)
def test_a_setting_that_belongs_to_the_rendering_is_refused(reasoning, name):
    good = Conversation([user("Hi")], [assistant("Yes")], [assistant("No")])
    bad = Conversation(*[good.prompt, good.chosen, good.rejected], None, json.dumps({name: True}))
    first, refused = Renderer(reasoning).render_many([good, bad])
    assert not isinstance(first, TemplateRefused)
    assert isinstance(refused, TemplateRefused)
    assert f"chat_template_kwargs sets {name}" in str(refused)


def test_template_kwargs_that_are_no_object_are_refused(reasoning):
    with pytest.raises(TemplateRefused, match="expected an object"):
        Renderer(reasoning).render([user("Hi")], [assistant("Yes")], [assistant("No")], template_kwargs="[1]")


def test_an_error_of_the_templates_own_code_is_the_pairs(reasoning):
    reasoning.chat_template = "{% if width %}{{ 1 // (width - 1) }}{% endif %}" + CHATML
    with pytest.raises(TemplateRefused, match="zero"):
        Renderer(reasoning).render([user("Hi")], [assistant("Yes")], [assistant("No")], template_kwargs='{"width":1}')
