"""The demo that `minibert demo` prints: matching questions, a word in context, filled masks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from minibert.bert import Bert
from minibert.loading import load
from minibert.tasks.fill_mask import Candidate

ANSWERED = {
    "How do I reset my password?": "Choose 'Forgot password' on the sign-in page; we send you a link.",
    "How can I cancel my order?": "Orders can be cancelled under 'My orders' until they are shipped.",
    "When will my parcel arrive?": "Parcels take two to four working days; the tracking link is in your mail.",
    "Which payment methods do you accept?": "Credit card, bank transfer and invoice.",
    "How do I return something I bought?": "Within 30 days; the return label is in the box.",
    "How do I change my delivery address?": "Under 'My account', 'Addresses', as long as the order is not shipped.",
}
CUSTOMERS = (
    "I can't log in any more, what now?",
    "my package still hasn't come",
    "These shoes are too small. I'd like to return them.",
    "Do you take Visa?",
    "we have moved house, please ship to our new home",
)
BANK = (
    "He robbed the bank and fled with the money.",
    "She opened an account at the bank.",
    "They sat on the grassy bank of the river.",
)
MASKED = ("Hello I'm a [MASK] model.", "The capital of France is [MASK].")


def demo(name_or_folder: str) -> Iterator[str]:
    """Yield the lines of the demo, each as soon as it is ready.

    Raises:
        FileNotFoundError, PermissionError, ConnectionError, MinibertError: as for `load`.
    """
    timer = Timer()
    yield f"Loading {name_or_folder} ..."
    with timer("load"):
        bert = load(name_or_folder)
    yield f"{bert!r}"
    yield ""
    yield "1. Customers' questions, each matched to the nearest of six answered ones (cosine)"
    with timer("match"):
        lines = list(_match(bert))
    yield from lines
    yield ""
    yield "2. One word in three contexts: cosines of the vectors of 'bank' (a static table has one vector for all)"
    with timer("words"):
        lines = list(_bank(bert))
    yield from lines
    if bert.info()["fill_mask"]:
        yield ""
        yield "3. Predictions for [MASK]"
        with timer("fill"):
            lines = list(_fill(bert))
        yield from lines
    yield ""
    yield f"Weights from {bert.source}"
    yield "Time: " + ", ".join(f"{step} {seconds:.2f} s" for step, seconds in timer.seconds.items())


def _match(bert: Bert) -> Iterator[str]:
    known = list(ANSWERED)
    similarity = (
        bert.encode(CUSTOMERS, normalize_embeddings=True) @ bert.encode(known, normalize_embeddings=True).T
    )  # (customers, known)
    for question, row in zip(CUSTOMERS, similarity, strict=True):
        best = int(row.argmax())
        yield f"   {question}"
        yield f"     {row[best]:.2f}  {known[best]}"
        yield f"           {ANSWERED[known[best]]}"


def _bank(bert: Bert) -> Iterator[str]:
    encoded = bert.tokenizer(list(BANK), padding=True, return_tensors="pt").to(bert.model.device)
    outputs = bert.encoder(**encoded, output_hidden_states=True)
    layers = sum(outputs.hidden_states[-4:]).detach().float()  # the sum of the last four layers, (B, S, H)
    if any("bank" not in encoded.tokens(i) for i in range(len(BANK))):
        yield "   skipped: 'bank' is not a single token in the vocabulary of this checkpoint"
        return
    vectors = [layers[i, encoded.tokens(i).index("bank")] for i in range(len(BANK))]
    for i, text in enumerate(BANK):
        yield f"   {'abc'[i]}  {text}"
    for i, j in ((0, 1), (0, 2), (1, 2)):
        cosine = float(vectors[i] @ vectors[j] / (vectors[i].norm() * vectors[j].norm()))
        yield f"     {cosine:.2f}  {'abc'[i]} and {'abc'[j]}: {'the same sense' if j < 2 else 'another sense'}"


def _fill(bert: Bert) -> Iterator[str]:
    for text, candidates in zip(MASKED, bert.fill_mask(MASKED), strict=True):
        yield f"   {text}"
        yield "     " + ", ".join(
            f"{one.token} {one.probability:.3f}" for one in candidates if isinstance(one, Candidate)
        )


class Timer:
    """Measures the seconds of named steps."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time a block."""
        start = time.perf_counter()
        yield
        self.seconds[step] = time.perf_counter() - start
