"""Published measurements of attention and hidden states, computed again and compared."""

from __future__ import annotations

import ast
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert.attention import Padded
from minibert.bert import Bert
from minibert.engine.device import check_fork, without_autocast
from minibert.errors import MinibertError
from minibert.model import BertForMaskedLM, BertForPreTraining, BertModel
from minibert.study.attribution import float32_copy

BASE_SHAPE = (12, 12, 768)  # layers, heads, hidden size
GOLDBERG = "Goldberg 2019"  # yoavg/bert-syntax, commit a9fa1ac8
ABNAR = "Abnar and Zuidema 2020"  # samiraabnar/attention_flow, commit 8044f531, bert_example.ipynb
ETHAYARAJH = "Ethayarajh 2019"  # kawine/contextual, commit c10c992a
CLARK = "Clark et al. 2019"  # clarkkev/attention-analysis, commit b609cfc8

AGREEMENT_FILE = "agreement/gulordava_results_base.txt"
RIGHT = {"all": (319, 383), "0": (260, 311), "1": (51, 63), "2": (8, 9)}  # by number of attractors
LOGIT_TOLERANCE = 1e-3
PRONOUN_TEXT = "The author talked to Sara about [MASK] book"
PRONOUNS = {"his": 0.07, "her": 0.1019, "author": 5.9873e-06, "sara": 5.9435e-07}
PRONOUN_TOLERANCE = 5e-3  # of the value: three digits
# bert-base-cased on sentences of STS 2012 to 2016, the embeddings and layers 1 to 12
STS_FILES = ("stsb/sts-train.csv", "stsb/sts-dev.csv")
STS_SENTENCES = 3_000
RANDOM_COSINE = (0.105, 0.168, 0.219, 0.245, 0.327, 0.377, 0.42, 0.398, 0.399, 0.484, 0.561, 0.675, 0.477)
SELF_SIMILARITY = (0.954, 0.921, 0.871, 0.823, 0.798, 0.781, 0.765, 0.744, 0.731, 0.754, 0.782, 0.839, 0.755)
NORM = (18.908, 22.301, 22.518, 22.145, 22.825, 23.946, 24.971, 24.58, 24.474, 26.191, 27.291, 29.419, 14.2)
COSINE_TOLERANCE = 0.03
NORM_TOLERANCE = 0.05  # of the value; our sentences are only some of theirs
PUD_FILE = "ud_pud/en_pud-ud-test.conllu"
SEP_LAYERS = slice(5, 10)  # layers 6 to 10 of the paper
SEP_SHARE, SEP_TO_SEP = 0.5, 0.9
# Relation of the paper: ours in Universal Dependencies, layer, head, and accuracy on the Penn Treebank
PUBLISHED_HEADS = {
    "dobj": ("obj", 7, 9, 86.8),
    "det": ("det", 7, 10, 94.3),
    "pobj": ("case", 8, 5, 76.3),
    "poss": ("nmod:poss", 6, 5, 80.5),
    "prt": ("compound:prt", 5, 6, 99.1),
}
BEATING_OFFSETS = ("obj", "det", "nsubj", "aux")
OFFSETS = tuple(offset for offset in range(-10, 11) if offset)
DIRECTIONS = ("a word attends to its head", "a head attends to its word")


@dataclass(frozen=True)
class PublishedRow:
    """One measurement.

    Attributes:
        paper: where it was published.
        quantity: what is measured.
        published: the published value.
        ours: the value measured here; empty where the model or the data cannot give it.
        within: whether ours is within the tolerance; None where it cannot be judged.
        remark: the tolerance, or why there is no value or no verdict.
    """

    paper: str
    quantity: str
    published: str
    ours: str
    within: bool | None
    remark: str


@dataclass(frozen=True)
class PublishedReport:
    """The measurements; printing it prints the table.

    Attributes:
        source: the checkpoint.
        rows: one for each published value.
    """

    source: str
    rows: tuple[PublishedRow, ...]

    @property
    def ok(self) -> bool:
        """Whether no value is outside its tolerance."""
        return all(row.within is not False for row in self.rows)

    def __str__(self) -> str:
        verdicts = {True: "yes", False: "NO", None: "-"}
        table = [("paper", "quantity", "published", "ours", "within", "remark")]
        table += [(r.paper, r.quantity, r.published, r.ours or "-", verdicts[r.within], r.remark) for r in self.rows]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
        return "\n".join([self.source, "", *map(str.rstrip, lines)])

    __repr__ = __str__


