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
from typing import TYPE_CHECKING, Any

from rmo_train.console.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, Any]  # role, content, and other fields that the template reads (tool_calls, ...)

# The rendered text or tokens of the prompt change when a response follows; the difference counts as response.
BOUNDARY_MISMATCH = "boundary_mismatch"
TEMPLATE_REWRITES_HISTORY = "template_rewrites_history"
# The rendering does not contain a response verbatim: a reasoning template moved or dropped its thoughts.
TEMPLATE_REWRITES_RESPONSE = "template_rewrites_response"
RENDERING_FLAGS = (BOUNDARY_MISMATCH, TEMPLATE_REWRITES_HISTORY, TEMPLATE_REWRITES_RESPONSE)

PROBE_QUESTION, PROBE_ANSWER = "probequestion", "probeanswer"


class TemplateRefused(UserError):
    """The chat template cannot render this conversation (roles out of order, an unknown role)."""


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
    rewritten: bool  # a response does not occur verbatim in the rendering

    @property
    def all(self) -> tuple[str, str, str]:
        return self.prompt, self.chosen, self.rejected


@dataclass(frozen=True)
class TurnEnd:
    """How the template closes an assistant's turn."""

    token: int  # the end-of-turn token
    tail: tuple[int, ...]  # tokens after it, which are cut from a response (SmolLM2: a newline)
    written: bool  # False: the template ends a turn with plain text only, so `token` (the eos) is appended


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
        settings = (pair.tools, pair.template_kwargs)
        prompt = [dict(m) for m in pair.prompt]
        key = json.dumps([prompt, settings])
        if key not in prompts:
            prompts[key] = self._text(prompt, *settings, generation=True)
        whole = [self._text([*prompt, *response], *settings) for response in (pair.chosen, pair.rejected)]
        rewritten = any(
            str(message.get("content") or "").strip() not in text
            for text, response in zip(whole, (pair.chosen, pair.rejected), strict=True)
            for message in response
        )
        return Texts(prompts[key], whole[0], whole[1], rewritten)

    def _text(
        self, messages: Sequence[Message], tools: str | None, template_kwargs: str | None, *, generation: bool = False
    ) -> str:
        from jinja2 import TemplateError

        settings = self._settings(template_kwargs)
        try:
            return self.tokenizer.apply_chat_template(  # type: ignore[return-value]
                [dict(m) for m in messages],
                tools=json.loads(tools) if tools else None,
                add_generation_prompt=generation,
                tokenize=False,
                **settings,
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as e:
            roles = ", ".join(str(m.get("role")) for m in messages)  # the template's own code raised it
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
        if texts.rewritten:
            flags.append(TEMPLATE_REWRITES_RESPONSE)
        boundary = common_prefix(prompt, chosen, rejected)
        if boundary < len(prompt):
            flags.append(BOUNDARY_MISMATCH)
        if boundary == 0:
            return TemplateRefused(
                "the rendered prompt and responses have no first token in common, so the prompt is empty"
            )
        chosen_ids, rejected_ids = self._close(chosen[boundary:]), self._close(rejected[boundary:])
        if chosen_ids == rejected_ids:
            return TemplateRefused("chosen and rejected have the same tokens: the template drops their difference")
        return Rendered(prompt[:boundary], chosen_ids, rejected_ids, tuple(flags))

    def _close(self, ids: list[int]) -> list[int]:
        """`ids` of a response, ended by exactly one end-of-turn token."""
        end = self.turn_end
        if end.written and ids[len(ids) - len(end.tail) :] == list(end.tail):
            ids = ids[: len(ids) - len(end.tail)]
        last = len(ids)
        while last and ids[last - 1] == end.token:  # the content may itself end with the token's text
            last -= 1
        return [*ids[:last], end.token]

    def _find_turn_end(self) -> TurnEnd:
        """The first special token after the assistant's content in a probe conversation, otherwise the eos token."""
        tokenizer = self.tokenizer
        text = self._text(
            [{"role": "user", "content": PROBE_QUESTION}, {"role": "assistant", "content": PROBE_ANSWER}], None, None
        )
        if PROBE_ANSWER not in text:
            raise UserError(
                "the chat template does not render the assistant's content; use a model with a working template"
            )
        after = self._tokenize([text[text.rindex(PROBE_ANSWER) + len(PROBE_ANSWER) :]])[0]
        special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special} | set(tokenizer.all_special_ids)
        for i, token in enumerate(after):
            if token in special:
                return TurnEnd(token, tuple(after[i + 1 :]), written=True)
        if tokenizer.eos_token_id is None:
            raise UserError(
                "neither the chat template nor the tokenizer has an end-of-turn token, so a response has no end; "
                "set eos_token in the model's tokenizer_config.json"
            )
        return TurnEnd(int(tokenizer.eos_token_id), (), written=False)
