"""Formats of other trainers: converts a row of SHARDS to the row that a trainer expects, or says why it cannot.

To add a trainer, write its row function and its `describe` text, and enter a `Format` in `FORMATS`. A row function
raises `Inexpressible` for a pair that the trainer would misread; such pairs are listed, never changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from rmo_train.data.pairs import softened
from rmo_train.data.rendering import TEMPLATE_REWRITES_HISTORY, TEMPLATE_REWRITES_RESPONSE
from rmo_train.data.tool_calls import TOOL_CALL, turn_of
from rmo_train.store.tables import MESSAGES, TOKENS

Row = Mapping[str, Any]
SOURCE_FIELDS = {"source_file": pa.string(), "source_line": pa.int64()}


class Trainer(StrEnum):
    """A trainer to export to."""

    TRL = "trl"
    LLAMA_FACTORY = "llama-factory"
    AXOLOTL = "axolotl"
    OPENRLHF = "openrlhf"


class Inexpressible(Exception):
    """A pair that a trainer's format cannot express; the message names the reason."""


@dataclass(frozen=True)
class Shape:
    """Properties of the kept pairs as a whole, known before the first row is written."""

    tools: bool  # at least one pair has tools
    template_kwargs: pa.DataType | None  # of chat_template_kwargs, if every pair sets the same names; otherwise None
    margin: bool  # the source had a numeric column `margin`
    softness: float  # how far training softens labels by `label_confidence`; 0: not at all
    references: bool  # every pair has its log-probs under the reference
    end: int | None  # index of the trajectory's end in `chosen_logps` and `rejected_logps`, if there is one
    sourced: bool  # the shards have the source file and line of each pair


@dataclass(frozen=True)
class Format:
    """The format of one trainer."""

    row: Callable[[Row, Shape], dict[str, Any]]
    data: str  # the data file; with `{}`: one Parquet file per part
    describe: Callable[[Path], str]  # how to use the folder, in Markdown
    extra_files: Callable[[Path], dict[str, str]] = lambda _: {}  # name -> content of additional files
    schema: Callable[[Shape], pa.Schema] = lambda _: pa.schema([])  # of the Parquet files
    reads: tuple[str, ...] = ()  # columns of SHARDS that it needs in addition to the common ones
    carries_weights: bool = False  # and label confidences


def origin(pair: Row, shape: Shape) -> dict[str, Any]:
    """Columns that lead from a row back to its pair and to the user's file; all these trainers ignore them."""
    return {name: pair[name] for name in ("id", *(SOURCE_FIELDS if shape.sourced else ()))}


def refuse_calls(pair: Row) -> None:
    """A table of rows gives all calls the same arguments, null where one has none, so a reader has other calls."""
    if any(m["role"] == TOOL_CALL for column in ("prompt", "chosen", "rejected") for m in pair[column]):
        raise Inexpressible("function calls")


def plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": m["role"], "content": m["content"]} for m in messages]


def only_message(pair: Row, column: str) -> dict[str, Any]:
    """The message of a response that has exactly one."""
    if len(pair[column]) != 1:
        raise Inexpressible("a response of several messages")
    return plain(pair[column])[0]


def refuse_settings(pair: Row, *columns: str) -> None:
    """Refuse columns without which the pair would be rendered differently."""
    for column in columns:
        if pair.get(column):
            raise Inexpressible(f"its own {column}")


# ---------------------------------------------------------------------------------------------------- TRL


TRL_READS = (
    *("prompt_ids", "chosen_ids", "rejected_ids"),
    *("ref_chosen_logps", "ref_rejected_logps", "chosen_logps", "rejected_logps"),
)


def trl_row(pair: Row, shape: Shape) -> dict[str, Any]:
    """prompt, chosen, rejected as message lists; `tools` as JSON text, `chat_template_kwargs` as an object; and the
    columns of `rmo_train.trl`: the scored tokens, weight, label confidence, log-probs in nats.

    No column has a name that TRL writes itself (`ref_chosen_logps`), since its precompute would fail on such data.
    """
    refuse_calls(pair)
    row: dict[str, Any] = {**origin(pair, shape), **{name: pair[name] for name in ("prompt", "chosen", "rejected")}}
    if shape.tools:
        row["tools"] = pair["tools"]
    if shape.template_kwargs is not None:
        row["chat_template_kwargs"] = json.loads(pair["chat_template_kwargs"])
    else:  # TRL fails on a row without the object, and reads a missing name as null
        refuse_settings(pair, "chat_template_kwargs")
    row |= {name: pair[name] for name in ("prompt_ids", "chosen_ids", "rejected_ids", "weight")}
    row["label_confidence"] = softened(pair["label_confidence"], shape.softness)
    for side in ("chosen", "rejected"):
        if shape.references:
            row[f"ref_{side}"] = pair[f"ref_{side}_logps"]
        if shape.end is not None:
            row[f"end_{side}"] = pair[f"{side}_logps"][shape.end]
    return row