def published(bert: Bert, data: str | Path | None = None) -> PublishedReport:
    """Measure what papers published about bert-base, and compare.

    Args:
        data: the folder that holds agreement/, ud_pud/ and stsb/; rows that need a file that is not there say so.
    """
    folder = None if data is None else Path(data)
    parts = (agreement_rows, pronoun_rows, geometry_rows, sep_rows, dependency_rows)
    return PublishedReport(str(bert.source), tuple(row for part in parts for row in part(bert, folder)))


def unfit(bert: Bert, cased: bool = False, masked: bool = False) -> str:
    """Why published values of bert-base cannot be compared with this model's; empty where they can."""
    config = bert.config
    shape = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size)
    name = f"bert-base-{'cased' if cased else 'uncased'}"
    if shape != BASE_SHAPE:
        return f"published for {name}; this model has another shape"
    if bert.tokenizer.do_lower_case == cased:
        return f"published for {name}; this model is {'un' if cased else ''}cased"
    if masked and not isinstance(bert.model, (BertForMaskedLM, BertForPreTraining)):
        return "the model has no masked-LM head"
    return ""


def missing(folder: Path | None, *names: str) -> str:
    """Why a file cannot be read; empty where it can."""
    absent = [name for name in names if folder is None or not (folder / name).is_file()]
    return f"needs {absent[0]} in the data folder" if absent else ""


def verdict(paper: str, quantity: str, published: float, ours: float, tolerance: float, style: str) -> PublishedRow:
    """A row of two numbers."""
    within = abs(ours - published) <= tolerance
    return PublishedRow(
        paper, quantity, format(published, style), format(ours, style), within, f"tolerance {tolerance:.3g}"
    )


# Agreement of subject and verb


class Agreement(NamedTuple):
    """A sentence with a masked verb.

    Attributes:
        text: the sentence, with [MASK].
        attractors: how many nouns of the other number stand between the subject and the verb.
        right, wrong: the two forms of the verb.
        logits: their published logits.
    """

    text: str
    attractors: int
    right: str
    wrong: str
    logits: tuple[float, float]


