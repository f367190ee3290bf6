"""A tiny random Llama with a small real tokenizer, made in a second: what most tests load in place of a model."""

from __future__ import annotations

from pathlib import Path

# ChatML: tools go into a system turn, every turn ends with <|im_end|> and a newline.
TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEXT = [
    "What is the best way to learn how to cook a simple dinner for the family?",
    "You could start with a recipe that has few ingredients, and then change one thing at a time.",
    "I do not know the answer to that question, but here is how you might find it out yourself.",
    "The user asked the assistant for help, and the assistant said that it would be happy to help.",
]


def make_tokenizer(vocabulary: int = 400, template: str | None = TEMPLATE):
    """A byte-level BPE tokenizer trained on TEXT: at most `vocabulary` tokens, every text has ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[0]
    )
    tokenizer.chat_template = template
    return tokenizer


def write_tiny_model(folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 2, context: int = 2048) -> Path:
    """Save a float32 Llama with random weights (4 heads, 2 key-value heads) and its tokenizer into `folder`."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        initializer_range=0.1,  # wider than usual: log-probs then differ visibly from token to token
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
