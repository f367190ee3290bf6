"""The forms that preference data are published in: one small record of each in our own words, and what it means."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

Message = dict[str, str]
Triple = tuple[list[Message], list[Message], list[Message]]


def u(text: str) -> Message:
    return {"role": "user", "content": text}


def a(text: str) -> Message:
    return {"role": "assistant", "content": text}


def s(text: str) -> Message:
    return {"role": "system", "content": text}


def turn(who: str, text: str) -> Message:
    return {"from": who, "value": text}


def parts(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


PLAIN: Triple = ([u("Q")], [a("yes")], [a("no")])
BRIEF: Triple = ([s("Be brief."), u("Q")], [a("yes")], [a("no")])
LATER: Triple = ([u("hi"), a("hello"), u("Q")], [a("yes")], [a("no")])
SYSTEM = {"system": "Be brief."}
ANSWERS = {"chosen": "yes", "rejected": "no"}
CONVERSATIONS = {"chosen": [u("Q"), a("yes")], "rejected": [u("Q"), a("no")]}
LATER_TURNS = [u("hi"), a("hello"), u("Q")]
LATER_CONVERSATIONS = {"chosen": [*LATER_TURNS, a("yes")], "rejected": [*LATER_TURNS, a("no")]}
CALL = [turn("human", "Q"), turn("function_call", '{"name": "f", "arguments": {"n": 1}}'), turn("observation", "4")]
CALLED = {"role": "tool_call", "content": '[{"name": "f", "arguments": {"n": 1}}]'}
AFTER_A_CALL: Triple = ([u("Q"), CALLED, {"role": "tool", "content": "4"}], [a("yes")], [a("no")])
OPENAI_CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
CHATML = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
UNPAIRED = "unpaired: one answer and a label"
SUMMARIES = [{"text": "no", "policy": "m1"}, {"text": "yes", "policy": "m2"}]
TREE = {
    "message_tree_id": "t",
    "prompt": {
        "text": "hi",
        "role": "prompter",
        "replies": [
            {"text": "hello", "role": "assistant", "rank": 0, "replies": [
                {"text": "Q", "role": "prompter", "rank": None, "replies": [
                    {"text": "no", "role": "assistant", "rank": 1, "replies": []},
                    {"text": "unranked", "role": "assistant", "rank": None, "replies": []},
                    {"text": "yes", "role": "assistant", "rank": 0, "replies": []},
                ]},
            ]},
        ],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Published:
    """A form: whose it is, a record of it, and what that means."""

    whose: str
    record: dict[str, Any]
    means: Triple | None = PLAIN  # None: it is refused
    refused: str = ""  # what the refusal says, as a pattern
    why: str = ""  # the same in words
    columns: dict[str, str] = field(default_factory=dict)  # the --map that is printed for it


def without_pairs(whose: str, record: dict[str, Any], refused: str, why: str) -> Published:
    return Published(whose, record, None, refused, why)


FORMS = (
    # ---- many users
    Published("TRL, OpenRLHF, Skywork: texts", {"prompt": "Q", **ANSWERS, "margin": 1.5, "source": "x"}),
    Published("TRL: messages", {"prompt": [u("Q")], "chosen": [a("yes")], "rejected": [a("no")]}),
    Published("TRL, Skywork: two conversations", CONVERSATIONS),
    Published("HH-RLHF", {k: f"\n\nHuman: Q\n\nAssistant: {v}" for k, v in ANSWERS.items()}),
    Published("UltraFeedback-binarized", {"prompt": "Q", **CONVERSATIONS, "score_chosen": 8.0, "messages": [u("Q")]}),
    Published("SimPO's sets", {"prompt": "Q", **CONVERSATIONS, "all_rm_scores": [0.1, 0.2]}),
    Published("Tulu 3", {"prompt": "Q", **LATER_CONVERSATIONS, "id": "x"}, LATER),
    Published("orpo-dpo-mix", {"prompt": "hi", **LATER_CONVERSATIONS, "question": "Q"}, LATER),
    Published("LLaMA-Factory ShareGPT", {
        "conversations": [turn("human", "Q")], "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no")}),
    Published("LLaMA-Factory ShareGPT with a system turn", {
        "conversations": [turn("system", "Be brief."), turn("human", "Q")],
        "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no")}, BRIEF),
    Published("LLaMA-Factory alpaca", {
        "instruction": "Q", "input": "", **ANSWERS, "history": [["hi", "hello"]]}, LATER),
    Published("LLaMA-Factory alpaca with a system prompt", {"instruction": "Q", **ANSWERS, **SYSTEM}, BRIEF),
    Published("axolotl argilla", {
        **SYSTEM, "instruction": "Q", "chosen_response": "yes", "rejected_response": "no"}, BRIEF),
    Published("axolotl intel", {**SYSTEM, "question": "Q", **ANSWERS}, BRIEF),
    Published("axolotl icr", {**SYSTEM, "input": "Q", **ANSWERS}, BRIEF),
    Published("axolotl prompt_pairs", {**SYSTEM, "prompt": "Q", **ANSWERS}, BRIEF),
    Published("truthy-dpo", {"id": "1", "source": "x", **SYSTEM, "prompt": "Q", **ANSWERS}, BRIEF),
    Published("axolotl default", {"messages": BRIEF[0], "chosen": a("yes"), "rejected": a("no")}, BRIEF),
    Published("ms-swift: a text", {"messages": [u("Q"), a("yes")], "rejected_response": "no"}),
    Published("ms-swift: messages", {"messages": [u("Q"), a("yes")], "rejected_response": [a("no")]}),
    Published("ms-swift: conversations", {"messages": [u("Q"), a("yes")], "rejected_messages": [u("Q"), a("no")]}),
    Published("stack-exchange-paired", {"qid": 1, "question": "Q", "response_j": "yes", "response_k": "no"}),
    Published("OpenAI, Azure, Together, Fireworks", {
        "input": {"messages": [u("Q")], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [a("yes")], "non_preferred_output": [a("no")]}),
    Published("PKU-SafeRLHF", {
        "prompt": "Q", "response_0": "no", "response_1": "yes", "better_response_id": 1, "safer_response_id": 0,
        "is_response_0_safe": True, "is_response_1_safe": False}),
    Published("SHP", {
        "history": "Q", "human_ref_A": "yes", "human_ref_B": "no", "labels": 1, "score_A": 9, "score_B": 2}),
    Published("HelpSteer3", {
        "context": LATER_TURNS, "response1": "no", "response2": "yes", "overall_preference": 2}, LATER),
    Published("HelpSteer2", {"prompt": "Q", "response_1": "yes", "response_2": "no", "preference_strength": -3}),
    Published("HelpSteer2: several turns", {
        "prompt": "hi\n<extra_id_1>Assistant\nhello\n<extra_id_1>User\nQ", "response_1": "no", "response_2": "yes",
        "preference_strength": 1}, LATER),
    Published("Chatbot Arena", {
        "model_a": "m1", "model_b": "m2", "winner": "model_b", "turn": 1,
        "conversation_a": CONVERSATIONS["rejected"], "conversation_b": CONVERSATIONS["chosen"]}),
    Published("MT-bench", {
        "model_a": "m1", "model_b": "m2", "winner": "model_a", "turn": 1,
        "conversation_a": [*CONVERSATIONS["chosen"], u("more"), a("bad")],
        "conversation_b": [*CONVERSATIONS["rejected"], u("more"), a("good")]}),
    Published("OpenAssistant", TREE, LATER),
    Published("RewardBench", {"prompt": "Q", **ANSWERS, "subset": "x", "id": 0}),
    # ---- some users
    Published("function calls", {
        "conversations": CALL, "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no"), "tools": "[]"},
        AFTER_A_CALL),
    Published("ms-swift agent", {
        "messages": [u("Q"), {"role": "tool_call", "content": CALL[1]["value"]},
                     {"role": "tool_response", "content": "4"}, a("yes")],
        "rejected_response": "no"}, AFTER_A_CALL),
    Published("TRL tool_calls", {
        "prompt": [u("Q")], "chosen": [{"role": "assistant", "content": "", "tool_calls": [OPENAI_CALL]}],
        "rejected": [a("no")]}, ([u("Q")], [CALLED], [a("no")])),
    Published("OpenAI tool_calls", {
        "input": {"messages": [u("Q"), {"role": "assistant", "tool_calls": [OPENAI_CALL]},
                               {"role": "tool", "tool_call_id": "c1", "content": "4"}]},
        "preferred_output": [a("yes")], "non_preferred_output": [a("no")]}, AFTER_A_CALL),
    without_pairs("rlhf_v", {
        "conversations": [turn("human", "<image>Q")], "chosen": turn("gpt", "yes"), "rejected": turn("gpt", "no"),
        "images": ["a.png"]}, "it has images", "images"),
    without_pairs("TRL vision", {
        "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Q"}]}],
        "chosen": [parts("assistant", "yes")], "rejected": [parts("assistant", "no")]},
        "a part that is not text: image", "images"),
    without_pairs("oumi vision", {"prompt": "<image>Q", **ANSWERS}, "has the marker <image>", "the place of an image"),
    without_pairs("KTO", {"messages": [u("Q"), a("yes")], "label": True}, "unpaired data", UNPAIRED),
    without_pairs("TRL unpaired", {"prompt": "Q", "completion": "yes", "label": False}, "unpaired data", UNPAIRED),
    without_pairs("TRL standard implicit", {"chosen": "Q yes", "rejected": "Q no"},
                  "it is unknown where the prompt ends",
                  "it is unknown where the prompt ends"),
    Published("content parts", {
        "prompt": [parts("user", "Q")], "chosen": [parts("assistant", "yes")],
        "rejected": [parts("assistant", "no")]}),
    Published("Dahoas", {
        "prompt": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: Q\n\nAssistant:", "chosen": " yes",
        "rejected": " no"}, LATER),
    Published("UltraFeedback raw", {"instruction": "Q", "source": "x", "completions": [
        {"response": "no", "overall_score": 3.0, "model": "m1"},
        {"response": "yes", "overall_score": 8.5, "model": "m2"}]}),
    Published("Magpie", {
        "instruction": "Q", "responses": ["no", "yes"], "rewards_armorm": [{"score": 0.1}, {"score": 0.2}]}),
    Published("stack-exchange-preferences", {
        "qid": 1, "question": "Q", "answers": [{"text": "no", "pm_score": 0}, {"text": "yes", "pm_score": 4}]}),
    Published("Nectar", {"prompt": "\n\nHuman: Q\n\nAssistant: ", "answers": [
        {"answer": "no", "rank": 2.0, "model": "m1"}, {"answer": "yes", "rank": 1.0, "model": "m2"}]}),
    Published("NeMo-RL", {"context": [u("Q")], "completions": [
        {"rank": 0, "completion": [a("yes")]}, {"rank": 1, "completion": [a("no")]}]}),
    Published("axolotl ultra", {**SYSTEM, "prompt": "Q", **CONVERSATIONS}, BRIEF),
    Published("axolotl orpo argilla", {**SYSTEM, **CONVERSATIONS}, BRIEF),
    Published("mlx-lm-lora", {**SYSTEM, "prompt": "Q", **ANSWERS, "preference_score": 8.0}, BRIEF),
    Published("axolotl: messages and texts", {"messages": LATER_TURNS, **ANSWERS}, LATER),
    Published("MedicalGPT", {"conversations": [turn("human", "Q")], **ANSWERS}),
    Published("NeMo-RL, verl: turns and texts", {"prompt": LATER_TURNS, **ANSWERS}, LATER),
    Published("ms-swift 2", {
        **SYSTEM, "query": "Q", "response": "yes", "rejected_response": "no", "history": []}, BRIEF),
    Published("MedicalGPT old", {
        "system": "", "history": [["hi", "hello"]], "question": "Q", "response_chosen": "yes",
        "response_rejected": "no"}, LATER),
    Published("mlx-lm-lora ORPO", {
        "prompt": "Q", **{side: {"messages": whole} for side, whole in CONVERSATIONS.items()}}),
    Published("one message each", {"prompt": u("Q"), "chosen": a("yes"), "rejected": a("no")}),
    Published("ShareGPT lists", {
        "chosen": [turn("human", "Q"), turn("gpt", "yes")], "rejected": [turn("human", "Q"), turn("gpt", "no")]}),
    Published("ShareGPT lists and conversations", {
        "conversations": [turn("human", "Q")], "chosen": [turn("gpt", "yes")], "rejected": [turn("gpt", "no")]}),
    Published("Gemma's roles", {
        "prompt": [u("Q")], "chosen": [{"role": "model", "content": "yes"}],
        "rejected": [{"role": "Model", "content": "no"}]}),
    Published("texts in ChatML", {
        "prompt": CHATML, "chosen": "yes<|im_end|>\n", "rejected": "no<|im_end|>\n"}, BRIEF),
    Published("Vertex", {
        "systemInstruction": {"role": "system", "parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "Q"}]}],
        "completions": [
            {"score": 0.0, "completion": {"role": "model", "parts": [{"text": "no"}]}},
            {"score": 1.0, "completion": {"role": "model", "parts": [{"text": "yes"}]}}]}, BRIEF),
    Published("Amazon Nova", {
        "system": [{"text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"text": "Q"}]}, {"role": "assistant", "candidates": [
            {"content": [{"text": "yes"}], "preferenceLabel": "preferred"},
            {"content": [{"text": "no"}], "preferenceLabel": "non-preferred"}]}]}, BRIEF),
    Published("WebGPT", {
        "question": {"full_text": "Q", "dataset": "x", "id": "1"}, "answer_0": "no", "answer_1": "yes",
        "score_0": -1.0, "score_1": 1.0}),
    Published("summarize-from-feedback", {"info": {"post": "Q", "id": "1"}, "summaries": SUMMARIES, "choice": 1}),
    Published("Kaggle LMSYS", {
        "id": 1, "model_a": "m1", "model_b": "m2", "prompt": '["hi", "Q"]', "response_a": '["hello", "no"]',
        "response_b": '["hello", "yes"]', "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0}, LATER),
    Published("tinker", {
        "comparison": {"prompt_conversation": [u("Q")], "completion_A": [a("no")], "completion_B": [a("yes")]},
        "label": "B"}),
    Published("AlpacaFarm", {"instruction": "Q", "input": "", "output_1": "no", "output_2": "yes", "preference": 2}),
    Published("SPIN", {"real": CONVERSATIONS["chosen"], "generated": CONVERSATIONS["rejected"]}),
    Published("torchtune", {
        "chosen_conversations": CONVERSATIONS["chosen"], "rejected_conversations": CONVERSATIONS["rejected"]}),
    Published("autotrain", {"prompt": "Q", "text": "yes", "rejected_text": "no"}),
    Published("H2O", {"id": "1", "parent_id": None, "instruction": "Q", "output": "yes", "rejected_response": "no"}),
    without_pairs("H2O, a later turn", {
        "id": "2", "parent_id": "1", "instruction": "Q", "output": "yes", "rejected_response": "no"}, "parent_id",
        "its earlier turns are in another record"),
    Published("xtuner, ROLL: content before role", {
        "prompt": [dict(reversed(u("Q").items()))], "chosen": [dict(reversed(a("yes").items()))],
        "rejected": [dict(reversed(a("no").items()))]}),
    # ---- few users
    Published("LLaMA-Factory v1", {
        side + "_messages": [
            {"role": m["role"], "content": [{"type": "text", "value": m["content"]}], "loss_weight": 1.0}
            for m in CONVERSATIONS[side]] for side in ANSWERS}),
    Published("LLaMA-Factory old", {"instruction": "Q", "input": "", "output": ["yes", "no"]}),
    Published("NeMo-Aligner", {
        "prompt": "<extra_id_0>System\n\n<extra_id_1>User\nQ\n<extra_id_1>Assistant\n",
        "chosen_response": "yes\n<extra_id_1>", "rejected_response": "no\n<extra_id_1>"}),
    Published("NeMo-RL: own names", {"ask": "Q", "preferred": "yes", "dispreferred": "no"},
              columns={"prompt": "ask", "chosen": "preferred", "rejected": "dispreferred"}),
    Published("ColossalChat", {
        "context": [{"from": "human", "content": "Q"}], "chosen": [{"from": "assistant", "content": "yes"}],
        "rejected": [{"from": "assistant", "content": "no"}]}),
    Published("LMFlow", {
        "chosen": {**SYSTEM, "messages": CONVERSATIONS["chosen"]},
        "rejected": {**SYSTEM, "messages": CONVERSATIONS["rejected"]}}, BRIEF),
    Published("MedicalGPT tools", {"conversations": CALL, **ANSWERS}, AFTER_A_CALL),
    Published("OpenAI-like, input is the list", {
        "input": [u("Q")], "preferred_output": [a("yes")], "non_preferred_output": [a("no")]}),
    Published("HALOs", {"prompt": [u("Q")], "output_A": [a("no")], "output_B": [a("yes")], "label": 0}),
    Published("OpenPipe", {
        "prompt_messages": [u("Q")], "chosen_messages": [a("yes")], "rejected_messages": [a("no")]}),
    Published("dolphin", {"prompt": "Q", "accepted": "yes", "rejected": "no"}),
    Published("dolphin: question", {**SYSTEM, "question": "Q", "accepted": "yes", "rejected": "no"}, BRIEF,
              columns={"chosen": "accepted"}),
    without_pairs("open-instruct synthetic", {"prompt": "Q", "completions": ["yes", "no"]},
                  "nothing says which one", "no answer is judged"),
    # ---- the same in other clothes
    Published("TRL: a prompt of turns that the answers repeat", {"prompt": LATER_TURNS, **LATER_CONVERSATIONS}, LATER),
    Published("OpenAI: a system message and a text", {
        "input": {"messages": BRIEF[0]}, "preferred_output": "yes", "non_preferred_output": "no"}, BRIEF),
    Published("Chatbot Arena: answers to a text", {
        "prompt": "Q", "response_a": "yes", "response_b": "no", "winner": "model_a", "model_a": "m1"}),
    Published("summarize-from-feedback: news", {"info": {"article": "Q"}, "summaries": SUMMARIES, "choice": 1}),
    Published("Tulu 3: the last message", {"prompt": "Q", **LATER_CONVERSATIONS}, LATER),
    Published("roles in other cases", {
        "prompt": [{"role": "Human", "content": "Q"}], "chosen": [{"role": "ASSISTANT", "content": "yes"}],
        "rejected": [{"role": "Bot", "content": "no"}]}),
    Published("a list of {from, value} and texts", {"prompt": [turn("human", "Q")], **ANSWERS}),
    Published("a text prompt and one message each", {"prompt": "Q", "chosen": a("yes"), "rejected": turn("gpt", "no")}),
    Published("Alpaca evaluations", {
        "instruction": "Q", "output_1": "yes", "output_2": "no", "preference": 1.0, "generator_1": "m1"}),
    Published("OpenAI with names in objects", {
        "data": {"ask": "Q", "good": "yes", "bad": "no"}}, columns={
            "prompt": "data.ask", "chosen": "data.good", "rejected": "data.bad"}),
    Published("Llama 3's headers", {
        "prompt": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
                  "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "chosen": "yes<|eot_id|>", "rejected": "no<|eot_id|>"}),
    Published("two dialogues in ChatML", {side: CHATML + text + "<|im_end|>" for side, text in ANSWERS.items()}, BRIEF),
    Published("a prompt in ChatML and two dialogues", {
        "prompt": CHATML, **{side: CHATML + text + "<|im_end|>" for side, text in ANSWERS.items()}}, BRIEF),
    without_pairs("several answers with scores of another name", {
        "prompt": "Q", "responses": ["yes", "no"], "my_scores": [1, 2]}, "'my_scores' rates them",
        "scores of a name that is not known"),
    without_pairs("texts in Llama 2's template", {"prompt": "[INST] Q [/INST]", **ANSWERS},
                  r"a chat template \(\[INST\]\)", "a template that is not split"),
    Published("messages as JSON text", {
        "prompt": json.dumps([u("Q")]), "chosen": json.dumps([a("yes")]), "rejected": json.dumps([a("no")])}),
)  # fmt: skip
