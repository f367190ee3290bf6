"""What a pair is called: the user's id, else the hash of its content; repeated contents and ids are found here."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from rmo_curate.read.messages import Message, RejectReason, Unfit, check_text, describe
from rmo_train.console.errors import UserError
from rmo_train.store.files import canonical_json, sha256_text


def own_id(value: Any) -> str:
    """The user's id as text; empty when there is none."""
    if value is None:
        return ""
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

    `chat_template_kwargs` counts where there are some: a pair has the same id without the column and with a null.
    """
    content: dict[str, Any] = {"prompt": prompt, "chosen": chosen, "rejected": rejected, "tools": tools}
    if chat_template_kwargs is not None:
        content["chat_template_kwargs"] = chat_template_kwargs
    return sha256_text(canonical_json(content))[:32]


class Ids:
    """Finds repeated contents and ids in 16 bytes a record (and a position), so that it holds for millions."""

    def __init__(self, names: Sequence[str]):
        self.names = names  # of the files
        self.first: dict[bytes, int] = {}  # content -> the position where it came first
        self.owner: dict[bytes, bytes] = {}  # a user's id -> its content

    def claim(self, pair_id: str, content_hash: str, file_number: int, line: int) -> None:
        """Unfit for a content seen before; a UserError for an id that stands for another content."""
        content = bytes.fromhex(content_hash)
        own = pair_id != content_hash
        key = _key(pair_id) if own else content
        holder = self.owner.get(key) or (key if key in self.first else None)
        if holder not in (None, content):
            raise UserError(
                f"the id {pair_id!r} is used for two different pairs: {self._place(self.first[holder])} and "
                f"{self.names[file_number]}:{line}; give each pair its own id, or remove the id column"
            )
        if own:
            self.owner[key] = content
        if content in self.first:
            place = self._place(self.first[content])
            raise Unfit(RejectReason.DUPLICATE, f"the same prompt, chosen and rejected as {place}")
        self.first[content] = file_number << 40 | line

    def _place(self, position: int) -> str:
        return f"{self.names[position >> 40]}:{position & (1 << 40) - 1}"


def _key(user_id: str) -> bytes:
    """16 bytes for an id; an id that is one of our hashes (data curated before) is that hash itself."""
    if len(user_id) == 32 and set(user_id) <= set("0123456789abcdef"):
        return bytes.fromhex(user_id)
    return blake2b(user_id.encode(), digest_size=16).digest()