def read_agreement(path: Path) -> list[Agreement]:
    """The sentences of `yoavg/bert-syntax`; lines of another form are remarks."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(("True\t", "False\t")):
            _, attractors, right, a, wrong, b, sentence = line.split("\t")
            text = ast.literal_eval(sentence).decode().replace("***mask***", "[MASK]")
            found.append(Agreement(text, int(attractors), right, wrong, (float(a), float(b))))
    return found


@torch.inference_mode()
def agreement_logits(bert: Bert, sentences: Sequence[Agreement]) -> NDArray[np.float32]:
    """The masked-LM logits of the right and the wrong verb, (N, 2)."""
    check_fork()
    model = cast(Any, float32_copy(bert.model))
    table, logits = model.bert.embeddings.token.weight, []
    with without_autocast():
        for sentence in sentences:
            encoded = bert.tokenizer(sentence.text, return_tensors="pt").to(bert.model.device)
            [place] = (encoded["input_ids"][0] == bert.tokenizer.mask_token_id).nonzero().flatten().tolist()
            x = model.bert(encoded["input_ids"]).last_hidden_state[0, place]
            verbs = bert.tokenizer.convert_tokens_to_ids([sentence.right, sentence.wrong])
            logits.append(model.mlm_head(x, table)[verbs].float().cpu())
    return torch.stack(logits).numpy()


def agreement_rows(bert: Bert, folder: Path | None) -> list[PublishedRow]:
    """How often the right verb has the larger logit, and the logits themselves."""
    quantity = "subject and verb agree"
    reason = unfit(bert, masked=True) or missing(folder, AGREEMENT_FILE)
    if reason:
        rows = [
            PublishedRow(GOLDBERG, f"{quantity}, {name(key)}", f"{right}/{total}", "", None, reason)
            for key, (right, total) in RIGHT.items()
        ]
        return [*rows, PublishedRow(GOLDBERG, f"{quantity}, logits", "766 logits", "", None, reason)]
    sentences = read_agreement(cast(Path, folder) / AGREEMENT_FILE)
    logits = agreement_logits(bert, sentences)
    rows = []
    for key, (right, total) in RIGHT.items():
        own = [number for number, one in enumerate(sentences) if key in ("all", str(one.attractors))]
        found = int((logits[own, 0] > logits[own, 1]).sum())
        ours = f"{found}/{len(own)}"
        within = (found, len(own)) == (right, total)
        rows.append(PublishedRow(GOLDBERG, f"{quantity}, {name(key)}", f"{right}/{total}", ours, within, "exact"))
    difference = float(np.abs(logits - np.array([one.logits for one in sentences])).max())
    rows.append(
        PublishedRow(
            GOLDBERG,
            f"{quantity}, logits",
            f"{logits.size} logits",
            f"at most {difference:.2g} away",
            difference <= LOGIT_TOLERANCE,
            f"tolerance {LOGIT_TOLERANCE:g}",
        )
    )
    return rows


def name(attractors: str) -> str:
    """How many attractors, in words."""
    return attractors if attractors == "all" else f"{attractors} attractor{'s' * (attractors != '1')}"


def pronoun_rows(bert: Bert, folder: Path | None) -> list[PublishedRow]:
    """Probabilities at one [MASK]."""
    reason = unfit(bert, masked=True)
    quantities = {word: f'"{word}" at [MASK], probability' for word in PRONOUNS}
    if reason:
        return [PublishedRow(ABNAR, quantities[word], f"{p:.4g}", "", None, reason) for word, p in PRONOUNS.items()]
    found = {one.token: one.probability for one in bert.fill_mask(PRONOUN_TEXT, targets=list(PRONOUNS))}  # type: ignore[union-attr]
    return [
        verdict(ABNAR, quantities[word], p, found[word], PRONOUN_TOLERANCE * p, ".4g") for word, p in PRONOUNS.items()
    ]


# Words by layer


@dataclass(frozen=True)
class WordGeometry:
    """Words' vectors at each hidden state, (L + 1,) each.

    Attributes:
        random_cosine: the mean cosine of random words, each from a sentence of its own.
        self_similarity: the mean cosine of occurrences of the same word, over words with at least five.
        norm: the mean length.
        words: how many words `self_similarity` is over.
    """

    random_cosine: NDArray[np.float64]
    self_similarity: NDArray[np.float64]
    norm: NDArray[np.float64]
    words: int


def word_geometry(bert: Bert, texts: Sequence[str], least: int = 5, seed: int = 0) -> WordGeometry:
    """Measure words by layer; one random word of each text is taken for `random_cosine`.

    Raises:
        MinibertError: fewer than two texts with words, or no word that is frequent enough.

    Source: Ethayarajh 2019, sec. 3.2; not adjusted for anisotropy.
    """
    layers = len(bert.layers) + 1
    choice = random.Random(seed)
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    norms, total, sampled = np.zeros(layers), 0, np.zeros((layers, bert.config.hidden_size))
    texts_with_words = 0
    for start in range(0, len(texts), 100):
        for words in bert.words(list(texts[start : start + 100]), layers=list(range(layers)), combine="concat"):
            if not len(words.words):
                continue
            vectors = words.vectors.reshape(len(words.words), layers, -1).astype(np.float64)  # (words, L + 1, H)
            lengths = np.linalg.norm(vectors, axis=-1)
            norms += lengths.sum(0)
            total += len(vectors)
            vectors /= lengths[..., None].clip(1e-12)
            sampled += vectors[choice.randrange(len(vectors))]
            texts_with_words += 1
            for word, vector in zip(words.words, vectors, strict=True):
                sums[word] = sums[word] + vector if word in sums else vector
                counts[word] = counts.get(word, 0) + 1
    # the sum over pairs of unit vectors is the square of their sum, less the pairs of each with itself
    own = [
        ((sums[word] ** 2).sum(-1) - count) / (count * (count - 1)) for word, count in counts.items() if count >= least
    ]
    if texts_with_words < 2 or not own:
        raise MinibertError(f"texts ({len(texts)}) must hold words, and one of them {least} times; pass more")
    pairs = texts_with_words * (texts_with_words - 1)
    cosine = ((sampled**2).sum(-1) - texts_with_words) / pairs
    return WordGeometry(cosine, np.mean(own, axis=0), norms / total, len(own))


def read_sts(folder: Path) -> list[str]:
    """Different sentences of STS-B, in their order, the first of them."""
    lines = [line for file in STS_FILES for line in (folder / file).read_text(encoding="utf-8").splitlines()]
    sentences = dict.fromkeys(sentence for line in lines for sentence in line.split("\t")[5:7])
    return list(sentences)[:STS_SENTENCES]


def geometry_rows(bert: Bert, folder: Path | None) -> list[PublishedRow]:
    """Cosine, self-similarity and norm of words, layer by layer."""
    parts: tuple[tuple[str, tuple[float, ...], Callable[[WordGeometry], NDArray[np.float64]], float], ...] = (
        ("cosine of random words", RANDOM_COSINE, lambda found: found.random_cosine, 0),
        ("self-similarity of words", SELF_SIMILARITY, lambda found: found.self_similarity, 0),
        ("norm of words", NORM, lambda found: found.norm, NORM_TOLERANCE),
    )
    reason = unfit(bert, cased=True) or missing(folder, *STS_FILES)
    if reason:
        return [
            PublishedRow(ETHAYARAJH, f"{what}, layer {layer}", f"{value:.3f}", "", None, reason)
            for what, values, _, _ in parts
            for layer, value in enumerate(values)
        ]
    found = word_geometry(bert, read_sts(cast(Path, folder)))
    return [
        verdict(ETHAYARAJH, f"{what}, layer {layer}", value, ours, relative * value or COSINE_TOLERANCE, ".3f")
        for what, values, of, relative in parts
        for layer, (value, ours) in enumerate(zip(values, of(found).tolist(), strict=True))
    ]


# Attention


class Sentence(NamedTuple):
    """A parsed sentence.

    Attributes:
        text: as it was written.
        words: its words.
        heads: the number of each word's head, from 0; -1 for the root.
        relations: what each word is to its head.
    """

    text: str
    words: tuple[str, ...]
    heads: tuple[int, ...]
    relations: tuple[str, ...]


def read_conllu(lines: Iterable[str]) -> list[Sentence]:
    """The sentences of a CoNLL-U file; ranges of words and empty nodes are left out, as its rules have it."""
    sentences: list[Sentence] = []
    text, rows = "", []
    for line in [*lines, ""]:
        line = line.rstrip("\r\n")
        if line.startswith("# text = "):
            text = line.removeprefix("# text = ")
        elif line and not line.startswith("#"):
            fields = line.split("\t")
            if fields[0].isdigit():
                rows.append((fields[1], int(fields[6]) - 1, fields[7]))
        elif not line and rows:
            words, heads, relations = zip(*rows, strict=True)
            sentences.append(Sentence(text, words, heads, relations))
            text, rows = "", []
    return sentences


def weights_of(encoder: BertModel, ids: Tensor, types: Tensor) -> Tensor:
    """The attention weights of one input, (L, A, S, S)."""
    weights: list[Tensor] = []
    encoder.encoder(encoder.embeddings(ids, types), Padded(None, weights))
    return torch.cat(weights)


@torch.inference_mode()
def attention_to_sep(bert: Bert, pairs: Sequence[tuple[str, str]], longest: int = 128) -> tuple[Tensor, Tensor]:
    """The share of attention on [SEP], of all tokens and of [SEP] itself: the means of each layer, (L,) each.

    Source: Clark et al. 2019, sec. 3.2.
    """
    encoder = float32_copy(bert.encoder)
    shares = []
    with without_autocast():
        for a, b in pairs:
            encoded = bert.tokenizer(a, b, truncation=True, max_length=longest, return_tensors="pt")
            encoded = encoded.to(bert.model.device)
            weights = weights_of(encoder, encoded["input_ids"], encoded["token_type_ids"])
            sep = encoded["input_ids"][0] == bert.tokenizer.sep_token_id
            share = weights[..., sep].sum(-1)  # (L, A, S, S) -> (L, A, S)
            shares.append(torch.stack([share.mean((1, 2)), share[..., sep].mean((1, 2))]))
    whole, own = torch.stack(shares).mean(0).cpu()
    return whole, own


def sep_rows(bert: Bert, folder: Path | None) -> list[PublishedRow]:
    """The smallest shares on [SEP] in layers 6 to 10."""
    quantities = ("attention on [SEP], least of layers 6 to 10", "attention of [SEP] on [SEP], least of layers 6 to 10")
    claims = (SEP_SHARE, SEP_TO_SEP)
    reason = unfit(bert) or missing(folder, PUD_FILE)
    if reason:
        return [
            PublishedRow(CLARK, quantity, f"> {claim}", "", None, reason)
            for quantity, claim in zip(quantities, claims, strict=True)
        ]
    with (cast(Path, folder) / PUD_FILE).open(encoding="utf-8") as lines:
        texts = [sentence.text for sentence in read_conllu(lines)]
    parts = [" ".join(texts[start : start + 2]) for start in range(0, 400, 2)]
    shares = attention_to_sep(bert, list(zip(parts[::2], parts[1::2], strict=True)))
    return [
        PublishedRow(CLARK, quantity, f"> {claim}", f"{found:.3f}", found > claim, "measured on ud_pud")
        for quantity, claim, share in zip(quantities, claims, shares, strict=True)
        for found in [float(share[SEP_LAYERS].min())]
    ]


@dataclass(frozen=True)
class RelationHeads:
    """How well heads find one relation.

    Attributes:
        relation: its name in Universal Dependencies.
        count: how many words have it.
        accuracy: (2, L, A): how often the word's head is the word that it attends to most and, second, the word that
            attends to it most.
        offset, offset_accuracy: the best fixed distance from a dependent to its head, and how often it is right.
    """

    relation: str
    count: int
    accuracy: NDArray[np.float64]
    offset: int
    offset_accuracy: float

    @property
    def best(self) -> tuple[int, int, int]:
        """Direction (an index of `DIRECTIONS`), layer and head of the largest accuracy."""
        direction, layer, head = np.unravel_index(self.accuracy.argmax(), self.accuracy.shape)
        return int(direction), int(layer), int(head)

    @property
    def best_accuracy(self) -> float:
        """The largest accuracy."""
        return float(self.accuracy.max())


@torch.inference_mode()
def dependency_heads(bert: Bert, sentences: Iterable[Sentence], relations: Sequence[str]) -> dict[str, RelationHeads]:
    """Measure how well each head finds each relation; sentences that are too long for the model are left out.

    Attention between words is the sum over the tokens of the word that is attended to, and the mean over those of the
    word that attends. The guess is the word with the most attention; the word itself, [CLS] and [SEP] are left out.

    Source: Clark et al. 2019, sec. 4.1 and 4.2.
    """
    encoder = float32_copy(bert.encoder)
    shape = (2, encoder.config.num_hidden_layers, encoder.config.num_attention_heads)
    right = {relation: np.zeros(shape) for relation in relations}
    distances: dict[str, list[int]] = {relation: [] for relation in relations}
    with without_autocast():
        for sentence in sentences:
            encoded = bert.tokenizer([list(sentence.words)], is_split_into_words=True, return_tensors="pt")
            if encoded["input_ids"].shape[1] > encoder.config.max_position_embeddings:
                continue
            member = torch.zeros(encoded["input_ids"].shape[1], len(sentence.words))  # (S, words)
            for place, word in enumerate(encoded.word_ids()):
                if word is not None:
                    member[place, word] = 1
            encoded = encoded.to(bert.model.device)
            weights = weights_of(encoder, encoded["input_ids"], encoded["token_type_ids"]).cpu()
            between = (member / member.sum(0).clamp(min=1)).T @ weights @ member  # (L, A, words, words)
            between.diagonal(dim1=2, dim2=3).zero_()
            guesses = torch.stack([between.argmax(3), between.argmax(2)]).numpy()  # (2, L, A, words)
            for word, (head, relation) in enumerate(zip(sentence.heads, sentence.relations, strict=True)):
                if relation in right and head >= 0:
                    right[relation] += guesses[..., word] == head
                    distances[relation].append(head - word)
    return {relation: relation_heads(relation, right[relation], distances[relation]) for relation in relations}


def relation_heads(relation: str, right: NDArray[np.float64], distances: Sequence[int]) -> RelationHeads:
    """The shares, and the best fixed distance."""
    count = len(distances)
    offset = max(OFFSETS, key=distances.count)
    return RelationHeads(relation, count, right / max(count, 1), offset, distances.count(offset) / max(count, 1))


def dependency_rows(bert: Bert, folder: Path | None) -> list[PublishedRow]:
    """The published heads on other data, and whether the best head beats the best fixed offset."""
    reason = missing(folder, PUD_FILE)
    found: dict[str, RelationHeads] = {}
    if not reason:
        with (cast(Path, folder) / PUD_FILE).open(encoding="utf-8") as lines:
            names = [*BEATING_OFFSETS, *(name for name, *_ in PUBLISHED_HEADS.values())]
            found = dependency_heads(bert, read_conllu(lines), list(dict.fromkeys(names)))
    rows = []
    for theirs, (relation, layer, head, value) in PUBLISHED_HEADS.items():
        quantity, other = f"{theirs}, head {layer}-{head}, accuracy", unfit(bert) or reason
        ours = "" if other else f"{100 * found[relation].accuracy[:, layer, head].max():.1f}"
        remark = other or f"not judged: theirs is of the Penn Treebank, ours of {relation} in ud_pud"
        rows.append(PublishedRow(CLARK, quantity, f"{value}", ours, None, remark))
    for relation in BEATING_OFFSETS:
        quantity = f"{relation}, best head beats best offset"
        if reason:
            rows.append(PublishedRow(CLARK, quantity, "yes", "", None, reason))
            continue
        one = found[relation]
        direction, layer, head = one.best
        ours = f"{100 * one.best_accuracy:.1f} against {100 * one.offset_accuracy:.1f}"
        remark = f"head {layer}-{head}, {DIRECTIONS[direction]}; offset {one.offset:+d}"
        rows.append(PublishedRow(CLARK, quantity, "yes", ours, one.best_accuracy > one.offset_accuracy, remark))
    return rows
