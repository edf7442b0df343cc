"""Models that say which one they are in each of their parts, and what is found of them in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

import minibert
from minibert.vectors.recipe import Recipe

POOLING = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bank"]


def made(number: int) -> minibert.Bert:
    """A model whose weights, configuration, tokenizer and recipe hold its number, 0 to 2."""
    config = minibert.BertConfig(
        vocab_size=6,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        pad_token_id=number,
    )
    model = minibert.BertModel(config).requires_grad_(False)
    for parameter in model.parameters():
        parameter.fill_(number)
    tokenizer = minibert.BertTokenizer({word: i for i, word in enumerate(WORDS)}, model_max_length=100 + number)
    return minibert.Bert(model, tokenizer, Recipe(pooling=(list(POOLING)[number],), max_seq_length=10 + number))


def numbers(bert: minibert.Bert) -> set[Any]:
    """The numbers that the parts of a model hold."""
    return {
        *(value.item() for parameter in bert.model.parameters() for value in parameter.unique()),
        bert.config.pad_token_id,
        (bert.tokenizer.model_max_length or 0) - 100,
        (bert.recipe.max_seq_length or 0) - 10,
        list(POOLING).index(bert.recipe.pooling[0]),
    }


def numbers_of_files(folder: Path) -> set[Any]:
    """The numbers in the files that other programs read."""

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text())

    pooling = read("1_Pooling/config.json")
    return {
        *(value.item() for tensor in load_file(folder / "model.safetensors").values() for value in tensor.unique()),
        read("config.json")["pad_token_id"],
        read("tokenizer_config.json")["model_max_length"] - 100,
        read("sentence_bert_config.json")["max_seq_length"] - 10,
        [pooling[f"pooling_mode_{mode}"] for mode in POOLING.values()].index(True),
    }
