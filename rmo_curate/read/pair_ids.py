"""What a pair is called: the user's id, else the hash of its content; repeated contents and ids are found here."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from rmo_curate.read.messages import Message, RejectReason, Unfit, check_text, describe
from rmo_train.console.errors import UserError
from rmo_train.console.wording import place
from rmo_train.store.files import canonical_json, canonical_text, sha256_text


def own_id(value: Any) -> str:
    """The user's id as text; empty when there is none."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():  # a column of integers with gaps, as pandas writes it
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise Unfit(RejectReason.NOT_TEXT, f"id is {describe(value)}, expected text or an integer: {value!r}")
    return check_text(value, "id").strip()


def content_hash(
    prompt: list[Message],
    chosen: list[Message],
    rejected: list[Message],
    tools: str | None,
    chat_template_kwargs: str | None,
) -> str:
    """sha256 of what is asked and answered, 16 bytes in hex: the same wherever the pair stands and whatever its id.

    `chat_template_kwargs` counts where there are some: a pair has the same id without the column and with a null. The
    order of keys counts nowhere.
    """
    content: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    content["tools"] = tools and canonical_text(tools)
    if chat_template_kwargs is not None:
        content["chat_template_kwargs"] = canonical_text(chat_template_kwargs)
    return sha256_text(canonical_json(content))[:32]


class Ids:
    """Finds repeated contents and ids in 16 bytes a record (and a position), so that it holds for millions."""

    def __init__(self, names: Sequence[str]):
        self.names = names  # of the files
        self.first: dict[bytes, int] = {}  # content -> the position where it came first
        self.owner: dict[bytes, bytes] = {}  # a user's id -> its content
        self.repeated = 0  # records whose id stood for another content before

    def claim(self, pair_id: str, content_hash: str, file_number: int, line: int) -> str:
        """The pair's id: `pair_id`, or that with the hash after it where an earlier pair of other content has it.

        Unfit for a content seen before.
        """
        content = bytes.fromhex(content_hash)
        repeated = self._stands_for_another(pair_id, content)
        if not repeated and pair_id != content_hash:
            self.owner[_key(pair_id)] = content
        if content in self.first:
            first = self._place(self.first[content])
            raise Unfit(RejectReason.DUPLICATE, f"the same prompt, chosen and rejected as {first}")
        self.first[content] = file_number << 40 | line
        if not repeated:
            return pair_id
        self.repeated += 1
        new = f"{pair_id}-{content_hash}"
        if self._stands_for_another(new, content):
            raise UserError(
                f"{place(self.names[file_number], line)}: the id {new!r} stands for two different pairs; give each "
                "pair its own id, or leave the id column out"
            )
        self.owner[_key(new)] = content
        return new

    def _stands_for_another(self, pair_id: str, content: bytes) -> bool:
        key = _key(pair_id)
        holder = self.owner.get(key) or (key if key in self.first else None)
        return holder not in (None, content)

    def _place(self, position: int) -> str:
        return place(self.names[position >> 40], position & (1 << 40) - 1)


def _key(user_id: str) -> bytes:
    """16 bytes for an id; an id that is one of our hashes (data curated before) is that hash itself."""
    if len(user_id) == 32 and set(user_id) <= set("0123456789abcdef"):
        return bytes.fromhex(user_id)
    return blake2b(user_id.encode(), digest_size=16).digest()