def trl_schema(shape: Shape) -> pa.Schema:
    fields: list[tuple[str, pa.DataType]] = [("id", pa.string())]
    fields += list(SOURCE_FIELDS.items()) if shape.sourced else []
    fields += [(name, MESSAGES) for name in ("prompt", "chosen", "rejected")]
    fields += [("tools", pa.string())] if shape.tools else []
    fields += [("chat_template_kwargs", shape.template_kwargs)] if shape.template_kwargs is not None else []
    fields += [(name, TOKENS) for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    numbers = ["weight", "label_confidence"]
    numbers += ["ref_chosen", "ref_rejected"] if shape.references else []
    numbers += ["end_chosen", "end_rejected"] if shape.end is not None else []
    return pa.schema(fields + [(name, pa.float64()) for name in numbers])


def trl_usage(out: Path) -> str:
    return f"""With weights, soft labels and the exported reference log-probs (TRL 1.16):

```python
from datasets import load_dataset
from trl import DPOConfig

from rmo_train.trl import RMODPOTrainer

pairs = load_dataset("{out}", split="train")
config = DPOConfig("OUT", precompute_ref_log_probs=True, max_length=None)
trainer = RMODPOTrainer(MODEL, args=config, train_dataset=pairs)  # optional: diversify=True, amplify=0.25
```

With plain TRL, which weights all pairs equally and takes every label as it is (for it, filter with `--action drop`):

```python
from trl import DPOTrainer

trainer = DPOTrainer(MODEL, args=DPOConfig("OUT"), train_dataset=pairs)
```

On the command line: `trl dpo --dataset_name {out} --model_name_or_path MODEL`.

| column | content |
|---|---|
| `prompt`, `chosen`, `rejected`, `tools`, `chat_template_kwargs` | columns that TRL reads |
| `prompt_ids`, `chosen_ids`, `rejected_ids` | the scored tokens; plain TRL replaces them with its own |
| `weight`, `label_confidence` | weight of the pair in the loss; P(label right), 1 if labels are not soft |
| `ref_chosen`, `ref_rejected` | log-probs under the reference, nats, if every pair has them |
| `end_chosen`, `end_rejected` | log-probs at the trajectory's end, nats, if there is one |

Plain TRL ignores the last three rows and computes its own reference log-probs (once, with
`precompute_ref_log_probs=True`): it ends a response with other tokens than the scored ones, so the exported log-probs
do not match its tokens."""


# ---------------------------------------------------------------------------------------------------- LLaMA-Factory

SHAREGPT_TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
SHAREGPT_ROLES = {
    "user": "human",
    "assistant": "gpt",
    TOOL_CALL: "function_call",  # its content is the list of calls, too
    "tool": "observation",
    "system": "system",
}


def sharegpt(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] not in SHAREGPT_ROLES:
        raise Inexpressible(f"a message of role {message['role']}")
    if message["role"] == TOOL_CALL and turn_of(message["content"]).text:
        raise Inexpressible("a message with both a text and function calls")
    return {"from": SHAREGPT_ROLES[message["role"]], "value": message["content"]}


def llama_factory_row(pair: Row, shape: Shape) -> dict[str, Any]:
    """ShareGPT ranking: a conversation that ends with the question, and one message per answer.

    Questions (human, observation) and answers must alternate after an optional system message. LLaMA-Factory skips
    other orders with a warning, so they are refused here.
    """
    refuse_settings(pair, "chat_template_kwargs")
    answers = {column: sharegpt(only_message(pair, column)) for column in ("chosen", "rejected")}
    conversation = [sharegpt(message) for message in pair["prompt"]]
    turns = conversation[1:] if conversation[0]["from"] == "system" else conversation
    expected = [("human", "observation"), ("gpt", "function_call")]
    if len(turns) % 2 == 0 or any(turn["from"] not in expected[i % 2] for i, turn in enumerate(turns)):
        raise Inexpressible("a prompt whose questions and answers do not alternate")
    return {**origin(pair, shape), "conversations": conversation, **answers, "tools": pair["tools"] or ""}


def llama_factory_files(out: Path) -> dict[str, str]:
    entry = {
        "file_name": "train.jsonl",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "tools": "tools"},
        "tags": SHAREGPT_TAGS,
    }
    return {"dataset_info.json": json.dumps({"rmo": entry}, indent=2) + "\n"}


