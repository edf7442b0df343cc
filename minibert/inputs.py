"""The inputs of a model, checked once, before anything is computed."""

from __future__ import annotations

from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from minibert.embeddings import Embeddings
from minibert.errors import MinibertError


class Ignored(TypedDict, total=False):
    """What training loops pass to any model. `pretrained.arguments.FORWARD` says which values are accepted."""

    return_dict: Literal[True] | None
    use_cache: bool | None
    past_key_values: None
    encoder_hidden_states: None
    encoder_attention_mask: None


class Asked(Ignored, total=False):
    """Vectors in place of ids, and further results; the configuration decides on results that are left out."""

    inputs_embeds: Tensor | None
    output_hidden_states: bool | None
    output_attentions: bool | None


def check_inputs(
    embeddings: Embeddings,
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    inputs_embeds: Tensor | None = None,
) -> Tensor:
    """Reject inputs that do not fit the model or each other; a wrong shape could broadcast, and give wrong numbers.

    Returns:
        `input_ids`, or the `inputs_embeds` in their place.

    Raises:
        MinibertError: a shape, a dtype or an id that does not fit.
    """
    given = "input_ids" if inputs_embeds is None else "inputs_embeds"
    tokens = check_ids_shape(input_ids) if inputs_embeds is None else check_vectors(embeddings, inputs_embeds)
    if tokens is inputs_embeds and input_ids is not None:
        raise MinibertError("input_ids must be None where inputs_embeds are given; leave out one of them")
    shape = tuple(tokens.shape[:2])
    if shape[1] == 0:
        raise MinibertError(
            f"{given} shape {shape} must hold at least one token; even an empty text has [CLS] and [SEP]"
        )
    others = {"attention_mask": attention_mask, "token_type_ids": token_type_ids, "position_ids": position_ids}
    for name, tensor in others.items():
        if tensor is not None and not isinstance(tensor, Tensor):
            raise MinibertError(f"{name} ({type(tensor).__name__}) must be a tensor; pass torch.tensor({name})")
    for name, tensor in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
        if tensor is not None and tuple(tensor.shape) != shape:
            raise MinibertError(
                f"{name} shape {tuple(tensor.shape)} must equal that of {given} {shape}; pad both alike"
            )
    if position_ids is not None and tuple(position_ids.shape) not in (shape, (1, shape[1])):
        raise MinibertError(f"position_ids shape {tuple(position_ids.shape)} must equal that of {given} {shape}")
    if (
        attention_mask is not None
        and (attention_mask.is_floating_point() or attention_mask.is_complex())
        # PEFT makes a mask of zeros and ones in float, for the vectors that it puts before texts
        and (inputs_embeds is None or not ((attention_mask == 0) | (attention_mask == 1)).all())
    ):
        raise MinibertError(
            f"attention_mask dtype ({attention_mask.dtype}) must be bool or integer, 1 = a real token; "
            "pass attention_mask.bool() if it holds zeros and ones"
        )
    if tokens is input_ids:
        check_ids(tokens, embeddings.token, "input_ids", "vocab_size")
    if token_type_ids is not None:
        check_ids(token_type_ids, embeddings.token_type, "token_type_ids", "type_vocab_size")
    if position_ids is not None:
        check_ids(position_ids, embeddings.position, "position_ids", "max_position_embeddings")
    return tokens


def check_ids_shape(input_ids: Tensor | None) -> Tensor:
    """Reject ids that are no batch of texts."""
    if not isinstance(input_ids, Tensor):
        raise MinibertError(
            f"input_ids ({type(input_ids).__name__}) must be a tensor; pass return_tensors='pt' to the tokenizer"
        )
    if input_ids.ndim != 2:
        raise MinibertError(
            f"input_ids shape {tuple(input_ids.shape)} must be (batch, sequence); add the batch with input_ids[None]"
        )
    return input_ids


def check_vectors(embeddings: Embeddings, inputs_embeds: Tensor) -> Tensor:
    """Reject vectors that cannot take the place of those in the token table."""
    if not isinstance(inputs_embeds, Tensor):
        raise MinibertError(f"inputs_embeds ({type(inputs_embeds).__name__}) must be a tensor; or pass input_ids")
    size, dtype = embeddings.position.embedding_dim, embeddings.position.weight.dtype
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[-1] != size:
        raise MinibertError(
            f"inputs_embeds shape {tuple(inputs_embeds.shape)} must be (batch, sequence, {size}), a vector for each "
            "token; to pass token ids, use input_ids"
        )
    if not inputs_embeds.is_floating_point() or torch.promote_types(inputs_embeds.dtype, dtype) != dtype:
        raise MinibertError(
            f"inputs_embeds dtype ({inputs_embeds.dtype}) must be that of the model ({dtype}); pass "
            "inputs_embeds.to(model.dtype)"
        )
    return inputs_embeds


def check_ids(ids: Tensor, table: nn.Embedding, name: str, rule: str) -> None:
    """Reject ids that are not integers or, on the CPU, that have no row in the table."""
    if ids.dtype not in (torch.int64, torch.int32):
        raise MinibertError(f"{name} dtype ({ids.dtype}) must be torch.int64 or torch.int32; pass {name}.long()")
    if ids.numel() and is_at_hand(ids):
        low, high = (int(bound) for bound in ids.aminmax())
        size = len(table.weight)  # PEFT's tables have no num_embeddings
        if low < 0 or high >= size:
            wrong = low if low < 0 else high
            raise MinibertError(
                f"{name} ({wrong}) must be at least 0 and less than {rule} ({size}); "
                "use the tokenizer and the model of the same checkpoint"
            )


def to_mask(attention_mask: Tensor | None) -> Tensor | None:
    """The mask as bool; None where nothing is padding, since the kernel without a mask is faster."""
    if attention_mask is None:
        return None
    mask = attention_mask != 0
    return None if is_at_hand(mask) and mask.all() else mask


def is_at_hand(tensor: Tensor) -> bool:
    """Whether values can be read without waiting for a device that is still computing."""
    return tensor.device.type == "cpu"
