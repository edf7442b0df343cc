"""`Bert`: a tokenizer, a model and a recipe for sentence vectors, behind one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import Unpack

from minibert.base import PretrainedModel
from minibert.compat import OtherNames
from minibert.config import BertConfig
from minibert.engine.engine import Combine, Engine
from minibert.engine.rows import Truncation
from minibert.errors import MinibertError, warn
from minibert.model import BertModel
from minibert.outputs import BertOutput
from minibert.pretrained.arguments import ENCODING, in_our_words
from minibert.pretrained.card import card
from minibert.pretrained.files import folder_written_whole
from minibert.pretrained.source import Source
from minibert.pretrained.upload import PushSettings, push
from minibert.study.ablation import ablation
from minibert.study.attribution import Explanation, explain, explain_cosine
from minibert.study.edits import Edit, ablated, edited, edited_points, patched
from minibert.study.lens import Lens, lens
from minibert.study.maps import AttentionMaps, attention_maps
from minibert.study.pairs import SimilarityMap, explain_similarity
from minibert.study.points import Points, points_of
from minibert.study.reading import as_pairs, read
from minibert.study.trace import Trace, trace
from minibert.summary import heads_of, lines_of, summarize
from minibert.tasks.annotate import AnnotateSettings, Annotation, Annotator
from minibert.tasks.answer import Answer, AnswerSettings, Reader, answer, reader_of
from minibert.tasks.classify import (
    Cutting,
    Labels,
    LabelSettings,
    ScoreSettings,
    TextScorer,
    classify,
    label_scores,
    text_classifier,
)
from minibert.tasks.entities import Entity, EntitySettings, Strategy, check_strategy, find_entities, tagger_of
from minibert.tasks.fill_mask import Filled, MaskFiller, MaskSettings, check_head
from minibert.tasks.rank import Activation, Ranked, activation_of, is_pair, rank, score
from minibert.text import as_list, as_stream, unwrapped, whole_number
from minibert.tokenizer import BertTokenizer
from minibert.vectors.recipe import DOCUMENT, QUERY, Recipe, whitening
from minibert.vectors.sentences import EncodeSettings, SentenceEncoder, check_output, with_prompt
from minibert.vectors.similarity import Precision, similarity, similarity_pairwise
from minibert.vectors.words import Pieces, Splitter, WordEncoder, Words, WordSettings

if TYPE_CHECKING:  # training takes a `Bert`
    from minibert.training.data import Rows
    from minibert.training.finetune import FinetuneSettings, Run


class Bert(OtherNames):
    """A loaded checkpoint, made by `load`.

    Attributes:
        model: the model class that uses most of the checkpoint, in evaluation mode.
        tokenizer: its tokenizer.
        recipe: how sentence vectors are made.
        source: the repository and commit, or the folder.
    """

    def __init__(
        self,
        model: PretrainedModel,
        tokenizer: BertTokenizer,
        recipe: Recipe | None = None,
        source: Source | str | None = None,
        missing_mlm: Sequence[str] = (),
        exact_norms: Mapping[str, Tensor] | None = None,
        dtype_reason: str = "",
    ) -> None:
        self.model = model
        self.recipe = recipe or Recipe()
        self.tokenizer = tokenizer.lower_cased() if self.recipe.lower_case else tokenizer
        self.source = source if isinstance(source, Source) else Source(source or "memory")
        self._missing_mlm = tuple(missing_mlm)
        self._exact_norms = exact_norms
        self._dtype_reason = dtype_reason
        self._engine = Engine(self.encoder, exact_norms)
        self._warned = False  # see `_warn_untrained`

    @property
    def encoder(self) -> BertModel:
        """The encoder, without a task head."""
        encoder = getattr(self.model, "bert", self.model)
        if not isinstance(encoder, BertModel):
            raise MinibertError(f"the model ({type(self.model).__name__}) must be a BertModel, or hold one as `bert`")
        return encoder

    @property
    def layers(self) -> nn.ModuleList:
        """The layers of the encoder."""
        return self.encoder.encoder.layers

    @property
    def engine(self) -> Engine:
        """Computes the hidden states of many texts."""
        if self._engine.model is not self.encoder:  # the model was replaced
            self._engine = Engine(self.encoder, self._exact_norms)
        return self._engine

    @property
    def heads(self) -> tuple[str, ...]:
        """The names of the model's heads."""
        return heads_of(self.model, self.encoder)

    @property
    def config(self) -> BertConfig:
        """The configuration of the model."""
        return self.model.config

    @property
    def dimension(self) -> int:
        """The length of a sentence vector."""
        return self.recipe.width(self.config.hidden_size * len(self.recipe.pooling))

    def tokenize(self, texts: str | Sequence[str | tuple[str, str]]) -> dict[str, Tensor]:
        """Texts, or pairs of texts, as the model's padded and truncated input, as in sentence-transformers.

        `encode` does this itself.
        """
        texts = [texts] if isinstance(texts, str) else texts
        pairs = bool(texts) and not isinstance(texts[0], str)
        columns = zip(*texts, strict=True) if pairs else [texts]
        settings: dict[str, Any] = {"padding": True, "truncation": True, "max_length": self.max_seq_length}
        return dict(self.tokenizer(*map(list, columns), return_tensors="pt", **settings))

    @property
    def max_seq_length(self) -> int:
        """The most tokens of a text that the model sees, with special tokens."""
        positions = self.config.max_position_embeddings
        return min(self.recipe.max_seq_length or self.tokenizer.model_max_length or positions, positions)

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        positions = self.config.max_position_embeddings
        if not 3 <= whole_number("max_seq_length", tokens) <= positions:
            raise MinibertError(
                f"max_seq_length ({tokens}) must be at least 3 and at most {positions}, the model's positions"
            )
        self.recipe = replace(self.recipe, max_seq_length=tokens)

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        convert_to_tensor: Literal[True],
        **settings: Unpack[EncodeSettings],
    ) -> Tensor: ...

    @overload
    def encode(
        self,
        texts: str | Iterable[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        convert_to_tensor: Literal[False] = False,
        **settings: Unpack[EncodeSettings],
    ) -> NDArray[Any]: ...

    def encode(
        self,
        texts: str | Iterable[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        layers: int | Sequence[int] | None = None,
        combine: Combine = "mean",
        pooling: str | Sequence[str] | None = None,
        batch_tokens: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        precision: Precision = "float32",
        calibration_embeddings: Any = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: torch.device | str | None = None,
        truncation: Truncation = "warn",
        **theirs: Any,
    ) -> NDArray[Any] | Tensor:
        """Compute a vector for each text.

        A text's vector does not depend on the other texts or on their order. The empty text gets the vector of
        [CLS] [SEP]. Texts are read as they are needed, so an iterator may be of any length.

        Args:
            texts: one text, or several.
            prompt_name: the checkpoint's prompt to put before each text; None means its default, if it has one.
            prompt: the prompt itself.
            batch_size: the most texts computed at once; None leaves it to `batch_tokens`.
            show_progress_bar: None shows it if the logger "minibert" is at INFO or DEBUG.
            layers: one hidden state to use, or several; 0 is the embeddings, -1 or None the last layer.
            combine: how several layers are combined: "mean", "sum" or "concat".
            pooling: how token vectors become one, as in `vectors.pooling`; None does what the checkpoint says.
            batch_tokens: the most tokens computed at once, in whole texts; None suits the CPU's caches, or a GPU.
            normalize_embeddings: divide each vector by its length, if the checkpoint does not do so already.
            truncate_dim: keep only the first numbers of each vector; None does what the checkpoint says.
            precision, calibration_embeddings: as for `quantize_embeddings`.
            convert_to_tensor: return a tensor on the model's device instead of an array.
            convert_to_numpy, device: accepted if they ask for what happens anyway.
            truncation: for texts longer than `max_seq_length`, "warn" truncates with a warning, "error" rejects, and
                "window" takes the mean over overlapping windows, weighted by tokens.
            theirs: sentence-transformers' names of these arguments, listed in `pretrained.arguments.ENCODING`.

        Returns:
            (dimension,) for one text, (N, dimension) for several; float32, unless `precision` says otherwise.

        Raises:
            MinibertError: what is not text; a setting that makes no sense; a long text with `truncation="error"`.
            TypeError: an unknown argument; if it has another name here, the message says so.
        """
        if theirs:
            texts = in_our_words("encode", ENCODING, theirs, texts=texts)["texts"]
        if pooling is None:
            self._warn_untrained()
        check_output(convert_to_numpy or convert_to_tensor, device, self.model.device)
        engine = self.engine
        encoder = SentenceEncoder(
            engine,
            self.tokenizer,
            self.recipe,
            self.max_seq_length,
            plan=engine.plan(layers, combine, batch_tokens, batch_size),
            pooling=pooling,
            prompt=self.recipe.prompt_for(prompt_name, prompt),
            truncate_dim=truncate_dim,
            normalize=normalize_embeddings,
            truncation=truncation,
        )
        return encoder(texts, show_progress_bar, convert_to_tensor, precision, calibration_embeddings)

    encode_query = with_prompt(encode, *QUERY)
    encode_document = with_prompt(encode, *DOCUMENT)

    @overload
    def words(self, texts: str, **settings: Unpack[WordSettings]) -> Words: ...  # type: ignore[overload-overlap]

    @overload
    def words(self, texts: Iterable[str | Sequence[str]], **settings: Unpack[WordSettings]) -> list[Words]: ...

    def words(
        self,
        texts: str | Iterable[str | Sequence[str]],
        *,
        layers: int | Sequence[int] | None = None,
        combine: Combine = "mean",
        pieces: Pieces = "mean",
        split: Splitter = "pretokenizer",
        spans: Sequence[Any] | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        truncation: Truncation = "warn",
    ) -> Words | list[Words]:
        """Compute a vector for each word of each text, in its context.

        Args:
            texts: one text, or several, or several lists of words.
            layers, combine: as for `encode`; BERT's authors used `layers=[-4, -3, -2, -1], combine="sum"`.
            pieces: which pieces make the vector of a word: the "mean" or "max" of all, the "first" or the "last".
            split: what a word is: "pretokenizer", as BERT splits text, with punctuation as words; or "whitespace".
            spans: your own words instead: for each text (for one text, directly) a list of (start, end), in characters
                and in order. A piece belongs to the word that it overlaps most; a word inside a piece gets that piece.
            batch_tokens, batch_size, show_progress_bar: as for `encode`.
            truncation: as for `encode`; with "window", a word comes from the window that gives it most context.

        Returns:
            `Words` for one text, a list of them for several.

        Raises:
            MinibertError: what is not text; a setting that makes no sense; a long text with `truncation="error"`.

        Source: Devlin et al. 2018, sec. 5.3 and table 7.
        """
        engine = self.engine
        plan = engine.plan(layers, combine, batch_tokens, batch_size)
        encoder = WordEncoder(
            engine, self.tokenizer, self.max_seq_length, plan=plan, pieces=pieces, split=split, truncation=truncation
        )
        texts = unwrapped(texts)
        if isinstance(texts, str):
            return encoder([texts], None if spans is None else [spans], show_progress_bar)[0]
        return encoder(texts, spans, show_progress_bar)

    def similarity(
        self,
        a: Any,
        b: Any,
        *,
        precision: Precision | None = None,
        ranges: Any = None,
        calibration_embeddings: Any = None,
    ) -> Tensor:
        """Compare each vector of `a` with each of `b`, (N, M), by the recipe's similarity; most often the cosine.

        int8 and uint8 vectors need the `precision` that `encode` had, as for `minibert.similarity`.
        """
        kind = self.recipe.similarity
        return similarity(a, b, kind, precision=precision, ranges=ranges, calibration_embeddings=calibration_embeddings)

    def similarity_pairwise(
        self,
        a: Any,
        b: Any,
        *,
        precision: Precision | None = None,
        ranges: Any = None,
        calibration_embeddings: Any = None,
    ) -> Tensor:
        """Compare the first vector of `a` with the first of `b`, and so on: (N,); the arguments of `similarity`."""
        kind = self.recipe.similarity
        return similarity_pairwise(
            a, b, kind, precision=precision, ranges=ranges, calibration_embeddings=calibration_embeddings
        )

    def explain(
        self,
        text: str,
        target: str | int | None = None,
        *,
        pair: str | None = None,
        similar_to: str | None = None,
        position: int | None = None,
        baseline: str | None = None,
        steps: int | None = None,
    ) -> Explanation:
        """Say how much each token and word adds to a result, by integrated gradients.

        The result is a logit, not a probability, or, with `similar_to`, the cosine of two texts' vectors. The gradients
        are those of the token table's output (`embeddings.token`), along the straight line from a baseline, in which
        [PAD] takes the place of all tokens except [CLS] and [SEP]. It is computed in float32; the model is not touched.

        Args:
            target: a token for [MASK], or a label, by name or number; None: the one with the largest logit.
            pair: the second text, where the model reads two.
            similar_to: instead of a target: a text that this one is compared with; its vector is held fixed.
            position: the number of the token whose logits are read; None: the only [MASK]'s.
            baseline: another token for the baseline: "[MASK]", for one.
            steps: points of the integral; None: 50, doubled up to 800 until the scores add up to the difference between
                the text and the baseline, within 0.001 of it. `converged` and `gap` of the result say whether they do.

        Raises:
            MinibertError: what is not text, or too long; a model without such a result; a target that is not there.

        Source: Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks".
        """
        positions, device = self.config.max_position_embeddings, self.model.device
        if similar_to is None:
            reading = read(self.tokenizer, text, pair, positions, device)
            return explain(self.model, self.tokenizer, reading, target, position, baseline, steps)
        for name, value in (("target", target), ("pair", pair), ("position", position)):
            if value is not None:
                raise MinibertError(f"{name} ({value!r}) must be left out with similar_to=, which explains a cosine")
        other = self.encode(similar_to, convert_to_tensor=True)
        limit = self.max_seq_length
        return explain_cosine(self.model, self.tokenizer, self.recipe, limit, text, other, baseline, steps)

    @overload
    def explain_similarity(  # type: ignore[overload-overlap]
        self, a: str, b: str, prompt_name: str | None = None, prompt: str | None = None
    ) -> SimilarityMap: ...

    @overload
    def explain_similarity(
        self, a: Sequence[str], b: Sequence[str], prompt_name: str | None = None, prompt: str | None = None
    ) -> list[SimilarityMap]: ...

    def explain_similarity(
        self,
        a: str | Sequence[str],
        b: str | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> SimilarityMap | list[SimilarityMap]:
        """Say which word of `a` meets which word of `b`, and how much of the cosine each pair is.

        With mean pooling this is exact: the cosine is a sum over pairs of tokens. It decomposes the last layer only,
        where each token's state already holds something of the others.

        Args:
            a, b: one text each, or as many on both sides.
            prompt_name, prompt: as for `encode`.

        Returns:
            The contributions of one pair of texts, or a list of them for several.

        Raises:
            MinibertError: what is not text; a recipe for which there is no such sum: use `explain` with `similar_to`.
        """
        a, b = unwrapped(a), unwrapped(b)
        if isinstance(a, str) != isinstance(b, str):
            raise MinibertError(f"a and b ({type(a).__name__} and {type(b).__name__}) must be both one text or several")
        self.recipe.check()
        before = self.recipe.prompt_for(prompt_name, prompt)
        maps = explain_similarity(
            self.engine, self.tokenizer, self.recipe, self.max_seq_length, before, as_list(a), as_list(b)
        )
        return maps[0] if isinstance(a, str) else maps

    def whiten(self, texts: Iterable[str], dimensions: int | None = None, *, rotate: bool = True) -> Bert:
        """Fit whitening on a sample of texts; the returned `Bert` encodes and is saved with it.

        Raw BERT's vectors lie in a narrow cone, with all cosines near 1. Whitening subtracts their mean and gives all
        directions equal variance. The first dimensions carry most, so fewer can be kept.

        Args:
            texts: thousands of texts like those that will be encoded.
            dimensions: how many numbers of a vector to keep; None keeps all.
            rotate: False only subtracts the mean.

        Returns:
            A `Bert` with the same model. sentence-transformers loads what it saves: the map is a Dense module.

        Raises:
            MinibertError: fewer texts than dimensions; more dimensions than the vectors have.

        Source: Su et al. 2021, "Whitening Sentence Representations", algorithm 1.
        """
        white = copy(self)
        white.recipe = replace(self.recipe, normalize=False, truncate_dim=None)
        dense = whitening(white.encode(texts), dimensions, rotate)
        white.recipe = replace(self.recipe, dense=(*self.recipe.dense, dense), truncate_dim=None)
        return white

    @overload
    def fill_mask(self, texts: str, **settings: Unpack[MaskSettings]) -> Filled: ...  # type: ignore[overload-overlap]

    @overload
    def fill_mask(self, texts: Iterable[str], **settings: Unpack[MaskSettings]) -> list[Filled]: ...

    def fill_mask(
        self,
        texts: str | Iterable[str],
        *,
        top_k: int | None = None,
        targets: Sequence[str] | None = None,
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Filled | list[Filled]:
        """Predict the tokens at each [MASK].

        Args:
            texts: one text, or several, each with at least one [MASK]. An iterator is read as needed.
            top_k, targets: as in `minibert.tasks.fill_mask.MaskFiller`.
            batch_size, batch_tokens, show_progress_bar: as for `encode`.

        Returns:
            For a text with one [MASK], its candidates, the most probable first; for one with more, a list of
            candidates for each. For several texts, a list of these.

        Raises:
            MinibertError: the checkpoint has no masked-LM head; a text without [MASK], or too long; an impossible
                target.
            RuntimeError: as for `encode`, in a forked process.
        """
        model = check_head(self.model, self.source, self._missing_mlm)
        plan = self.engine.plan(None, "mean", batch_tokens, batch_size)
        filler = MaskFiller(self.engine, model, self.tokenizer, plan, top_k, targets)
        texts = unwrapped(texts)
        stream, total = as_stream(texts)
        results = list(filler(stream, total, show_progress_bar))
        return results[0] if isinstance(texts, str) else results

    @overload
    def classify(  # type: ignore[overload-overlap]
        self, texts: str, pair: str | None = None, **settings: Unpack[LabelSettings]
    ) -> Labels: ...

    @overload
    def classify(
        self, texts: Iterable[str], pair: Iterable[str] | None = None, **settings: Unpack[LabelSettings]
    ) -> list[Labels]: ...

    def classify(
        self,
        texts: str | Iterable[str],
        pair: str | Iterable[str] | None = None,
        *,
        top_k: int | None = None,
        threshold: float | None = None,
        **settings: Unpack[ScoreSettings],
    ) -> Labels | list[Labels]:
        """Label texts, or pairs of texts, with the checkpoint's classifier.

        Args:
            texts: one text, or several.
            pair: the second text of each pair.
            top_k: how many labels of a text; None means all.
            threshold: leave out labels with a lower score.
            settings: `truncation` ("warn" or "error"), `batch_size`, `batch_tokens` and `show_progress_bar`, as for
                `encode`.

        Returns:
            For one text, its labels with their scores, the best first; a list of these for several.

        Raises:
            MinibertError: the checkpoint has no classifier; what is not text; a setting that makes no sense.
        """
        texts, pair = unwrapped(texts), unwrapped(pair)
        results = classify(self._scorer("classify", **settings), texts, pair, top_k=top_k, threshold=threshold)
        return results[0] if isinstance(texts, str) else results

    def label_scores(
        self,
        texts: str | Iterable[str],
        pair: str | Iterable[str] | None = None,
        **settings: Unpack[ScoreSettings],
    ) -> NDArray[np.float32]:
        """The scores of `classify` as an array, (N, labels), with the labels in the order of `config.id2label`."""
        texts, pair = unwrapped(texts), unwrapped(pair)
        empty = np.empty((0, self.config.num_labels), np.float32)
        scores: NDArray[np.float32] = np.concatenate(
            [empty, *map(np.asarray, label_scores(self._scorer("label_scores", **settings), texts, pair))]
        )
        return np.asarray(scores[0]) if isinstance(texts, str) else scores

    def score(
        self,
        pairs: Iterable[Any],
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        activation_fn: Activation | None = None,
        **settings: Unpack[ScoreSettings],
    ) -> NDArray[np.float32] | np.float32:
        """Score pairs of texts with a reranker, as sentence-transformers' `CrossEncoder.predict` does.

        Args:
            pairs: (query, document) for each, or an array (N, 2) of texts; or one pair.
            prompt_name: the reranker's prompt to put before each query; None means its default, if it has one.
            prompt: the prompt itself.
            activation_fn: from logits (N, 1) to scores, such as `torch.nn.Identity()`; None means the reranker's own.
            settings: as for `classify`.

        Returns:
            (N,) float32; for one pair, a number.

        Raises:
            MinibertError: the checkpoint is no reranker; what is not a pair of texts.
        """
        before = self.recipe.reranker_prompt(prompt_name, prompt)
        scorer = self._scorer("score", **settings)
        own = activation_of(self.config, self.recipe.settings)
        scores = score(scorer, activation_fn or own, pairs, before)
        return np.float32(scores[0]) if is_pair(pairs) else scores

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        top_k: int | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *,
        activation_fn: Activation | None = None,
        return_documents: bool = True,
        **settings: Unpack[ScoreSettings],
    ) -> list[Ranked]:
        """Sort documents by how well they answer a query, with a reranker.

        Args:
            query: a text.
            documents: several texts.
            top_k: how many to return; None means all.
            prompt_name, prompt, activation_fn: as for `score`.
            return_documents: for sentence-transformers' code; the documents are always returned.
            settings: as for `classify`.

        Returns:
            The documents with their numbers and scores, the best first.

        Raises:
            MinibertError: the checkpoint is no reranker; what is not text.
        """
        before = self.recipe.reranker_prompt(prompt_name, prompt)
        scorer = self._scorer("rank", **settings)
        own = activation_of(self.config, self.recipe.settings)
        return rank(scorer, activation_fn or own, query, documents, top_k, before)

    def _scorer(
        self,
        what: str,
        truncation: Cutting = "warn",
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> TextScorer:
        """What computes the logits of a classifier or reranker."""
        return TextScorer(
            self.engine,
            self.tokenizer,
            text_classifier(self.model, self.source),
            self.max_seq_length,
            self.engine.plan(None, "mean", batch_tokens, batch_size),
            truncation,
            show_progress_bar,
            what,
        )

    @overload
    def attention(  # type: ignore[overload-overlap]
        self, text: str, pair: str | None = None
    ) -> AttentionMaps: ...

    @overload
    def attention(self, text: Iterable[str], pair: Iterable[str] | None = None) -> list[AttentionMaps]: ...

    def attention(
        self, text: str | Iterable[str], pair: str | Iterable[str] | None = None
    ) -> AttentionMaps | list[AttentionMaps]:
        """Say which token attends to which, in every layer and head.

        Args:
            text: one text, or several.
            pair: the second text of each, for models that read pairs.

        Returns:
            The maps of one text; a list for several.

        Raises:
            MinibertError: what is not text; more tokens than the model has positions; pairs that are not as many.
        """
        text, pair = unwrapped(text), unwrapped(pair)
        maps = [attention_maps(self.model, self.tokenizer, *both) for both in as_pairs(text, pair)]
        return maps[0] if isinstance(text, str) else maps

    @overload
    def entities(self, texts: str, **settings: Unpack[EntitySettings]) -> list[Entity]: ...  # type: ignore[overload-overlap]

    @overload
    def entities(self, texts: Iterable[str], **settings: Unpack[EntitySettings]) -> list[list[Entity]]: ...

    def entities(
        self,
        texts: str | Iterable[str],
        *,
        strategy: Strategy = "simple",
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        truncation: Truncation = "warn",
    ) -> list[Entity] | list[list[Entity]]:
        """Find the named entities of texts.

        Args:
            texts: one text, or several.
            strategy: "simple" groups tokens by their labels. "first", "average" and "max" first give each word one
                label: that of its first token, of the mean probabilities, or of its surest token. "none" gives each
                token that is not "O" on its own.
            batch_tokens, batch_size, show_progress_bar: as for `encode`.
            truncation: as for `encode`; with "window", a label comes from the window that gives the token most context.

        Returns:
            The entities of one text, in order; a list of them for several.

        Raises:
            MinibertError: the checkpoint is not a tagger; what is not text; a setting that makes no sense; a long text
                with `truncation="error"`.
        """
        model, engine = tagger_of(self.model, self.source), self.engine
        plan = engine.plan(None, "mean", batch_tokens, batch_size)
        texts = unwrapped(texts)
        found = find_entities(
            model, engine, self.tokenizer, self.max_seq_length, texts, plan, strategy, truncation, show_progress_bar
        )
        return found[0] if isinstance(texts, str) else found

    @overload
    def answer(  # type: ignore[overload-overlap]
        self, question: str, context: str, *, top_k: None = None, **settings: Unpack[AnswerSettings]
    ) -> Answer: ...

    @overload
    def answer(  # type: ignore[overload-overlap]
        self, question: str, context: str, *, top_k: int, **settings: Unpack[AnswerSettings]
    ) -> list[Answer]: ...

    @overload
    def answer(
        self,
        question: Iterable[str],
        context: Iterable[str],
        *,
        top_k: None = None,
        **settings: Unpack[AnswerSettings],
    ) -> list[Answer]: ...

    @overload
    def answer(
        self, question: Iterable[str], context: Iterable[str], *, top_k: int, **settings: Unpack[AnswerSettings]
    ) -> list[list[Answer]]: ...

    def answer(
        self,
        question: str | Iterable[str],
        context: str | Iterable[str],
        *,
        top_k: int | None = None,
        max_answer_tokens: int = 30,
        no_answer: bool = False,
        threshold: float = 0.0,
        truncation: Truncation = "window",
        batch_size: int | None = None,
        batch_tokens: int | None = None,
        show_progress_bar: bool | None = None,
    ) -> Answer | list[Answer] | list[list[Answer]]:
        """Find the answer to a question in a text.

        Args:
            question: one question, or several.
            context: the text with the answer; for several questions, as many.
            top_k: None gives the best answer of each question; a number gives a list of so many, the best first.
            max_answer_tokens: the most tokens of an answer.
            no_answer: whether "no answer" competes with the spans. Only for models that were trained for it, on
                SQuAD 2.0 for example; the files of a checkpoint do not say so.
            threshold: by how much "no answer" must exceed the best span to win; it is a difference of logits.
            truncation: for contexts that are too long, "window" reads all of them in windows that overlap, "warn"
                truncates with a warning, and "error" rejects.
            batch_size, batch_tokens, show_progress_bar: as for `encode`.

        Returns:
            For one question its answer, for several a list; with `top_k`, a list of answers in place of each answer.
            "No answer" has the text "". A context without tokens has no other.

        Raises:
            MinibertError: the checkpoint is not a reader; what is not text; a setting that makes no sense; a question
                that leaves no room for the context; a long context with `truncation="error"`.

        Source: Devlin et al. 2018, sec. 4.2 and 4.3.
        """
        model, engine = reader_of(self.model, self.source), self.engine
        plan = engine.plan(None, "mean", batch_tokens, batch_size)
        settings = (self.max_seq_length, plan, max_answer_tokens, no_answer, threshold, truncation)
        reader = Reader(engine, self.tokenizer, model, *settings)
        question, context = unwrapped(question), unwrapped(context)
        lists = answer(reader, question, context, 1 if top_k is None else top_k, show_progress_bar)
        if top_k is None:
            found = [answers[0] for answers in lists]
            return found[0] if isinstance(question, str) else found
        return lists[0] if isinstance(question, str) else lists

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model, tokenizer and recipe into `folder`, for `load`, transformers and sentence-transformers.

        If this is interrupted, the folder holds either the old model or the new one. Other files in it stay.

        Raises:
            MinibertError: the recipe cannot be followed here, so it cannot be written; this `Bert` is an edited one.
        """
        if self.edits:
            raise MinibertError(
                f"an edited Bert (at {', '.join(self.edits)}) must not be saved; save the one it was made of"
            )
        self.recipe.check()
        with folder_written_whole(Path(folder)) as new:
            self.model.save_pretrained(new)
            self.tokenizer.save_pretrained(new)
            self.recipe.save(new, self.config.hidden_size)

    def push_to_hub(self, repo_id: str, **settings: Unpack[PushSettings]) -> str:
        """Save model, tokenizer and recipe as one commit of a repository of the Hugging Face Hub.

        A repository without a README.md gets a model card.

        Args:
            repo_id: the repository, created if need be.
            settings: `private`, `token`, `commit_message`, `revision`, `create_pr`, as for
                `minibert.pretrained.upload.push`.

        Returns:
            The address of the commit.

        Raises:
            MinibertError: as for `save_pretrained`; a name that no repository can have.
            PermissionError: no token, or one that may not write there.
            ConnectionError: the upload broke off, or a server answered what no Hub does. The commit is then there as a
                whole or not at all.
        """
        config = self.config.replace(architectures=(type(self.model).__name__,))
        base = self.source.name if self.source.commit else None
        recipe = self.recipe
        trained = recipe.source != Recipe().source and not recipe.refusal and not recipe.untrained
        sentences = recipe.in_words(self.dimension) if trained else None
        text = partial(card, repo_id, config, sentences=sentences, base_model=base)
        return push(self.save_pretrained, repo_id, text, **settings)

    def finetune(self, train: Rows, *, task: str, output: str | Path, **settings: Unpack[FinetuneSettings]) -> Run:
        """Fine-tune a copy of this model on rows of texts and labels, and save it.

        Args:
            train: a file, or dicts.
            task: "classify", "tokens", "similarity", "pairs", "rank" or "qa".
            output: the folder for the run and the model.
            settings: `dev`, `epochs`, `batch_size`, `learning_rate` and others: see `training.finetune.finetune`.
        """
        from minibert.training.finetune import finetune

        return finetune(self, train, task=task, output=output, **settings)

    def evaluate(self, data: Rows, *, task: str, columns: Mapping[str, str] | None = None) -> dict[str, float]:
        """Measure how well this model predicts rows; the arguments are as for `finetune`."""
        from minibert.training.finetune import evaluate

        return evaluate(self, data, task=task, columns=columns)

    def points(self) -> Points:
        """Every tensor inside the model that can be read or edited: name, shape and meaning. Prints as a table."""
        return points_of(self.model)

    @overload
    def trace(  # type: ignore[overload-overlap]
        self, text: str, points: str | Sequence[str], pair: str | None = None
    ) -> Trace: ...

    @overload
    def trace(
        self, text: Sequence[str], points: str | Sequence[str], pair: Sequence[str] | None = None
    ) -> list[Trace]: ...

    def trace(
        self, text: str | Sequence[str], points: str | Sequence[str], pair: str | Sequence[str] | None = None
    ) -> Trace | list[Trace]:
        """Run a text, or a pair of texts, and keep the tensors at `points`; a list of texts gives a list of traces.

        Points are names of `points()`, or names in which `*` stands for a part between dots.
        """
        return trace(self.model, self.tokenizer, text, pair, points)

    @property
    def edits(self) -> list[str]:
        """The names of the points that have edits; none for a `Bert` that was loaded."""
        return edited_points(self.model)

    def edited(self, edits: Mapping[str, Edit]) -> Bert:
        """A `Bert` in which the tensor at each point is what a function makes of it. See `study.edits.edited`."""
        return self._with_model(edited(self.model, edits))

    def ablated(self, heads: Mapping[int, Sequence[int]], by: Literal["zero", "mean"] = "zero") -> Bert:
        """A `Bert` in which some heads of attention are left out, by layer. See `study.edits.ablated`."""
        return self._with_model(ablated(self.model, heads, by))

    def patched(
        self, values: Mapping[str, Tensor], points: str | Sequence[str], positions: Sequence[int] | None = None
    ) -> Bert:
        """A `Bert` in which tensors are replaced by those of a trace. See `study.edits.patched`."""
        return self._with_model(patched(self.model, values, points, positions))

    def _with_model(self, model: PretrainedModel) -> Bert:
        other = copy(self)
        other.model = model
        return other

    def ablation(
        self,
        texts: str | Iterable[str],
        target: str | int | Callable[[BertOutput], Tensor] = "vector",
        pairs: str | Iterable[str] | None = None,
    ) -> Tensor:
        """What each head is worth, (L, A): what `target` loses without it. See `study.ablation.ablation`."""
        return ablation(self, texts, target, pairs)

    def lens(self, text: str, pair: str | None = None) -> Lens:
        """The masked-LM head read at every layer. See `study.lens.Lens`."""
        return lens(self.model, self.tokenizer, text, pair)

    @overload
    def annotate(self, texts: str, **settings: Unpack[AnnotateSettings]) -> Annotation: ...  # type: ignore[overload-overlap]

    @overload
    def annotate(self, texts: Iterable[str], **settings: Unpack[AnnotateSettings]) -> Iterator[Annotation]: ...

    def annotate(
        self,
        texts: str | Iterable[str],
        *,
        strategy: Strategy = "simple",
        pooling: str | Sequence[str] | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        truncation: Truncation = "warn",
    ) -> Annotation | Iterator[Annotation]:
        """Compute what `encode`, `words`, and `entities` or `classify` return, from one pass through the encoder.

        A checkpoint with a default prompt takes two, since the prompt is for the vector only.

        Args:
            texts: one text, or several, which are read as they are needed.
            strategy: as for `entities`.
            pooling: as for `encode`; "mean" accepts vectors that nobody trained, without a warning.
            batch_tokens, batch_size, show_progress_bar: as for `encode`.
            truncation: as for `encode`. A classifier reads one window of a long text, so its labels are those of
                the part that "warn" keeps.

        Returns:
            For one text, its vector, words, and entities or labels; an iterator of these for several.

        Raises:
            MinibertError: what is not text; a setting that makes no sense; a long text with `truncation="error"`.
        """
        check_strategy(strategy)
        texts = unwrapped(texts)
        if pooling is None:
            self._warn_untrained()
        engine, tokenizer, limit = self.engine, self.tokenizer, self.max_seq_length
        plan, prompt = engine.plan(None, "mean", batch_tokens, batch_size), self.recipe.prompt
        words = WordEncoder(engine, tokenizer, limit, plan=plan, truncation=truncation)
        sentences = SentenceEncoder(
            engine, tokenizer, self.recipe, limit, plan=plan, pooling=pooling, prompt=prompt, truncation=truncation
        )
        found = Annotator(words, sentences, self.model, strategy).stream(*as_stream(texts), show_progress_bar)
        if not isinstance(texts, str):
            return found
        (one,) = found
        return one

    def _warn_untrained(self) -> None:
        """Say, once, that nobody trained the vectors."""
        if self.recipe.untrained and not self._warned:
            self._warned = True
            warn(self.recipe.untrained)

    def info(self) -> dict[str, Any]:
        """The facts about what was loaded, as plain values."""
        facts = (self.source, self.heads, self.max_seq_length, self.dimension, self._dtype_reason)
        return summarize(self.model, self.tokenizer, self.recipe, *facts) | {"edits": self.edits}

    def __repr__(self) -> str:
        return lines_of(self.info(), self._missing_mlm)
