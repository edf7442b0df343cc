"""The way of working that people learned with transformers, with only the import changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from oracle import theirs_of

from minibert import BertModel, BertTokenizer

TEXT = "After stealing money from the bank vault, the bank robber was seen fishing on the Mississippi river bank."


def word_vectors(model_class: type, tokenizer_class: type, name: str | Path) -> dict[str, torch.Tensor]:
    """From a sentence to word and sentence vectors, line by line as the tutorial does it."""
    tokenizer = tokenizer_class.from_pretrained(name)
    marked_text = "[CLS] " + TEXT + " [SEP]"
    tokenized_text = tokenizer.tokenize(marked_text)
    indexed_tokens = tokenizer.convert_tokens_to_ids(tokenized_text)
    segments_ids = [1] * len(tokenized_text)
    tokens_tensor = torch.tensor([indexed_tokens])
    segments_tensors = torch.tensor([segments_ids])

    model = model_class.from_pretrained(name, output_hidden_states=True)
    model.eval()
    with torch.no_grad():
        outputs = model(tokens_tensor, segments_tensors)
        hidden_states = outputs[2]

    token_embeddings = torch.stack(hidden_states, dim=0)
    token_embeddings = torch.squeeze(token_embeddings, dim=1)
    token_embeddings = token_embeddings.permute(1, 0, 2)
    token_vecs_cat = []
    token_vecs_sum = []
    for token in token_embeddings:
        token_vecs_cat.append(torch.cat((token[-1], token[-2], token[-3], token[-4]), dim=0))
        token_vecs_sum.append(torch.sum(token[-4:], dim=0))
    sentence_embedding = torch.mean(hidden_states[-2][0], dim=0)

    places = [i for i, token in enumerate(tokenized_text) if token == "bank"]
    return {
        "layers": torch.tensor(len(hidden_states)),
        "cat": torch.stack(token_vecs_cat),
        "sum": torch.stack(token_vecs_sum),
        "sentence": sentence_embedding,
        "bank": torch.stack([token_vecs_sum[i] for i in places]),
    }


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(a, b, dim=0).item()


def test_the_tutorial_runs_with_only_the_import_changed(minilm: Path) -> None:
    ours = word_vectors(BertModel, BertTokenizer, minilm)
    theirs = word_vectors(transformers.BertModel, transformers.BertTokenizer, minilm)
    assert ours["cat"].shape == (22, 4 * 384)
    assert ours["sum"].shape == (22, 384)
    assert ours["sentence"].shape == (384,)
    assert list(ours) == list(theirs)
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_the_same_word_in_two_senses_has_two_vectors(minilm: Path) -> None:
    vault, robber, river = word_vectors(BertModel, BertTokenizer, minilm)["bank"]
    assert cosine(vault, robber) > cosine(robber, river) + 0.04  # bert-base's are 0.94 and 0.69, see below


@pytest.mark.slow
def test_the_tutorial_runs_on_twelve_layers(tmp_path: Path, minilm: Path) -> None:
    theirs_of("BertForPreTraining", tmp_path, vocab_size=30522, num_hidden_layers=12)
    shutil.copy(minilm / "vocab.txt", tmp_path)
    shutil.copy(minilm / "tokenizer_config.json", tmp_path)
    assert word_vectors(BertModel, BertTokenizer, tmp_path)["layers"] == 13


@pytest.mark.network
def test_the_published_cosines_of_the_tutorial_are_ours() -> None:
    # C. McCormick, N. Ryan, "BERT Word Embeddings Tutorial", 2019: 0.94 and 0.69
    vault, robber, river = word_vectors(BertModel, BertTokenizer, "bert-base-uncased")["bank"]
    assert round(cosine(robber, vault), 2) == 0.94
    assert round(cosine(robber, river), 2) == 0.69
