"""Converts a chat to token ids, and finds the end of the prompt, the ends of responses, and problems to flag.

The model's chat template renders a conversation as a whole, and the text is tokenised without the tokenizer's own
special tokens (the template writes a BOS if the model needs one). The prompt ends where the tokens of "prompt",
"prompt + chosen" and "prompt + rejected" first differ, so both responses are scored after the same tokens.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rmo_train.console.errors import UserError
from rmo_train.data.tool_calls import TOOL_CALL, Turn, readable, turn_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]  # role, content, and other fields that the template reads (tool_calls, ...)

# The rendered text or tokens of the prompt change when a response follows; the difference counts as response.
BOUNDARY_MISMATCH = "boundary_mismatch"
TEMPLATE_REWRITES_HISTORY = "template_rewrites_history"
# The rendering does not contain a response verbatim: a reasoning template moved or dropped its thoughts.
TEMPLATE_REWRITES_RESPONSE = "template_rewrites_response"
# The template does not write the pair's function schemas, so the model does not see them.
TEMPLATE_DROPS_TOOLS = "template_drops_tools"
RENDERING_FLAGS = (BOUNDARY_MISMATCH, TEMPLATE_REWRITES_HISTORY, TEMPLATE_REWRITES_RESPONSE, TEMPLATE_DROPS_TOOLS)

# Besides jinja's own errors.
RAISED_IN_TEMPLATES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
PROBE_QUESTION, PROBE_ANSWER = "probequestion", "probeanswer"


class TemplateRefused(UserError):
    """The chat template cannot render this conversation (roles out of order, an unknown role)."""


class CallsLeftOut(TemplateRefused):
    """The chat template writes a turn without the functions that it calls, or without their arguments."""


@dataclass(frozen=True)
class Conversation:
    """One pair before rendering; a response may have several messages (assistant, user, assistant)."""

    prompt: Sequence[Message]
    chosen: Sequence[Message]
    rejected: Sequence[Message]
    tools: str | None = None  # JSON, a list of function schemas
    template_kwargs: str | None = None  # JSON, an object of settings that the template reads (enable_thinking, ...)


@dataclass(frozen=True)
class Rendered:
    """Token ids of one pair; `prompt_ids` is never empty, each response ends with exactly one end-of-turn token."""

    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    flags: tuple[str, ...]


@dataclass(frozen=True)
class Texts:
    """The rendered texts of one pair."""

    prompt: str
    chosen: str  # prompt and chosen
    rejected: str  # prompt and rejected
    flags: tuple[str, ...]
    ends: tuple[TurnEnd, TurnEnd]  # of the chosen and the rejected response

    @property
    def all(self) -> tuple[str, str, str]:
        return self.prompt, self.chosen, self.rejected


@dataclass(frozen=True)
class TurnEnd:
    """How the template closes an assistant's turn."""

    token: int  # the end-of-turn token
    tail: tuple[int, ...]  # tokens after it, which are cut from a response (SmolLM2: a newline)
    written: bool  # False: the template ends a turn with plain text only, so `token` (the eos) is appended


@dataclass(frozen=True)
class CallTurn:
    """How the template writes an assistant's turn that calls functions."""

    no_text: str | None  # what it wants for the content of a turn without text
    end: TurnEnd


def common_prefix(*sequences: Sequence[int]) -> int:
    """Length of the longest prefix that all `sequences` share."""
    shortest = min(len(s) for s in sequences)
    first = sequences[0][:shortest]
    if all(s[:shortest] == first for s in sequences[1:]):  # fast path for the common case
        return shortest
    return next(i for i in range(shortest) if any(s[i] != first[i] for s in sequences[1:]))


