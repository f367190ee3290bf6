"""Pairs to token ids; a pair is refused where its tokens would lack what the chat template reads of its messages.

The tables hold role and content of a message, and its function calls. What else the data say of it (`name`,
`tool_call_id`, the ids of calls, ...) is left out where the template does not read it, and that is found by rendering
the pair with it too: a record is never rendered without a part that the model would have seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rmo_curate.read.batching import in_batches
from rmo_curate.read.messages import Message, more_of
from rmo_curate.read.sources import Pair, Reject
from rmo_train.data.rendering import CallsLeftOut, Conversation, Rendered, Renderer, TemplateRefused
from rmo_train.data.tool_calls import readable

BATCH = 256  # records rendered with one call of the tokenizer, of long ones fewer:
BATCH_CHARACTERS = 2**22  # a tokenizer takes some hundred bytes for a token until its call is done

R = TypeVar("R", bound=Pair | Reject)


def batches(records: Iterable[R]) -> Iterator[list[R]]:
    """The records in order, as many at a time as are rendered together."""
    return in_batches(records, BATCH, BATCH_CHARACTERS, characters_of)


def characters_of(record: Pair | Reject) -> int:
    if isinstance(record, Reject):
        return len(record.raw)
    return sum(len(message["content"]) for side in record.sides for message in side)


def render_pairs(renderer: Renderer, pairs: Sequence[Pair]) -> list[Rendered | TemplateRefused]:
    """The tokens of each pair, or why the chat template does not render it from what a pair holds."""
    rendered = renderer.render_many([pair.conversation for pair in pairs])
    return [_needing_no_more(renderer, pair, text) for pair, text in zip(pairs, rendered, strict=True)]


def _needing_no_more(renderer: Renderer, pair: Pair, text: Rendered | TemplateRefused) -> Rendered | TemplateRefused:
    """`text`, unless the template makes another text of the pair with all that the data say of its messages."""
    sides = pair.sides
    left_out = {key for messages in sides for message in messages for key in more_of(message)}
    if not left_out or isinstance(text, CallsLeftOut):
        return text
    prompt, chosen, rejected = ([_whole(message) for message in messages] for messages in sides)
    whole = Conversation(prompt, chosen, rejected, pair.tools, pair.chat_template_kwargs)
    if renderer.same_text(pair.conversation, whole):
        return text
    named = ", ".join(sorted("the ids of tool_calls" if key == "tool_calls" else key for key in left_out))
    return TemplateRefused(
        f"the chat template reads more of a message than role and content ({named}), which a pair cannot hold"
    )


def full(message: Message) -> dict[str, object]:
    """A message as the data have it; its calls as OpenAI writes them."""
    return readable(_whole(message))


def _whole(message: Message) -> dict[str, object]:
    """What the tables hold of a message, and what they do not."""
    return {**message, **more_of(message)}
