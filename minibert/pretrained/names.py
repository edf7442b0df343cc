"""The names of tensors, ours and those of checkpoints, in one table for both directions.

A row names a module and stands for its `weight` and `bias`. `{}` is the number of a layer. On both sides, models with a
head have the prefix `bert.` for the encoder, and a plain encoder has no prefix.
"""

from __future__ import annotations

import re

TABLE = {
    # ours: in checkpoints
    "embeddings.token": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.token_type": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "encoder.layers.{}.attention.query": "encoder.layer.{}.attention.self.query",
    "encoder.layers.{}.attention.key": "encoder.layer.{}.attention.self.key",
    "encoder.layers.{}.attention.value": "encoder.layer.{}.attention.self.value",
    "encoder.layers.{}.attention.output": "encoder.layer.{}.attention.output.dense",
    "encoder.layers.{}.attention_norm": "encoder.layer.{}.attention.output.LayerNorm",
    "encoder.layers.{}.feed_forward.up": "encoder.layer.{}.intermediate.dense",
    "encoder.layers.{}.feed_forward.down": "encoder.layer.{}.output.dense",
    "encoder.layers.{}.feed_forward_norm": "encoder.layer.{}.output.LayerNorm",
    "pooler.dense": "pooler.dense",
    "mlm_head.dense": "cls.predictions.transform.dense",
    "mlm_head.norm": "cls.predictions.transform.LayerNorm",
    "mlm_head": "cls.predictions",  # its bias, one number for each token
    "mlm_head.decoder": "cls.predictions.decoder",  # untied checkpoints only
    "nsp_head": "cls.seq_relationship",
    "classifier": "classifier",
    "span_head": "qa_outputs",
}
THEIRS_TO_OURS = {theirs: ours for ours, theirs in TABLE.items()}

# Constants that old versions of transformers saved among the weights.
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")


def canonical(name: str) -> str:
    """A checkpoint's name without variants: no prefix `module.` or `bert.`, no `gamma` and `beta` in LayerNorms."""
    name = name.removeprefix("module.").removeprefix("bert.")
    return re.sub(r"(LayerNorm)\.(gamma|beta)$", lambda m: f"{m[1]}.{'weight' if m[2] == 'gamma' else 'bias'}", name)


def _translate(name: str, table: dict[str, str]) -> str | None:
    module, _, kind = name.rpartition(".")
    numbers = re.findall(r"(?<=\.)\d+(?=\.)", module)
    row = table.get(re.sub(r"(?<=\.)\d+(?=\.)", "{}", module))
    return None if row is None or kind not in ("weight", "bias") else f"{row.format(*numbers)}.{kind}"


def to_checkpoint(ours: str) -> str:
    """The canonical checkpoint name of one of our parameters, `bert.` prefix or not."""
    theirs = _translate(ours.removeprefix("bert."), TABLE)
    if theirs is None:
        raise KeyError(ours)
    return theirs


def to_ours(theirs: str) -> str | None:
    """Our name, without `bert.`, of a tensor of a checkpoint; None for a tensor that is not BERT's."""
    return _translate(canonical(theirs), THEIRS_TO_OURS)


MLM_TENSORS = [
    to_checkpoint(f"mlm_head.{name}") for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias")
]
