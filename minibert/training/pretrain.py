"""Pretraining: a model learns a language, or a domain of it, by predicting masked words of plain text."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from minibert.bert import Bert
from minibert.config import BertConfig
from minibert.errors import MinibertError, optional, warn
from minibert.loading import load
from minibert.model import BertForMaskedLM, BertForPreTraining
from minibert.pretrained.files import place, write_text
from minibert.records import parsed_json
from minibert.text import counted, whole_number
from minibert.tokenizer import BertTokenizer
from minibert.training.fast import fast_operations
from minibert.training.masking import Masking
from minibert.training.objectives import MaskedTokens
from minibert.training.order import Epochs
from minibert.training.packed import Example, Ids, parts_of
from minibert.training.processes import first_before_others, is_first, join, wait
from minibert.training.run import History, claim, draw_curve, finish, folder_of, is_finished, run_in_folder
from minibert.training.sequences import Sequences, digest_of, lines_of, new_vocabulary, tokenized
from minibert.training.settings import Settings, as_float
from minibert.vectors.fingerprint import facts

# Layers and hidden size; a head has 64 dimensions, the feed-forward network 4 H.
# Source: Turc et al. 2019, "Well-Read Students Learn Better", table 1.
SIZES = {"tiny": (2, 128), "mini": (4, 256), "small": (4, 512), "base": (12, 768)}
HELD_OUT_ROWS = 256  # rows of the texts that are kept for evaluation if no file is named for it
SENTENCES = 4  # filled before and after


@dataclass(frozen=True)
class Pretraining:
    """What pretraining gives.

    Attributes:
        bert: the trained model.
        metrics: `loss` (nats per masked token) and `accuracy` on the held-out rows, masked at 15 %.
        history: the steps and evaluations.
        filled: held-out sentences with one word masked; the words that the model filled in before, and after.
    """

    bert: Bert
    metrics: Mapping[str, float]
    history: History
    filled: list[tuple[str, list[str], list[str]]]


def pretrain(
    files: Sequence[str | Path],
    output: str | Path,
    *,
    size: str | Path | None = None,
    model: str | Path | None = None,
    held_out: Sequence[str | Path] = (),
    vocabulary: str | Path | None = None,
    vocab_size: int = 30_522,
    cased: bool = False,
    length: int = 128,
    mask_rate: float = 0.15,
    whole_words: bool = False,
    epochs: float = 1.0,
    batch_size: int = 32,
    learning_rate: float | None = None,
    seed: int = 0,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    save_every: int = 500,
    evaluate_every: int = 500,
    show_progress_bar: bool | None = None,
) -> Pretraining:
    """Train a masked-LM model on text files, from a random start or from a checkpoint.

    The same call again resumes an interrupted run.

    Args:
        files: UTF-8 text, a document each. No row of tokens crosses from one to the next.
        output: a folder, new or empty. The model goes into it; its state, `losses.csv` and the curve into its subfolder
            `training`.
        size: of a new model: "tiny", "mini", "small", "base", or a `config.json`; "tiny" when None. Its
            vocabulary is learned from the files, unless one is given.
        model: a checkpoint to continue from, in place of a new model. If it lacks a masked-LM head, it gets a new one.
        held_out: files to evaluate on; if there are none, every hundredth row, up to 256, is kept from training.
        vocabulary: a checkpoint whose tokenizer a new model gets.
        vocab_size: tokens of a vocabulary that is learned.
        cased: whether that vocabulary keeps capitals. It keeps accents in any case.
        length: tokens of a row.
        mask_rate, whole_words: as for `Masking`; evaluation always masks single tokens, 15 % of them.
        epochs: how often each row is seen, each time with other masks.
        batch_size: rows of a step.
        learning_rate: the highest; when None, 1e-3 from a random start, 5e-5 from a checkpoint.
        seed: of the start, the order, the masks and dropout.
        dtype: as for `Settings`.
        device: of the model: "cpu", "cuda", "mps", ...
        save_every, evaluate_every: in steps.
        show_progress_bar: None shows it where a person watches.

    Raises:
        FileNotFoundError: a file is missing.
        MinibertError: a file is no text, or holds nothing; both a size and a model are given; the folder has a run with
            other data or settings.
        ImportError: matplotlib, which draws the curve, is not installed.
    """
    optional("matplotlib", "the curve of a training run", "matplotlib")
    join()
    for name, value in (("size", size), ("vocabulary", vocabulary)):
        if value is not None and model is not None:
            raise MinibertError(f"{name} ({value}) must not be given with model ({model}); a checkpoint has its own")
    folder = folder_of(output)
    for name, count in (("vocab_size", vocab_size), ("length", length), ("batch_size", batch_size)):
        whole_number(name, count)
    for name, count in (("save_every", save_every), ("evaluate_every", evaluate_every)):
        whole_number(name, count)
    settings = Settings(
        steps=1,
        learning_rate=(1e-3 if model is None else 5e-5) if learning_rate is None else learning_rate,
        seed=seed,
        dtype=dtype,  # type: ignore[arg-type]
    )
    if not 0 < as_float(epochs) < math.inf:
        raise MinibertError(f"epochs ({epochs!r:.40}) must be a number above 0; 1 is usual")
    paths, others = [Path(file) for file in files], [Path(file) for file in held_out]
    if not paths:
        raise MinibertError("files ([]) must name at least one text file to learn from")
    digest, held_out_digest = digest_of(paths), digest_of(others)
    claim(folder)
    with torch.random.fork_rng([]), first_before_others():
        torch.manual_seed(seed)
        trained = _start(
            model, size or "tiny", vocabulary, paths, digest, vocab_size, cased, length, folder / "training"
        )
    trained.model.to(device)
    tokenizer, most = trained.tokenizer, trained.config.max_position_embeddings
    if not 3 <= length <= most:
        raise MinibertError(f"length ({length}) must be 3 to {most} tokens, [CLS] and [SEP] included; 128 is usual")
    masking = Masking.of(tokenizer, mask_rate, whole_words, trained.config.vocab_size)
    ends = tokenizer.cls_token_id, tokenizer.sep_token_id

    def rows_of(paths: Sequence[Path], digest: str, name: str) -> Sequences:
        where = folder / "training" / f"{name}.bin"
        with first_before_others():
            tokens = tokenized((lines_of(path) for path in paths), digest, tokenizer, where)
        return Sequences(*tokens, length, *ends)

    text = rows_of(paths, digest, "tokens")
    unknown = _unknown(text.tokens, tokenizer.unk_token_id)
    if unknown > 0.01:
        warn(
            f"{unknown:.1%} of the tokens of the text are {tokenizer.unk_token}, of which nothing can be learned; "
            "choose a larger vocab_size, or a vocabulary of its language"
        )
    rows: Sequence[Any] = text
    if others:
        kept: Sequence[Any] = rows_of(others, held_out_digest, "held_out")
        numbers: Sequence[int] = range(len(rows))
    else:
        step = min(max(100, len(rows) // HELD_OUT_ROWS), len(rows))
        apart = range(step // 2, len(rows), step)
        kept = [rows[i] for i in apart]
        numbers = [i for i in range(len(rows)) if i not in apart]
        if not numbers:
            raise MinibertError(f"the texts (of one row of {length} tokens) must give two; add text, or pass held_out")
    evaluated = _masked_once(kept, Masking.of(tokenizer, size=trained.config.vocab_size))
    order = Epochs(numbers, batch_size, seed)
    settings = replace(settings, steps=max(1, round(epochs * order.steps)))

    def batch(number: int) -> list[Example]:
        random = np.random.default_rng([seed, number, 1])
        return [masking(rows[i], random) for i in order(number)]

    sentences = _sentences(kept, tokenizer)
    before = [_words(trained, sentence) for sentence in sentences]
    network = trained.model
    try:
        history = run_in_folder(
            network,
            batch,
            MaskedTokens(),
            settings,
            folder / "training",
            identity={
                "files": digest,
                "held out": held_out_digest,
                "model": facts(trained) if model else trained.config.to_dict(),
                "vocabulary": hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest(),
                "masking": {"rate": mask_rate, "whole words": whole_words},
                "rows": {"length": length, "batch": batch_size},
            },
            save_every=save_every,
            evaluate=lambda _: masked_loss(network, evaluated),
            evaluate_every=evaluate_every,
            describe=lambda example: tokenizer.decode(example.rows[0].tolist()),
            said=(
                f"{counted(len(text.tokens), 'token')}, {unknown:.2%} of them {tokenizer.unk_token}, "
                f"{counted(len(numbers), 'row')}"
            ),
            show_progress_bar=show_progress_bar,
        )
    except (KeyboardInterrupt, MinibertError):
        with suppress(OSError, ValueError):  # the error is what counts
            draw_curve(folder / "training", "loss")
        raise
    after = [_words(trained, sentence) for sentence in sentences]
    metrics = {name: value for name, value in history.evaluations[-1].items() if name != "step"}
    if not is_finished(folder) and is_first():  # of several processes, one writes
        draw_curve(folder / "training", "loss")
        trained.save_pretrained(folder)
        write_text(folder / "training" / "result.json", json.dumps(metrics, indent=2) + "\n")
        finish(folder)
    wait()
    return Pretraining(trained, metrics, history, list(zip(sentences, before, after, strict=True)))


def _unknown(tokens: Ids, unknown: int) -> float:
    """The share of unknown tokens."""
    size = 2**20  # of a part, since the file may be larger than the memory
    found = sum(int((tokens[start : start + size] == unknown).sum()) for start in range(0, len(tokens), size))
    return found / len(tokens)


@torch.no_grad()
def masked_loss(model: Any, examples: Sequence[Example], part_tokens: int = 4_096) -> dict[str, float]:
    """The mean loss of masked tokens in nats, and the part of them that the model predicts, without dropout."""
    model.eval()
    objective = MaskedTokens()
    loss = right = 0.0
    (count,) = objective.counts(examples)
    with fast_operations(model.device):
        for part in parts_of(examples, part_tokens):
            logits = objective.outputs(model, part).float()
            labels = np.concatenate([example.labels for example in part])
            targets = torch.from_numpy(labels[labels >= 0]).to(logits.device)
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            right += int((logits.argmax(-1) == targets).sum())
    return {"loss": loss / count, "accuracy": right / count}


def _start(
    model: str | Path | None,
    size: str | Path,
    vocabulary: str | Path | None,
    paths: Sequence[Path],
    digest: str,
    vocab_size: int,
    cased: bool,
    length: int,
    folder: Path,
) -> Bert:
    """The model to begin with: a checkpoint's, or a new one with a vocabulary learned from the files."""
    if model is not None:
        bert = load(model, dtype="float32")
        if isinstance(bert.model, (BertForMaskedLM, BertForPreTraining)):
            return bert
        network = BertForMaskedLM(bert.config)
        network.bert.load_state_dict(bert.encoder.state_dict(), strict=False)  # all but the pooler
        return Bert(network.eval(), bert.tokenizer, bert.recipe)
    config = _config(size, length)
    kept = folder / f"vocabulary-{digest[:8]}-{vocab_size}{'-cased' * cased}"
    if vocabulary is None and place(kept, "tokenizer.json") is None:
        learned = new_vocabulary(
            lambda: (line for path in paths for line in lines_of(path)), vocab_size, lower_case=not cased
        )
        learned.save_pretrained(kept)
    tokenizer = BertTokenizer.from_pretrained(vocabulary or kept)
    tokenizer.model_max_length = config.max_position_embeddings
    return Bert(BertForMaskedLM(config.replace(vocab_size=len(tokenizer))).eval(), tokenizer)


