"""The model card: the README.md of a repository, which says what a model is and how it is used."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from minibert.errors import printable

# For each class: the Hub's name of its task, and the lines that use it.
USES = {
    "BertModel": ("feature-extraction", "bert.words('He robbed the bank by the river bank.').words"),
    "BertForMaskedLM": ("fill-mask", 'bert.fill_mask("The capital of France is [MASK].")'),
    "BertForPreTraining": ("fill-mask", 'bert.fill_mask("The capital of France is [MASK].")'),
    "BertForSequenceClassification": ("text-classification", 'bert.classify("The staff was friendly.")'),
    "BertForTokenClassification": ("token-classification", 'bert.entities("Angela Merkel was born in Hamburg.")'),
    "BertForQuestionAnswering": (
        "question-answering",
        'bert.answer("Where was she born?", "She was born in Hamburg.")',
    ),
    "BertForMultipleChoice": ("multiple-choice", "bert.model"),
    "BertForNextSentencePrediction": ("feature-extraction", "bert.model"),
}
SENTENCES = ("sentence-similarity", 'bert.encode(["He sat by the river.", "She went to the bank."])')
RERANKER = ("text-ranking", 'bert.rank("Where can I fish?", ["The lake is open.", "The bank is closed."])')


# What Markdown and HTML could take for more than text, as GitHub and the Hub read them: marks of code, links, images,
# emphasis, tables, tags, entities, formulas and mentions, and the colon of addresses. An underscore within a word is
# none of them.
MARKUP = re.compile(r"[\\`*\[\]<>&|~!#$:@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# What YAML does not have unescaped, and what turns the direction of the text.
NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")


def in_markdown(text: object) -> str:
    """A text of somebody else as one line of plain text in Markdown: without markup, HTML or links."""
    return MARKUP.sub(r"\\\g<0>", printable(str(text)))


def in_yaml(value: object) -> str:
    """A text or a list of texts as a value in YAML."""
    # JSON values are YAML, too, and quote what needs it
    return NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))


def card(
    repo_id: str,
    config: Any,
    *,
    sentences: str | None = None,
    base_model: str | None = None,
) -> str:
    """A model card in the Hub's format: YAML, then Markdown.

    Args:
        repo_id: the repository.
        config: the model's configuration.
        sentences: how sentence vectors are made, in words; None for a model that makes none.
        base_model: the repository that the model was made from.
    """
    kind = config.architectures[0] if config.architectures else "BertModel"
    task, line = SENTENCES if sentences else USES[kind]
    if kind == "BertForSequenceClassification" and config.num_labels == 1:
        task, line = RERANKER
    entries: dict[str, Any] = {
        "library_name": "sentence-transformers" if sentences else "transformers",
        "pipeline_tag": task,
        "tags": ["bert", "minibert", *(["sentence-transformers"] if sentences else [])],
        **({"base_model": base_model} if base_model else {}),
    }
    header = "\n".join(f"{name}: {in_yaml(value)}" for name, value in entries.items())
    of = f", made from [{in_markdown(base_model)}](https://huggingface.co/{quote(base_model)})" if base_model else ""
    shape = f"{config.num_hidden_layers} layers, {config.hidden_size} dimensions, {config.num_attention_heads} heads"
    texts = f" {in_markdown(sentences)}" if sentences else ""
    labeller = kind in ("BertForSequenceClassification", "BertForTokenClassification")
    labels = ", ".join(map(in_markdown, (config.id2label or {}).values())) if labeller else ""
    listed = f"\nLabels: {labels}.\n" if labels and len(labels) < 2_000 else ""
    name = json.dumps(repo_id)
    code = f"import minibert\n\nbert = minibert.load({name})\n{line}"
    theirs = f"import transformers\n\nmodel = transformers.{kind}.from_pretrained({name})"
    if sentences:
        load = "from sentence_transformers import SentenceTransformer"
        theirs = f'{load}\n\nSentenceTransformer({name}).encode(["A river."])'
    parts = [
        f"---\n{header}\n---\n\n# {in_markdown(repo_id.rpartition('/')[2])}",
        f"A `{kind}` ({shape}){of}.{texts}\n{listed}".rstrip(),
        f"```python\n{code}\n```",
        f"It also loads in {'sentence-transformers' if sentences else 'transformers'}:",
        f"```python\n{theirs}\n```",
    ]
    return "\n\n".join(parts) + "\n"
