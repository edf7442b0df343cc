"""What a step of training is made of, and the forms it could have: the measurements that `minibert.training` rests on.

    python benchmarks/step.py --data FOLDER [--rounds 5] [--save NAME]

Steps of 32 texts in random order: forward, backward, clipping and AdamW, with the weights of all-MiniLM-L6-v2, for the
questions of TREC (short) and those of Banking77 (longer). Three tables: forms of the step; the shares of a step in the
form that was chosen; forms of attention, forward and backward in 6 layers, which is part of the step.
"""

from __future__ import annotations

import argparse
import statistics
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
import training
from torch import Tensor, nn
from torch.nn import functional as F

import minibert
from minibert.attention import Packed
from minibert.training.fast import FastOperations
from minibert.training.objectives import TextLabels
from minibert.training.packed import Batches, Example
from minibert.training.vocabulary import CompactTable

BATCHES, LAYERS, HEADS, SIZE = 5, 6, 12, 32
COLUMNS = {"work": ("work", ""), "dropout": ("dropout", ""), "form": ("form", ""), "milliseconds": ("ms", ".1f")}
Step = Callable[[Sequence[Example]], None]


def batches_of(work: str, data: Path) -> tuple[list[Example], int]:
    """The examples of all batches, and the number of labels."""
    texts, labels, count = training.numbered(training.read(work, data))
    ids = minibert.BertTokenizer.from_pretrained(training.REAL)(texts[: BATCHES * training.BATCH])["input_ids"]
    return [Example((np.array(row),), label) for row, label in zip(ids, labels, strict=False)], count


def padded(model: Any, examples: Sequence[Example]) -> Tensor:
    """The loss of a batch as tensors with padding."""
    rows = [torch.from_numpy(example.rows[0]) for example in examples]
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    loss: Tensor = model(ids, attention_mask=mask, labels=torch.tensor([example.labels for example in examples])).loss
    return loss


def packed(model: Any, examples: Sequence[Example]) -> Tensor:
    """The loss of a batch without padding."""
    objective = TextLabels()
    return objective.loss(model, objective.outputs(model, examples), examples, objective.counts(examples))