def llama_factory_usage(out: Path) -> str:
    return f"""```yaml
stage: dpo
dataset_dir: {out}
dataset: rmo
template: YOUR_MODELS_TEMPLATE
```

`dataset_info.json` has the entry `rmo`; to use your own `dataset_dir`, copy the entry and `train.jsonl` there.
LLaMA-Factory renders with its own `template`, so its tokens can differ from the scored ones."""


# ---------------------------------------------------------------------------------------------------- axolotl

AXOLOTL_ROLES = ("user", "assistant", "system", "tool")


def axolotl_row(pair: Row, shape: Shape) -> dict[str, Any]:
    """`chat_template.default`: messages, and one message per answer (axolotl would use only the last of several)."""
    refuse_calls(pair)
    refuse_settings(pair, "tools", "chat_template_kwargs")
    if TEMPLATE_REWRITES_RESPONSE in pair["flags"]:
        raise Inexpressible("a response that the chat template rewrites, so that axolotl does not find it")
    messages = plain(pair["prompt"])
    chosen, rejected = only_message(pair, "chosen"), only_message(pair, "rejected")
    for message in (*messages, chosen, rejected):
        if message["role"] not in AXOLOTL_ROLES:
            raise Inexpressible(f"a message of role {message['role']}")
    return {**origin(pair, shape), "messages": messages, "chosen": chosen, "rejected": rejected}


def axolotl_files(out: Path) -> dict[str, str]:
    dataset = {
        "path": str(out / "train.jsonl"),
        "ds_type": "json",
        "split": "train",
        "type": "chat_template.default",
        "field_messages": "messages",
        "field_chosen": "chosen",
        "field_rejected": "rejected",
        "message_property_mappings": {"role": "role", "content": "content"},
        "roles": {role: [role] for role in AXOLOTL_ROLES},
    }
    snippet = {"rl": "dpo", "chat_template": "tokenizer_default", "datasets": [dataset]}
    return {"datasets.yaml": yaml.safe_dump(snippet, sort_keys=False)}


def axolotl_usage(out: Path) -> str:
    snippet = axolotl_files(out)["datasets.yaml"]
    use = "Put this into your config (also in `datasets.yaml`). If you move the folder, correct `path`."
    return f"{use}\n\n```yaml\n{snippet}```"


# ---------------------------------------------------------------------------------------------------- OpenRLHF


def openrlhf_row(pair: Row, shape: Shape) -> dict[str, Any]:
    """prompt, chosen, rejected as message lists; `margin` if the source had one (0, the default, if not a number)."""
    refuse_calls(pair)
    refuse_settings(pair, "tools", "chat_template_kwargs")
    if TEMPLATE_REWRITES_HISTORY in pair["flags"]:
        raise Inexpressible(
            "a prompt that the chat template rewrites, while OpenRLHF finds the response by the prompt's length"
        )
    row: dict[str, Any] = {column: plain(pair[column]) for column in ("prompt", "chosen", "rejected")}
    row = origin(pair, shape) | row
    return row | ({"margin": float(pair["margin"] or 0)} if shape.margin else {})


def openrlhf_usage(out: Path) -> str:
    return f"""```
--data.dataset {out / "train.jsonl"} --data.prompt_key prompt --data.chosen_key chosen \\
    --data.rejected_key rejected --data.apply_chat_template
```

In versions without dotted flags, they are `--dataset`, `--prompt_key`, `--chosen_key`, `--rejected_key` and
`--apply_chat_template`. A column `margin`, if the source had one, is used by the margin loss of reward models, not by
DPO."""


FORMATS = {
    Trainer.TRL: Format(
        trl_row, "data/train-{}.parquet", trl_usage, schema=trl_schema, reads=TRL_READS, carries_weights=True
    ),
    Trainer.LLAMA_FACTORY: Format(llama_factory_row, "train.jsonl", llama_factory_usage, llama_factory_files),
    Trainer.AXOLOTL: Format(axolotl_row, "train.jsonl", axolotl_usage, axolotl_files),
    Trainer.OPENRLHF: Format(openrlhf_row, "train.jsonl", openrlhf_usage),
}