class Renderer:
    """Renders pairs with one tokenizer and its chat template."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        arguments = inspect.signature(tokenizer.apply_chat_template).parameters
        self.own_arguments = {"messages", *arguments} - {"kwargs", "documents"}  # not a pair's to set
        self.turn_end = self._find_turn_end()

    def render(
        self,
        prompt: Sequence[Message],
        chosen: Sequence[Message],
        rejected: Sequence[Message],
        tools: str | None = None,
        template_kwargs: str | None = None,
    ) -> Rendered:
        """Render one pair; raises TemplateRefused if the template cannot render it."""
        rendered = self.render_many([Conversation(prompt, chosen, rejected, tools, template_kwargs)])[0]
        if isinstance(rendered, TemplateRefused):
            raise rendered
        return rendered

    def render_many(self, pairs: Sequence[Conversation]) -> list[Rendered | TemplateRefused]:
        """Render `pairs` with one tokenizer call; a pair that the template refuses yields the error instead of ids.

        Equal texts (a prompt of several pairs, a response ranked several times) are tokenised once.
        """
        texts: list[Texts | TemplateRefused] = []
        prompts: dict[str, str] = {}  # by content: preference sets repeat a prompt in several pairs
        for pair in pairs:
            try:
                texts.append(self._texts(pair, prompts))
            except TemplateRefused as e:
                texts.append(e)
        distinct = list(dict.fromkeys(t for pair in texts if isinstance(pair, Texts) for t in pair.all))
        ids = dict(zip(distinct, self._tokenize(distinct), strict=True))
        return [self._split(t, *(ids[x] for x in t.all)) if isinstance(t, Texts) else t for t in texts]

    def same_text(self, one: Conversation, other: Conversation) -> bool:
        """Whether the template renders two conversations to the same texts, or refuses both."""
        made: list[Texts | None] = []
        for pair in (one, other):
            try:
                made.append(self._texts(pair, {}))
            except TemplateRefused:
                made.append(None)
        return made[0] == made[1]

    def render_prompt(
        self, prompt: Sequence[Message], tools: str | None = None, template_kwargs: str | None = None
    ) -> list[int]:
        """Token ids of a prompt to generate from."""
        return self._tokenize([self._text(prompt, tools, template_kwargs, generation=True)])[0]

    def _texts(self, pair: Conversation, prompts: dict[str, str]) -> Texts:
        prompt = self._prompt_text(pair.prompt, pair.tools, pair.template_kwargs, prompts)
        sides = (pair.chosen, pair.rejected)
        whole = [self._text([*pair.prompt, *side], pair.tools, pair.template_kwargs) for side in sides]
        self._check_calls(pair, *whole)
        flags = []
        if any(said not in text for text, side in zip(whole, sides, strict=True) for said in map(_said, side)):
            flags.append(TEMPLATE_REWRITES_RESPONSE)
        if pair.tools and self._drops_tools(pair, prompt, prompts):
            flags.append(TEMPLATE_DROPS_TOOLS)
        ends = [self.call_turn.end if side[-1].get("role") == TOOL_CALL else self.turn_end for side in sides]
        return Texts(prompt, whole[0], whole[1], tuple(flags), (ends[0], ends[1]))

    def _prompt_text(
        self, prompt: Sequence[Message], tools: str | None, template_kwargs: str | None, prompts: dict[str, str]
    ) -> str:
        """The text of a prompt to be answered, made once for all pairs that have it."""
        key = json.dumps([[dict(m) for m in prompt], tools, template_kwargs])
        if key not in prompts:
            prompts[key] = self._text(prompt, tools, template_kwargs, generation=True)
        return prompts[key]

    def _drops_tools(self, pair: Conversation, prompt: str, prompts: dict[str, str]) -> bool:
        """Whether the text of the pair's prompt is the same without its tools."""
        try:
            return self._prompt_text(pair.prompt, None, pair.template_kwargs, prompts) == prompt
        except TemplateRefused:
            return False

    def _check_calls(self, pair: Conversation, chosen: str, rejected: str) -> None:
        """CallsLeftOut where a call with another name or argument would leave the text as it is."""
        for text, response, start in ((chosen, pair.chosen, 0), (rejected, pair.rejected, len(pair.prompt))):
            messages = [*pair.prompt, *response]  # calls of the prompt are looked for with the chosen response
            for i, message in enumerate(messages[start:], start=start):
                if message.get("role") == TOOL_CALL and self._leaves_out_calls(pair, text, messages, i):
                    raise CallsLeftOut(f"the chat template leaves out function calls: {message['content'][:80]}")

    def _leaves_out_calls(self, pair: Conversation, text: str, messages: list[Message], place: int) -> bool:
        for other in turn_of(messages[place]["content"]).others():
            changed = [*messages[:place], other.message(self.call_turn.no_text), *messages[place + 1 :]]
            try:
                if self._text(changed, pair.tools, pair.template_kwargs) == text:
                    return True
            except TemplateRefused:  # it reads what was changed
                continue
        return False

    def _text(
        self, messages: Sequence[Message], tools: str | None, template_kwargs: str | None, *, generation: bool = False
    ) -> str:
        from jinja2 import TemplateError

        settings = self._settings(template_kwargs)
        no_text = self.call_turn.no_text if any(m.get("role") == TOOL_CALL for m in messages) else ""
        try:
            return self.tokenizer.apply_chat_template(  # type: ignore[return-value]
                [readable(m, no_text) for m in messages],
                tools=json.loads(tools) if tools else None,
                add_generation_prompt=generation,
                tokenize=False,
                **settings,
            )
        except (TemplateError, *RAISED_IN_TEMPLATES) as e:
            roles = ", ".join(str(m.get("role")) for m in messages)
            raise TemplateRefused(f"the chat template cannot render the roles {roles}: {e}") from e

    def _settings(self, template_kwargs: str | None) -> dict[str, Any]:
        """A pair's template settings, which must not be arguments of the rendering function."""
        if not template_kwargs:
            return {}
        parsed = json.loads(template_kwargs)
        if not isinstance(parsed, dict):
            raise TemplateRefused(f"chat_template_kwargs is {template_kwargs}, expected an object of settings")
        if taken := sorted(parsed.keys() & self.own_arguments):
            where = "; tools belong in the column `tools`" if "tools" in taken else ""
            raise TemplateRefused(f"chat_template_kwargs sets {', '.join(taken)}, which a pair cannot set{where}")
        return parsed

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:  # a tokenizer in Python
            return [self.tokenizer(t, add_special_tokens=False, verbose=False)["input_ids"] for t in texts]
        backend.no_truncation()  # undo settings of earlier calls, which would truncate or pad
        backend.no_padding()
        return [e.ids for e in backend.encode_batch_fast(texts, add_special_tokens=False)]  # fast: without offsets

    def _split(
        self, texts: Texts, prompt: list[int], chosen: list[int], rejected: list[int]
    ) -> Rendered | TemplateRefused:
        """Cut the tokens of the three texts into prompt and responses."""
        flags = []
        if not (texts.chosen.startswith(texts.prompt) and texts.rejected.startswith(texts.prompt)):
            flags.append(TEMPLATE_REWRITES_HISTORY)
        flags += texts.flags
        boundary = common_prefix(prompt, chosen, rejected)
        if boundary < len(prompt):
            flags.append(BOUNDARY_MISMATCH)
        if boundary == 0:
            return TemplateRefused(
                "the rendered prompt and responses have no first token in common, so the prompt is empty"
            )
        responses = zip((chosen, rejected), texts.ends, strict=True)
        chosen_ids, rejected_ids = (_closed(ids[boundary:], end) for ids, end in responses)
        if chosen_ids == rejected_ids:
            return TemplateRefused("chosen and rejected have the same tokens: the template drops their difference")
        return Rendered(prompt[:boundary], chosen_ids, rejected_ids, tuple(flags))

    def _find_turn_end(self) -> TurnEnd:
        """The first special token after the assistant's content in a probe conversation, otherwise the eos token."""
        text = self._text([PROBE, {"role": "assistant", "content": PROBE_ANSWER}], None, None)
        if PROBE_ANSWER not in text:
            raise UserError(
                "the chat template does not render the assistant's content; use a model with a working template"
            )
        after = self._special_after(text, PROBE_ANSWER)
        if after:
            return after[0]
        if self.tokenizer.eos_token_id is None:
            raise UserError(
                "neither the chat template nor the tokenizer has an end-of-turn token, so a response has no end; "
                "set eos_token in the model's tokenizer_config.json"
            )
        return TurnEnd(int(self.tokenizer.eos_token_id), (), written=False)

    def _special_after(self, text: str, answer: str) -> list[TurnEnd]:
        """Every special token after the last `answer` in `text` as an end of the turn."""
        after = self._tokenize([text[text.rindex(answer) + len(answer) :]])[0]
        added = self.tokenizer.added_tokens_decoder.items()
        special = {i for i, t in added if t.special} | set(self.tokenizer.all_special_ids)
        return [
            TurnEnd(token, tuple(after[i + 1 :]), written=True) for i, token in enumerate(after) if token in special
        ]

    @cached_property
    def call_turn(self) -> CallTurn:
        """Found by a probe conversation; TemplateRefused where the template writes no calls.

        A turn with calls ends as others do, or with a token of its own: the last special one after the arguments.
        """
        probe = Turn("", [{"name": "probename", "arguments": {"probekey": PROBE_ANSWER}}])
        with_id = {"tool_calls": [{"id": "probeid00", **probe.message()["tool_calls"][0]}]}  # where one is wanted
        why: TemplateRefused = CallsLeftOut("the chat template has no place for function calls")
        for no_text in ("", None):
            try:
                text = self._text([PROBE, probe.message(no_text) | with_id], None, None)
            except TemplateRefused as e:
                why = why if no_text is None else e
                continue
            if PROBE_ANSWER in text and "probename" in text:
                ends = self._special_after(text, PROBE_ANSWER)
                usual = [end for end in ends if end.token == self.turn_end.token]
                unwritten = TurnEnd(self.turn_end.token, (), written=False)
                return CallTurn(no_text, (usual or ends[-1:] or [unwritten])[0])
        raise why


PROBE = {"role": "user", "content": PROBE_QUESTION}


def _said(message: Message) -> str:
    """The text of a message, which its rendering is to hold."""
    text = turn_of(message["content"]).text if message.get("role") == TOOL_CALL else message.get("content")
    return str(text or "").strip()


def _closed(ids: list[int], end: TurnEnd) -> list[int]:
    """`ids` of a response, ended by exactly one end-of-turn token."""
    if end.written and ids[len(ids) - len(end.tail) :] == list(end.tail):
        ids = ids[: len(ids) - len(end.tail)]
    last = len(ids)
    while last and ids[last - 1] == end.token:  # the content itself may end with the token's text
        last -= 1
    return [*ids[:last], end.token]
