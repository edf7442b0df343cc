"""What was loaded, as plain values and as a few lines to print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minibert.base import PretrainedModel
from minibert.model import BertForMaskedLM, BertForPreTraining, BertModel
from minibert.pretrained.names import MLM_TENSORS
from minibert.pretrained.source import Source
from minibert.tokenizer import BertTokenizer
from minibert.vectors.recipe import DOCUMENT, Recipe

HEADS = {
    "mlm_head": "masked LM",
    "nsp_head": "next sentence",
    "pooler": "pooler",
    "classifier": "classifier",
    "span_head": "question answering",
}


def heads_of(model: PretrainedModel, encoder: BertModel) -> tuple[str, ...]:
    """The heads on top of an encoder, by their names in `HEADS`."""
    parts = {name for module in (model, encoder) for name, _ in module.named_children()}
    return tuple(title for name, title in HEADS.items() if name in parts)


def summarize(
    model: PretrainedModel,
    tokenizer: BertTokenizer,
    recipe: Recipe,
    source: Source,
    heads: Sequence[str],
    max_seq_length: int,
    dimension: int,
    dtype_reason: str,
) -> dict[str, Any]:
    """The facts about a loaded checkpoint, as plain values."""
    config = model.config
    return {
        "source": str(source),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "attention_heads": config.num_attention_heads,
        "intermediate_size": config.intermediate_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": len(tokenizer),
        "lower_case": tokenizer.do_lower_case,
        "max_seq_length": max_seq_length,
        "heads": list(heads),
        "fill_mask": isinstance(model, (BertForMaskedLM, BertForPreTraining)),
        "pooling": list(recipe.pooling),
        "maps": len(recipe.dense),
        "normalize": recipe.normalize,
        "prompts": sorted({**recipe.family_prompts, **recipe.prompts}),
        "document_prompt": recipe.first_prompt(DOCUMENT),
        "pooling_source": recipe.refusal or recipe.source,
        "dimension": dimension,
        "dtype": str(model.dtype).removeprefix("torch."),
        "dtype_reason": dtype_reason,
        "device": str(model.device),
    }


def lines_of(info: dict[str, Any], missing_mlm: Sequence[str]) -> str:
    """The facts of `summarize` as lines to print; `missing_mlm` names the tensors that the masked-LM head lacks."""
    pooling = " + ".join(info["pooling"]) + ", mapped" * bool(info["maps"]) + ", normalized" * info["normalize"]
    reason = f", chosen since {info['dtype_reason']}" if info["dtype_reason"] else ""
    headless = "no: the checkpoint has no masked-LM head"
    if 0 < len(missing_mlm) < len(MLM_TENSORS):
        headless = f"no: of the masked-LM head, the checkpoint lacks {', '.join(missing_mlm)}"
    prompts = ", ".join(info["prompts"])
    if info["document_prompt"] not in (None, DOCUMENT[0]):  # sentence-transformers' lack of "document" is empty
        prompts += f"; encode_document uses {info['document_prompt']!r}, sentence-transformers none"
    rows = {
        "source": info["source"],
        "shape": f"{info['layers']} layers, hidden size {info['hidden_size']}, {info['attention_heads']} heads, "
        f"{info['parameters'] / 1e6:.1f} million parameters",
        "vocabulary": f"{info['vocabulary']:,} tokens, {'lower-cased' if info['lower_case'] else 'cased'}",
        "heads": ", ".join(info["heads"]) or "none",
        "fill_mask": "yes" if info["fill_mask"] else headless,
        "pooling": f"{pooling} ({info['pooling_source']}), vectors of {info['dimension']}",
        **({"prompts": prompts} if prompts else {}),
        "longest": f"{info['max_seq_length']} tokens",
        "dtype": f"{info['dtype']} on {info['device']}{reason}",
        **({"edited at": ", ".join(info["edits"])} if info["edits"] else {}),
    }
    return "\n".join(["Bert", *(f"  {name:<11} {value}" for name, value in rows.items())])