def _config(size: str | Path, length: int) -> BertConfig:
    if str(size) not in SIZES:
        path = Path(size)
        if not path.is_file():
            raise MinibertError(f"size ({size}) must be one of {', '.join(SIZES)}, or a config.json that exists")
        try:
            return BertConfig.from_dict(parsed_json(path.read_bytes(), str(path)))
        except (ValueError, TypeError, AttributeError) as error:
            raise MinibertError(f"size ({size}) must be a config.json of a BERT ({error}); correct it") from None
    layers, hidden = SIZES[str(size)]
    return BertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        max_position_embeddings=max(512, length),
    )


def _masked_once(rows: Sequence[Any], masking: Masking) -> list[Example]:
    """At most `HELD_OUT_ROWS` rows, evenly spread, always with the same masks."""
    random = np.random.default_rng(0)
    step = -(-len(rows) // HELD_OUT_ROWS)
    return [masking(rows[i], random) for i in range(0, len(rows), step)]


def _sentences(rows: Sequence[Any], tokenizer: BertTokenizer) -> list[str]:
    """A few sentences of the rows, each with its last longer word masked."""
    found = []
    for i in range(0, len(rows), max(1, len(rows) // (4 * SENTENCES))):
        text = tokenizer.decode(rows[i], skip_special_tokens=True)
        for sentence in text.split(".")[1:-1]:
            words = sentence.split()
            long = [j for j, word in enumerate(words) if len(word) > 3 and word.isalpha()]
            if 8 <= len(words) <= 20 and long:
                words[long[-1]] = tokenizer.mask_token
                found.append(" ".join(words) + ".")
                break
    return found[:SENTENCES]


def _words(bert: Bert, sentence: str) -> list[str]:
    """The three words that a model puts at the mask."""
    return [candidate.token for candidate in bert.fill_mask(sentence, top_k=3)]  # type: ignore[union-attr]
