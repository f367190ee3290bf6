"""OpenAssistant's trees: questions, ranked replies to each, questions below those."""

from __future__ import annotations

from typing import Any

from rmo_curate.read.forms.form import Candidate, Fields, Form, is_number
from rmo_curate.read.forms.ranked import Ranked, every_two
from rmo_curate.read.forms.trl import conversational
from rmo_curate.read.messages import Message, RejectReason, Unfit, describe, messages


def _node_turn(node: dict[str, Any], where: str) -> Message:
    return messages([{"role": node.get("role"), "content": node.get("text")}], where)[0]


def _nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The replies to a node."""
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise Unfit(RejectReason.BAD_MESSAGES, "the replies of a node are not a list of nodes")
    return replies


def _walk(fields: Fields, node: dict[str, Any], before: list[Message], path: str) -> list[Candidate]:
    """The pairs of the ranked replies to a question, and those of the questions below it; a reply without a rank was
    not compared."""
    prompt = [*before, _node_turn(node, f"node {path or 'prompt'}")]
    replies = _nodes(node)
    ranked = [(i, r) for i, r in enumerate(replies) if is_number(r.get("rank"))]
    candidates: list[Candidate] = []
    if len({r["rank"] for _, r in ranked}) > 1:
        answers = [Ranked([_node_turn(r, f"reply {path}{i + 1}")], r["rank"], {"rank": r["rank"]}) for i, r in ranked]
        candidates += every_two(fields, prompt, answers, lower=True, where="replies", name=path)
    for i, reply in enumerate(replies, start=1):
        for j, question in enumerate(_nodes(reply), start=1):
            turns = [*prompt, _node_turn(reply, f"reply {path}{i}")]
            candidates += _walk(fields, question, turns, f"{path}{i}.{j}/")
    return candidates


def _tree(fields: Fields) -> list[Candidate]:
    if not isinstance(fields["prompt"], dict):
        raise Unfit(RejectReason.NOT_TEXT, f"prompt is {describe(fields['prompt'])}, expected a tree")
    if not (candidates := _walk(fields, fields["prompt"], [], "")):
        raise Unfit(RejectReason.NO_PREFERENCE, "no question of the tree has two replies of different rank")
    return candidates


TREE = Form(
    "open-assistant",
    ("prompt",),
    "prompt is a tree of {text, role, replies: [{rank, ...}]}; the lowest rank is the best",
    lambda f: isinstance(f.get("prompt"), dict) and {"text", "replies"} <= f["prompt"].keys(),
    conversational,
    expand=_tree,
)
