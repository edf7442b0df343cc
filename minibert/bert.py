"""One object that does the job: a tokenizer, a model, and what the checkpoint says about using them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypedDict, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Unpack

from minibert.config import BertConfig
from minibert.engine.device import check_fork
from minibert.engine.engine import LAST, Combine, Engine, Plan, plan_layers
from minibert.engine.rows import TOKENIZED_AT_ONCE, RowMaker, Truncation, token_rows
from minibert.engine.stream import Cut, Progress, chunks
from minibert.errors import MinibertError, warn
from minibert.model import (
    BertForMaskedLM,
    BertForPreTraining,
    BertModel,
    PretrainedModel,
    check_device,
)
from minibert.pretrained.arguments import ENCODING, in_our_words
from minibert.pretrained.files import folder_written_whole
from minibert.pretrained.names import MLM_TENSORS
from minibert.pretrained.source import Source
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
from minibert.tasks.fill_mask import Candidate, fill_mask
from minibert.tasks.rank import Ranked, activation_of, is_pair, rank, score
from minibert.text import as_list, as_stream, check_text, whole_number
from minibert.tokenizer import BertTokenizer
from minibert.vectors.pooling import pooling_modes
from minibert.vectors.recipe import Recipe, whitening
from minibert.vectors.sentences import packed_vectors
from minibert.vectors.similarity import (
    Precision,
    check_precision,
    quantize_embeddings,
    similarity,
    similarity_pairwise,
)
from minibert.vectors.words import (
    PIECES,
    SPLITTERS,
    Pieces,
    Splitter,
    Words,
    align,
    split_texts,
    warn_empty,
    word_vectors,
)

logger = logging.getLogger("minibert")

HEADS = {
    "mlm_head": "masked LM",
    "nsp_head": "next sentence",
    "pooler": "pooler",
    "classifier": "classifier",
    "span_head": "question answering",
}


class EncodeSettings(TypedDict, total=False):
    """Settings of `Bert.encode` that do not change what kind of thing it returns."""

    layers: int | Sequence[int] | None
    combine: Combine
    pooling: str | Sequence[str] | None
    batch_tokens: int | None
    normalize_embeddings: bool
    truncate_dim: int | None
    precision: Precision
    calibration_embeddings: Any
    truncation: Truncation


class WordSettings(TypedDict, total=False):
    """Settings of `Bert.words`."""

    layers: int | Sequence[int] | None
    combine: Combine
    pieces: Pieces
    split: Splitter
    spans: Sequence[Any] | None
    batch_tokens: int | None
    batch_size: int | None
    show_progress_bar: bool | None
    truncation: Truncation


class Bert:
    """A loaded checkpoint, ready for text. Made by `load`.

    Attributes:
        model: of the class that uses most of what the checkpoint holds; in evaluation mode.
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
        """The encoder, under whatever head."""
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
        """What computes the hidden states of many texts; everything here that needs them asks it."""
        if self._engine.model is not self.encoder:  # another model was put in the place of the old one
            self._engine = Engine(self.encoder, self._exact_norms)
        return self._engine

    @property
    def heads(self) -> tuple[str, ...]:
        """What stands on top of the encoder."""
        parts = {name for module in (self.model, self.encoder) for name, _ in module.named_children()}
        return tuple(title for name, title in HEADS.items() if name in parts)

    @property
    def config(self) -> BertConfig:
        """The configuration of the model."""
        return self.model.config

    @property
    def dimension(self) -> int:
        """How long a sentence vector is."""
        return self._width(LAST, self.recipe.pooling, None)

    @property
    def max_seq_length(self) -> int:
        """The most tokens of a text that are looked at, special ones included."""
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
        """Give each text its vector.

        A text's vector does not depend on the texts beside it, or on their order. The empty text has one too: that of
        [CLS] [SEP]. Texts are read as they are needed, so that an iterator of any length can be given.

        Args:
            texts: one text, or several.
            prompt_name: which of the checkpoint's prompts to put before each text; None: its default, if it has one.
            prompt: the prompt itself.
            batch_size: texts computed at once, at most; None: as many as `batch_tokens` has room for.
            show_progress_bar: None: where the logger "minibert" is at INFO or DEBUG.
            layers: hidden states to make vectors of, one or several; 0 is the embeddings, -1 or None the last layer's.
            combine: what becomes of several: "mean", "sum" or "concat".
            pooling: how a text's token vectors become one, as in `vectors.pooling`; None: as the checkpoint says.
            batch_tokens: tokens computed at once, whole texts of them; None: what suits the CPU's caches, or a GPU.
            normalize_embeddings: divide each vector by its length, if the checkpoint does not do so already.
            truncate_dim: keep so many of each vector's numbers, the first ones; None: as the checkpoint says, or all.
            precision, calibration_embeddings: as for `quantize_embeddings`.
            convert_to_tensor: return a tensor, on the model's device, instead of an array.
            convert_to_numpy, device: accepted where they ask for what is done anyway.
            truncation: what to do with tokens past `max_seq_length`: "warn" drops them and says so, "error" refuses,
                "window" computes the text in windows that overlap, and takes their mean, weighted by tokens.
            theirs: names of sentence-transformers for these arguments, as `pretrained.arguments.ENCODING` has them.

        Returns:
            (dimension,) for one text, (N, dimension) for N, (0, dimension) for none; float32, or as `precision` says.

        Raises:
            MinibertError: what is not text; a setting that makes no sense; with `truncation="error"`, a text too long.
            TypeError: an argument that is not known; where it has another name here, the message says so.
        """
        if theirs:
            texts = in_our_words("encode", ENCODING, theirs, texts=texts)["texts"]
        self._check_recipe()
        if pooling is None:
            self._warn_untrained()
        self._check_output(convert_to_numpy or convert_to_tensor, device)
        recipe, limit = self.recipe, self.max_seq_length
        modes = recipe.pooling if pooling is None else pooling_modes(pooling)
        plan = self._plan(layers, combine, batch_tokens, batch_size)
        width = self._width(plan, modes, truncate_dim)
        check_precision(precision)
        prompt = self._prompt(prompt_name, prompt)
        skip = 0
        if prompt and (truncation == "window" or not recipe.include_prompt):
            skip = len(self.tokenizer.tokenize(prompt))
        row_maker = RowMaker(self.tokenizer, limit, truncation, skip)
        skip = 0 if recipe.include_prompt else skip + (skip > 0)  # [CLS] goes with the prompt

        stream, total = as_stream(texts)
        engine, cut = self.engine, Cut(limit, truncation)
        as_tensor = convert_to_tensor and precision == "float32"  # these never visit numpy, or leave their device
        place = self.model.device if as_tensor else torch.device("cpu")
        tensors = [torch.empty(0, width, dtype=torch.float32, device=place)]
        vectors, count = np.empty((0, width), dtype=np.float32), 0
        with Progress(total, self._shows(show_progress_bar)) as progress:
            for chunk in chunks(stream):
                first, count = count, count + len(chunk)
                rows = token_rows(self.tokenizer, [prompt + text for text in chunk] if prompt else chunk, row_maker)
                cut.note(rows.lost, first)
                new = recipe.finish(packed_vectors(engine, rows, modes, plan, skip, place, progress.add))[:, :width]
                if normalize_embeddings:
                    new = F.normalize(new, dim=-1)
                if as_tensor:
                    tensors.append(new)
                else:
                    vectors.resize((count, width), refcheck=False)  # in place: never two copies of all
                    vectors[first:] = new.numpy()
        cut.warn(count)
        if as_tensor:
            whole = torch.cat(tensors)
            return whole[0] if isinstance(texts, str) else whole
        result: NDArray[Any] = vectors[0] if isinstance(texts, str) else vectors
        if precision in ("int8", "uint8") and calibration_embeddings is None and count > 1:
            warnings.warn(
                f"the ranges of precision={precision!r} are those of these {count} texts alone; pass "
                "calibration_embeddings=, vectors of typical texts, lest a text's numbers depend on the others",
                stacklevel=2,
            )
        if precision != "float32":
            result = quantize_embeddings(result, precision, calibration_embeddings=calibration_embeddings)
        return torch.from_numpy(result).to(self.model.device) if convert_to_tensor else result

    def encode_query(
        self,
        texts: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        **settings: Any,
    ) -> NDArray[Any] | Tensor:
        """`encode`, with the prompt that the checkpoint calls "query", if it has one."""
        name = self._known_prompt(prompt_name, prompt, "query")
        vectors: NDArray[Any] | Tensor = self.encode(texts, name, prompt, batch_size, show_progress_bar, **settings)
        return vectors

    def encode_document(
        self,
        texts: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        **settings: Any,
    ) -> NDArray[Any] | Tensor:
        """`encode`, with the prompt that the checkpoint calls "document", "passage" or "corpus", if it has one."""
        name = self._known_prompt(prompt_name, prompt, "document", "passage", "corpus")
        vectors: NDArray[Any] | Tensor = self.encode(texts, name, prompt, batch_size, show_progress_bar, **settings)
        return vectors

    @overload
    def words(  # type: ignore[overload-overlap]
        self, texts: str, **settings: Unpack[WordSettings]
    ) -> Words: ...

    @overload
    def words(
        self, texts: Iterable[str] | Iterable[Sequence[str]], **settings: Unpack[WordSettings]
    ) -> list[Words]: ...

    def words(
        self,
        texts: str | Iterable[str] | Iterable[Sequence[str]],
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
        """Give each word of each text its vector: the same word has another one in another sentence.

        Args:
            texts: one text, several, or several that are split already, each a list of words.
            layers, combine: as for `encode`; `layers=[-4, -3, -2, -1], combine="sum"` is a recipe of BERT's authors.
            pieces: what a word of several pieces gets: their "mean", the "first", the "last", or the largest of each
                number, "max".
            split: what words are: "pretokenizer", as BERT splits text, punctuation marks being words too; "whitespace".
            spans: instead, words of one's own: for each text (for one text, as it is) a list of (start, end), in
                characters and in order. A piece belongs to the word that it overlaps most; a word inside of a piece
                has that piece, too.
            batch_tokens, batch_size, show_progress_bar: as for `encode`.
            truncation: as for `encode`; with "window", a word's vector is from where it has most context on both sides.

        Returns:
            `Words` for one text, a list of them for several.

        Raises:
            MinibertError: what is not text; a setting that makes no sense; with `truncation="error"`, a text too long.

        Source: Devlin et al. 2018, sec. 5.3 and table 7.
        """
        for name, value, known in (("pieces", pieces, PIECES), ("split", split, SPLITTERS)):
            if value not in known:
                raise MinibertError(f"{name} ({value!r}) must be one of {', '.join(known)}")
        plan = self._plan(layers, combine, batch_tokens, batch_size)
        row_maker = RowMaker(self.tokenizer, self.max_seq_length, truncation)
        single = isinstance(texts, str)
        stream, total = as_stream(texts, words=True)
        engine, cut = self.engine, Cut(self.max_seq_length, truncation)
        found: list[Words] = []
        with Progress(total, self._shows(show_progress_bar)) as progress:
            for chunk in chunks(stream, TOKENIZED_AT_ONCE):  # not more, since what is left of it keeps all its vectors
                first = len(found)
                own = None if spans is None else [spans] if single else spans[first : first + len(chunk)]
                whole, places = split_texts(chunk, first, split, own)
                aligned, rows = align(self.tokenizer, whole, places, row_maker)
                cut.note(rows.lost, first)
                found += word_vectors(engine, self.tokenizer, whole, aligned, rows, plan, pieces, progress.add)
        cut.warn(len(found))
        warn_empty(found)
        return found[0] if single else found

    def similarity(self, a: Any, b: Any) -> Tensor:
        """Compare each vector of `a` with each of `b`, (N, M), as the checkpoint's recipe says: cosine, most often."""
        return similarity(a, b, self.recipe.similarity)

    def similarity_pairwise(self, a: Any, b: Any) -> Tensor:
        """Compare the first vector of `a` with the first of `b`, and so on: (N,)."""
        return similarity_pairwise(a, b, self.recipe.similarity)

    def whiten(self, texts: Iterable[str], dimensions: int | None = None, *, rotate: bool = True) -> Bert:
        """Fit, on a sample, the map that makes vectors spread evenly; the result encodes with it, and is saved with it.

        Raw BERT's vectors crowd in a narrow cone, all cosines near 1. Whitening subtracts their mean and turns and
        stretches the rest, so that all directions vary alike; the first of them vary most, and can do alone.

        Args:
            texts: the sample; thousands, of the kind that will be encoded.
            dimensions: how many numbers a vector keeps; None: all.
            rotate: False: subtract the mean, no more.

        Returns:
            A `Bert` with the same model. sentence-transformers, too, loads what it saves: the map is a Dense module.

        Raises:
            MinibertError: fewer texts than dimensions; more dimensions than there are.

        Source: Su et al. 2021, "Whitening Sentence Representations", algorithm 1.
        """
        white = copy(self)
        white.recipe = replace(self.recipe, normalize=False, truncate_dim=None)
        dense = whitening(white.encode(texts), dimensions, rotate)
        white.recipe = replace(self.recipe, dense=(*self.recipe.dense, dense), truncate_dim=None)
        return white

    def _check_recipe(self) -> None:
        if self.recipe.refusal:
            raise MinibertError(self.recipe.refusal)

    def _warn_untrained(self) -> None:
        """Say, once, that nobody trained the vectors."""
        if self.recipe.untrained and not self._warned:
            self._warned = True
            warn(self.recipe.untrained)

    def _check_output(self, one_array: bool, device: torch.device | str | None) -> None:
        """Refuse what sentence-transformers can do and `encode` cannot: a list of tensors, another device."""
        if not one_array:
            raise MinibertError(
                "convert_to_numpy (False) must be True, or convert_to_tensor True; pass convert_to_tensor=True, and "
                "list(vectors) is a list of tensors"
            )
        if device is not None:
            here, asked = self.model.device, check_device(device)
            if asked.type != here.type or asked.index not in (None, here.index):
                raise MinibertError(f"device ({device}) must be the model's ({here}); pass device= to minibert.load")

    def _plan(
        self,
        layers: int | Sequence[int] | None,
        combine: Combine,
        batch_tokens: int | None,
        batch_size: int | None,
    ) -> Plan:
        """What `encode` and `words` compute, and how much at once."""
        return Plan(
            plan_layers(layers, combine, len(self.layers)),
            combine,
            None if batch_tokens is None else whole_number("batch_tokens", batch_tokens),
            None if batch_size is None else whole_number("batch_size", batch_size),
        )

    def _prompt(self, name: str | None, prompt: str | None) -> str:
        """The text to put before texts."""
        if prompt is not None:
            check_text([prompt])
            return prompt
        if name is None:
            return self.recipe.prompt
        if not isinstance(name, str):
            raise MinibertError(
                f"prompt_name ({name!r:.40}) must be str; pass batch_size= for the number of texts at once"
            )
        if name not in self.recipe.prompts:
            known = ", ".join(map(repr, self.recipe.prompts)) or "none"
            raise MinibertError(
                f"prompt_name ({name!r}) must be a prompt of the checkpoint ({known}); pass prompt= to use another text"
            )
        return self.recipe.prompts[name]

    def _known_prompt(self, name: str | None, prompt: str | None, *names: str) -> str | None:
        """The name that was given or, of a call without a prompt, the first of `names` that the checkpoint has."""
        if name is None and prompt is None:
            return next((known for known in names if known in self.recipe.prompts), None)
        return name

    def _width(self, plan: Plan, modes: Sequence[str], truncate_dim: int | None) -> int:
        """How many numbers of a vector are kept."""
        whole = self.recipe.width(self.engine.width(plan) * len(modes))
        if truncate_dim is None:
            return min(whole, self.recipe.truncate_dim or whole)
        if whole_number("truncate_dim", truncate_dim) > whole:
            raise MinibertError(f"truncate_dim ({truncate_dim}) must not exceed {whole}, the length of a vector")
        return truncate_dim

    def _shows(self, show_progress_bar: bool | None) -> bool:
        return logger.isEnabledFor(logging.INFO) if show_progress_bar is None else show_progress_bar

    @overload
    def fill_mask(  # type: ignore[overload-overlap]
        self, texts: str, *, top_k: int | None = None, targets: Sequence[str] | None = None
    ) -> list[Candidate] | list[list[Candidate]]: ...

    @overload
    def fill_mask(
        self, texts: Iterable[str], *, top_k: int | None = None, targets: Sequence[str] | None = None
    ) -> list[list[Candidate] | list[list[Candidate]]]: ...

    def fill_mask(
        self,
        texts: str | Iterable[str],
        *,
        top_k: int | None = None,
        targets: Sequence[str] | None = None,
    ) -> list[Candidate] | list[list[Candidate]] | list[list[Candidate] | list[list[Candidate]]]:
        """Say what could stand at each [MASK].

        Args:
            texts: one text, or several, each with at least one [MASK].
            top_k, targets: as in `minibert.tasks.fill_mask.fill_mask`.

        Returns:
            Candidates, the most probable first, for one text with one [MASK]; a list of such lists for several masks;
            a list of either for several texts.

        Raises:
            ValueError: the checkpoint has no masked-LM head; a text without [MASK], or too long; an impossible target.
        """
        if not isinstance(self.model, (BertForMaskedLM, BertForPreTraining)):
            raise MinibertError(
                f"{self.source} must have a masked-LM head to fill masks; it lacks {', '.join(self._missing_mlm)}: "
                "load a checkpoint that has it, google-bert/bert-base-uncased for one"
            )
        check_fork()
        results: list[list[Candidate] | list[list[Candidate]]] = []
        for index, text in enumerate(as_list(texts)):
            candidates = fill_mask(self.model, self.tokenizer, text, top_k=top_k, targets=targets, index=index)
            results.append(candidates[0] if len(candidates) == 1 else candidates)
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
        results = classify(self._scorer(**settings), texts, pair, top_k=top_k, threshold=threshold)
        return results[0] if isinstance(texts, str) else results

    def label_scores(
        self,
        texts: str | Iterable[str],
        pair: str | Iterable[str] | None = None,
        **settings: Unpack[ScoreSettings],
    ) -> NDArray[np.float32]:
        """The scores of `classify` as an array, (N, labels), with the labels in the order of `config.id2label`."""
        empty = np.empty((0, self.config.num_labels), np.float32)
        scores = np.concatenate([empty, *map(np.asarray, label_scores(self._scorer(**settings), texts, pair))])
        return scores[0] if isinstance(texts, str) else scores

    def score(self, pairs: Iterable[Any], **settings: Unpack[ScoreSettings]) -> Any:
        """Score pairs of texts with a reranker, as sentence-transformers' `CrossEncoder.predict` does.

        Args:
            pairs: (query, document) for each; or one pair.
            settings: as for `classify`.

        Returns:
            (N,) float32; for one pair, a number.

        Raises:
            MinibertError: the checkpoint is no reranker; what is not a pair of texts.
        """
        scorer = self._scorer(**settings)
        scores = score(scorer, activation_of(self.config, self.recipe.settings), pairs)
        return scores[0] if is_pair(pairs) else scores

    def rank(
        self, query: str, documents: Iterable[str], top_k: int | None = None, **settings: Unpack[ScoreSettings]
    ) -> list[Ranked]:
        """Sort documents by how well they answer a query, with a reranker.

        Args:
            query: a text.
            documents: several texts.
            top_k: how many to return; None means all.
            settings: as for `classify`.

        Returns:
            The documents with their numbers and scores, the best first.

        Raises:
            MinibertError: the checkpoint is no reranker; what is not text.
        """
        scorer = self._scorer(**settings)
        return rank(scorer, activation_of(self.config, self.recipe.settings), query, documents, top_k)

    def _scorer(
        self,
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
            self._plan(None, "mean", batch_tokens, batch_size),
            truncation,
            self._shows(show_progress_bar),
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model, tokenizer and recipe into `folder`, for `load`, transformers and sentence-transformers alike.

        Whenever this is interrupted, the folder holds the old model or the new one. Other files in it stay.

        Raises:
            MinibertError: the recipe is one that cannot be honoured here, so neither can it be written.
        """
        self._check_recipe()
        with folder_written_whole(Path(folder)) as new:
            self.model.save_pretrained(new)
            self.tokenizer.save_pretrained(new)
            self.recipe.save(new, self.config.hidden_size)

    def info(self) -> dict[str, Any]:
        """What was loaded, as plain values."""
        config, recipe = self.config, self.recipe
        return {
            "source": str(self.source),
            "layers": config.num_hidden_layers,
            "hidden_size": config.hidden_size,
            "attention_heads": config.num_attention_heads,
            "intermediate_size": config.intermediate_size,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "vocabulary": len(self.tokenizer),
            "lower_case": self.tokenizer.do_lower_case,
            "max_seq_length": self.max_seq_length,
            "heads": list(self.heads),
            "fill_mask": isinstance(self.model, (BertForMaskedLM, BertForPreTraining)),
            "pooling": list(recipe.pooling),
            "maps": len(recipe.dense),
            "normalize": recipe.normalize,
            "pooling_source": recipe.refusal or recipe.source,
            "dimension": self.dimension,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "dtype_reason": self._dtype_reason,
            "device": str(self.model.device),
        }

    def __repr__(self) -> str:
        info = self.info()
        pooling = " + ".join(info["pooling"]) + ", mapped" * bool(info["maps"]) + ", normalized" * info["normalize"]
        reason = f", chosen since {info['dtype_reason']}" if info["dtype_reason"] else ""
        headless = "no: the checkpoint has no masked-LM head"
        if 0 < len(self._missing_mlm) < len(MLM_TENSORS):
            headless = f"no: of the masked-LM head, the checkpoint lacks {', '.join(self._missing_mlm)}"
        rows = {
            "source": info["source"],
            "shape": f"{info['layers']} layers, hidden size {info['hidden_size']}, {info['attention_heads']} heads, "
            f"{info['parameters'] / 1e6:.1f} million parameters",
            "vocabulary": f"{info['vocabulary']:,} tokens, {'lower-cased' if info['lower_case'] else 'cased'}",
            "heads": ", ".join(info["heads"]) or "none",
            "fill_mask": "yes" if info["fill_mask"] else headless,
            "pooling": f"{pooling} ({info['pooling_source']}), vectors of {info['dimension']}",
            "longest": f"{info['max_seq_length']} tokens",
            "dtype": f"{info['dtype']} on {info['device']}{reason}",
        }
        return "\n".join(["Bert", *(f"  {name:<11} {value}" for name, value in rows.items())])
