from __future__ import annotations

import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rmo_train.console.errors import UserError
from rmo_train.data.rendering import (
    BOUNDARY_MISMATCH,
    TEMPLATE_REWRITES_HISTORY,
    Conversation,
    Renderer,
    TemplateRefused,
    common_prefix,
)
from tests.tiny import TEMPLATE, make_tokenizer


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def plain(tokenizer, messages, tools=None) -> list[int]:
    """The library's own rendering of a conversation to ids: the oracle."""
    return tokenizer.apply_chat_template(messages, tools=tools, tokenize=True, return_dict=False)


def merging_tokenizer(template: str):
    """Letters, and one merge across the end of the prompt: ":" + "a" is one token."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocab = {c: i for i, c in enumerate(["<eos>", "<bos>", *":abcdefghijklmnopqrstuvwxyz\n ", ":a"])}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocab, [(":", "a")])), eos_token="<eos>", bos_token="<bos>"
    )
    tokenizer.chat_template = template
    return tokenizer


def test_parts_concatenate_to_the_plain_rendering_for_smollm2(smollm2_tokenizer):
    renderer = Renderer(smollm2_tokenizer)
    prompt = [user("Name 3 primes,  please.")]
    chosen, rejected = [assistant("2, 3 and 5.")], [assistant("4, 6, 8\n\n")]
    pair = renderer.render(prompt, chosen, rejected)
    newline = smollm2_tokenizer("\n").input_ids
    assert pair.prompt_ids + pair.chosen_ids + newline == plain(smollm2_tokenizer, prompt + chosen)
    assert pair.prompt_ids + pair.rejected_ids + newline == plain(smollm2_tokenizer, prompt + rejected)
    assert smollm2_tokenizer.decode(pair.chosen_ids) == "2, 3 and 5.<|im_end|>"
    assert pair.flags == ()


contents = st.text(st.characters(codec="utf-8"), max_size=40)


@given(contents, contents, contents)
@settings(max_examples=60, deadline=None)
def test_parts_concatenate_to_the_plain_rendering_for_any_text(question, better, worse):
    assume(better != worse)
    tokenizer = make_tokenizer()
    pair = Renderer(tokenizer).render([user(question)], [assistant(better)], [assistant(worse)])
    newline = tokenizer("\n").input_ids
    assert pair.prompt_ids + pair.chosen_ids + newline == plain(tokenizer, [user(question), assistant(better)])
    assert pair.prompt_ids + pair.rejected_ids + newline == plain(tokenizer, [user(question), assistant(worse)])
    assert pair.chosen_ids.count(tokenizer.eos_token_id) == 1


def test_response_ends_with_one_end_of_turn_though_its_text_ends_with_one_too(tiny_tokenizer):
    pair = Renderer(tiny_tokenizer).render([user("Hi")], [assistant("Hello<|im_end|>")], [assistant("Go")])
    assert tiny_tokenizer.decode(pair.chosen_ids) == "Hello<|im_end|>"


def test_eos_is_appended_where_the_template_writes_no_end_of_turn():
    tokenizer = merging_tokenizer("{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}")
    pair = Renderer(tokenizer).render([user("hey")], [assistant("yes")], [assistant("no")])
    assert tokenizer.convert_ids_to_tokens(pair.rejected_ids) == [*"assistant:no", "\n", "<eos>"]


def test_no_end_of_turn_anywhere_is_a_user_error():
    tokenizer = merging_tokenizer("{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="eos_token"):
        Renderer(tokenizer)


def test_one_bos_with_a_tokenizer_that_adds_its_own():
    from tokenizers import processors

    tokenizer = make_tokenizer(template="<|endoftext|>" + TEMPLATE)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert tokenizer("hi").input_ids[0] == 0  # the trap is set
    pair = Renderer(tokenizer).render([user("Hi")], [assistant("Hello")], [assistant("Go")])
    assert (pair.prompt_ids + pair.chosen_ids).count(0) == 1
    assert pair.prompt_ids[0] == 0


MERGING = (
    "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}a:{% endif %}"
)


def test_a_token_that_spans_the_boundary_belongs_to_the_response():
    tokenizer = merging_tokenizer(MERGING)
    pair = Renderer(tokenizer).render([user("hey")], [assistant("apt")], [assistant("no")])
    # prompt alone: u : h e y a :   with chosen: u : h e y a :a p t <eos>   with rejected: u : h e y a : n o <eos>
    assert tokenizer.convert_ids_to_tokens(pair.prompt_ids) == list("u:heya")
    assert tokenizer.convert_ids_to_tokens(pair.chosen_ids) == [":a", "p", "t", "<eos>"]
    assert tokenizer.convert_ids_to_tokens(pair.rejected_ids) == [":", "n", "o", "<eos>"]
    assert pair.flags == (BOUNDARY_MISMATCH,)


def test_no_flag_where_no_token_spans_the_boundary():
    pair = Renderer(merging_tokenizer(MERGING)).render([user("hey")], [assistant("yes")], [assistant("no")])
    assert pair.flags == ()


def test_a_template_that_rewrites_history_is_flagged_and_loses_no_token():
    # the last message is marked: once a response follows, the user's mark is gone
    template = (
        "{% for m in messages %}{% if loop.last %}x{% endif %}{{ m.role[0] }} {{ m.content }}<eos>{% endfor %}"
        "{% if add_generation_prompt %}a {% endif %}"
    )
    tokenizer = merging_tokenizer("b" + template)
    prompt, chosen = [user("hey")], [assistant("yes")]
    pair = Renderer(tokenizer).render(prompt, chosen, [assistant("no")])
    assert pair.flags == (TEMPLATE_REWRITES_HISTORY, BOUNDARY_MISMATCH)
    assert pair.prompt_ids + pair.chosen_ids == plain(tokenizer, prompt + chosen)


def test_a_pair_whose_renderings_share_no_token_is_refused():
    template = "{{ 'p' if add_generation_prompt else 'q' }}{% for m in messages %}{{ m.content }}<eos>{% endfor %}"
    with pytest.raises(TemplateRefused, match="no first token in common"):
        Renderer(merging_tokenizer(template)).render([user("hey")], [assistant("yes")], [assistant("no")])


def test_everything_after_the_prompt_is_response_in_a_response_of_several_messages(tiny_tokenizer):
    chosen = [assistant("Which one?"), user("The first."), assistant("Then yes.")]
    pair = Renderer(tiny_tokenizer).render([user("May I?")], chosen, [assistant("No.")])
    assert tiny_tokenizer.decode(pair.chosen_ids) == (
        "Which one?<|im_end|>\n<|im_start|>user\nThe first.<|im_end|>\n<|im_start|>assistant\nThen yes.<|im_end|>"
    )


def test_tools_reach_the_template(tiny_tokenizer):
    tools = [{"type": "function", "function": {"name": "weather", "description": "", "parameters": {}}}]
    renderer = Renderer(tiny_tokenizer)
    pair = renderer.render([user("Rain?")], [assistant("Yes")], [assistant("No")], json.dumps(tools))
    prompt = plain(tiny_tokenizer, [user("Rain?"), assistant("Yes")], tools)
    assert "weather" in tiny_tokenizer.decode(pair.prompt_ids)
    assert pair.prompt_ids + pair.chosen_ids == prompt[: len(pair.prompt_ids + pair.chosen_ids)]


def test_a_refused_pair_leaves_its_neighbours_alone():
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}" + TEMPLATE
    renderer = Renderer(make_tokenizer(template=refusing))
    good = Conversation([user("Hi")], [assistant("Hello")], [assistant("Go")])
    bad = Conversation([{"role": "system", "content": "Be kind"}, user("Hi")], good.chosen, good.rejected)
    first, refused, last = renderer.render_many([good, bad, good])
    assert first == last == renderer.render(good.prompt, good.chosen, good.rejected)
    assert isinstance(refused, TemplateRefused)
    assert "system, user" in str(refused)
    assert "no system turn" in str(refused)
    with pytest.raises(TemplateRefused):
        renderer.render(bad.prompt, bad.chosen, bad.rejected)


def test_many_pairs_are_rendered_as_one_by_one(tiny_tokenizer):
    renderer = Renderer(tiny_tokenizer)
    pairs = [
        Conversation([user(f"Question {i // 3}")], [assistant(f"answer {i}")], [assistant("No" * (i % 4))], None)
        for i in range(20)
    ]
    assert renderer.render_many(pairs) == [renderer.render(p.prompt, p.chosen, p.rejected) for p in pairs]
    assert renderer.render_many([]) == []


def test_prompt_to_generate_from_is_the_pairs_prompt(tiny_tokenizer):
    renderer = Renderer(tiny_tokenizer)
    pair = renderer.render([user("Hi")], [assistant("Hello")], [assistant("Go")])
    assert renderer.render_prompt([user("Hi")]) == pair.prompt_ids


@given(st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=4))
def test_common_prefix_is_shared_and_longest(sequences):
    n = common_prefix(*sequences)
    assert all(s[:n] == sequences[0][:n] for s in sequences)
    assert any(len(s) == n for s in sequences) or len({s[n] for s in sequences}) > 1