class Form:
    """A model that trains in one of the forms.

    Args:
        labels, dropout: of the model.
        loss: of a batch.
        context: the step runs under it.
        table: the examples of a compact token table.
        dtype: of the weights; if it is not float32, the optimizer has a float32 copy.
    """

    def __init__(
        self,
        labels: int,
        dropout: float,
        loss: Callable[[Any, Sequence[Example]], Tensor],
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
        table: list[Example] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        self.model: Any = minibert.BertForSequenceClassification.from_pretrained(
            training.REAL, num_labels=labels, **rates
        ).train()
        self.table = CompactTable(self.model.bert, table) if table else None
        self.loss, self.context = loss, context
        self.masters = [p.detach().clone().requires_grad_() for p in self.model.parameters()]
        self.model.to(dtype)
        self.weights = list(self.model.parameters())
        self.own = dtype == torch.float32
        self.trained = self.weights if self.own else self.masters
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-5, fused=True)

    def backward(self, examples: Sequence[Example]) -> None:
        """Forward and backward."""
        self.model.zero_grad()
        with self.context():
            loss = self.loss(self.model, examples)
            loss.backward()  # type: ignore[no-untyped-call]

    def clip(self) -> None:
        """Clip the gradients."""
        nn.utils.clip_grad_norm_(self.trained, 1.0)

    def step(self, examples: Sequence[Example]) -> None:
        """A whole step."""
        self.backward(examples)
        if self.own:
            self.clip()
            self.optimizer.step()
            return
        for master, weight in zip(self.masters, self.weights, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
        self.clip()
        self.optimizer.step()
        with torch.no_grad():
            for master, weight in zip(self.masters, self.weights, strict=True):
                weight.copy_(master)


def forms(examples: list[Example], labels: int, dropout: float) -> dict[str, tuple[Form, list[Example]]]:
    """All forms of a step, each with its examples."""
    bfloat16 = partial(torch.autocast, "cpu", torch.bfloat16)
    made = {
        "padded": Form(labels, dropout, padded),
        "packed": Form(labels, dropout, packed),
        "packed, oneDNN": Form(labels, dropout, packed, FastOperations),
        "packed, oneDNN, compact table": Form(labels, dropout, packed, FastOperations, examples),
        "packed, compact table, bfloat16 by autocast": Form(labels, dropout, packed, bfloat16, examples),
        "packed, compact table, bfloat16 weights, float32 copy": Form(
            labels, dropout, packed, table=examples, dtype=torch.bfloat16
        ),
    }
    return {name: (form, form.table.examples if form.table else examples) for name, form in made.items()}


def each(action: Callable[[Sequence[Example]], object], examples: list[Example]) -> None:
    """Do it for each batch."""
    for i in range(BATCHES):
        action(examples[i * training.BATCH : (i + 1) * training.BATCH])


def with_padding(lengths: list[int], q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """Attention of packed tokens, scattered to padded tensors with a mask."""
    splits = [nn.utils.rnn.pad_sequence(list(x.split(lengths)), batch_first=True).transpose(1, 2) for x in (q, k, v)]
    real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    mixed = F.scaled_dot_product_attention(*splits, attn_mask=real[:, None, None], dropout_p=dropout)
    return mixed.transpose(1, 2)[real]


def in_buckets(lengths: list[int], q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """The same in groups of texts whose lengths have the same multiple of 8 above them."""
    groups = [list(group) for _, group in groupby(lengths, lambda length: -(-length // 8))]
    parts = [x.split([sum(group) for group in groups]) for x in (q, k, v)]
    return torch.cat([with_padding(group, *part, dropout) for group, *part in zip(groups, *parts, strict=True)])


Projected = tuple[list[int], list[Tensor]]


def projected(examples: Sequence[Example]) -> Projected:
    """The lengths of a batch, the longest first, and random queries, keys and values."""
    lengths = sorted((example.tokens for example in examples), reverse=True)
    return lengths, [torch.randn(sum(lengths), HEADS, SIZE, requires_grad=True) for _ in range(3)]


def in_groups(lengths: list[int], q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """The same in groups of texts of equal length, without padding."""
    return Packed(lengths).attend(q, k, v, dropout)


def in_batches(lengths: list[int], q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    """The same in batches of similar lengths: the form that was chosen."""
    return Batches(lengths, q.device).attend(q, k, v, dropout)


ATTENTIONS = {
    "groups of equal length": in_groups,
    "padded": with_padding,
    "buckets of 8 tokens": in_buckets,
    "batches of similar lengths": in_batches,
}


def attend(form: str, dropout: float, batches: Sequence[Projected]) -> None:
    """Attention of batches, forward and backward, in all layers."""
    for lengths, (q, k, v) in batches:
        for _ in range(LAYERS):
            with FastOperations():
                mixed = ATTENTIONS[form](lengths, q, k, v, dropout)
            torch.autograd.grad(mixed, (q, k, v), torch.ones_like(mixed))


def main() -> None:
    """Measure, print the tables and save them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--rounds", type=int, default=5)
    measure.add_output(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(measure.machine_line())
    tables: dict[str, list[dict[str, Any]]] = {"forms": [], "shares": [], "attention": []}

    def note(table: str, work: str, dropout: float, runs: dict[str, Callable[[], object]]) -> None:
        for form, seconds in measure.alternate(runs, options.rounds).items():
            milliseconds = 1_000 * statistics.median(seconds) / BATCHES
            tables[table].append({"work": work, "dropout": dropout, "form": form, "milliseconds": milliseconds})

    for work in ("trec", "banking77"):
        examples, labels = batches_of(work, options.data)
        for dropout in (0.0, 0.1):
            made = forms(examples, labels, dropout)
            note("forms", work, dropout, {name: partial(each, form.step, own) for name, (form, own) in made.items()})
            form, own = made["packed, oneDNN, compact table"]
            shares: dict[str, Callable[[], object]] = {
                "forward and backward": partial(each, form.backward, own),
                "clipping": partial(each, lambda _, form=form: form.clip(), own),
                "optimizer": partial(each, lambda _, form=form: form.optimizer.step(), own),
            }
            note("shares", work, dropout, shares)
            inputs = [projected(examples[i * training.BATCH : (i + 1) * training.BATCH]) for i in range(BATCHES)]
            note("attention", work, dropout, {name: partial(attend, name, dropout, inputs) for name in ATTENTIONS})
    for rows in tables.values():
        print(measure.table(rows, COLUMNS), flush=True)
    measure.write_json(options, **tables)


if __name__ == "__main__":
    main()
