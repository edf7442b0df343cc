"""A readable BERT in PyTorch: vectors of texts and words, filled masks, search.

    import minibert

    bert = minibert.load("google-bert/bert-base-uncased")
    bert.encode("How do I reset my password?")        # a vector
    bert.fill_mask("Hello I'm a [MASK] model.")       # the most probable words

To read the code, follow the data; no file imports a later one:

    errors.py       the error for unusable input
    text.py         checks of texts and counts
    records.py      JSON, and rows of CSV, JSON lines and Parquet
    config.py       the sizes, and a letter for each
    wordpiece.py    BERT's tokenization rules, in a page of plain Python
    batch.py        batches: truncation, padding, tensors
    tokenizer.py    text -> ids, the fast implementation of the same rules
    embeddings.py   ids -> (B, S, H)
    attention.py    queries, keys, values, scores, mix
    encoder.py      feed-forward; L layers of attention and feed-forward
    heads.py        the pooler, the masked-LM head, classifiers
    inputs.py       what a model is given, checked
    outputs.py      what a model returns
    base.py         what every model can do: start at random, load, save
    model.py        BertModel and BertFor..., built from the parts above
    summary.py      what was loaded, in a few lines
    compat.py       the names of sentence-transformers for what a `Bert` has
    bert.py         tokenizer, model and the checkpoint's recipe: vectors, answers, and what is inside
    loading.py      `load`: from a checkpoint to a `Bert`
    cli/            the commands, one file each; demo.py is the text of `minibert demo`

The folders: pretrained/ (name -> files -> tensors -> our names); engine/ (many texts through the model, fast); vectors/
(hidden states -> vectors of texts and words); tasks/ (hidden states -> answers); study/ (inspecting and editing the
computation, parity with transformers); training/ (fine-tuning and pretraining); search/ (an index); lexicon/ (meanings
of words); corpus/ (files of any size); pictures/ and reports/ (figures and measurements); integrations/ (spaCy,
scikit-learn and others).
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minibert.batch import BatchEncoding
    from minibert.bert import Bert
    from minibert.config import BertConfig
    from minibert.errors import MinibertError
    from minibert.lexicon.senses import Expansion, Senses, expand, senses, substitutes
    from minibert.loading import load
    from minibert.model import (
        BertForMaskedLM,
        BertForMultipleChoice,
        BertForNextSentencePrediction,
        BertForPreTraining,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
        BertModel,
    )
    from minibert.pretrained.source import Source
    from minibert.reports.heads import HeadStatistics, head_statistics
    from minibert.search.index import Hit, Index
    from minibert.search.mining import Pair, community_detection, paraphrase_mining
    from minibert.study.attribution import Explanation
    from minibert.study.pairs import SimilarityMap
    from minibert.study.parity import ParityReport, parity
    from minibert.tasks.annotate import Annotation
    from minibert.tasks.answer import Answer
    from minibert.tasks.classify import Label
    from minibert.tasks.entities import Entity
    from minibert.tasks.fill_mask import Candidate
    from minibert.tasks.rank import Ranked
    from minibert.tasks.tables import to_pandas
    from minibert.tokenizer import BertTokenizer
    from minibert.training.finetune import Run
    from minibert.vectors.recipe import Recipe
    from minibert.vectors.similarity import quantize_embeddings, similarity, similarity_pairwise
    from minibert.vectors.words import Words, words_to_pandas

    __version__: str

# Where the names are. A module is imported when one of them is first used: `minibert --help` does not wait for torch.
_NAMES = {
    "batch": "BatchEncoding",
    "bert": "Bert",
    "config": "BertConfig",
    "errors": "MinibertError",
    "lexicon.senses": "Expansion Senses expand senses substitutes",
    "loading": "load",
    "model": (
        "BertForMaskedLM BertForMultipleChoice BertForNextSentencePrediction BertForPreTraining "
        "BertForQuestionAnswering BertForSequenceClassification BertForTokenClassification BertModel"
    ),
    "pretrained.source": "Source",
    "reports.heads": "HeadStatistics head_statistics",
    "search.index": "Hit Index",
    "search.mining": "Pair community_detection paraphrase_mining",
    "study.attribution": "Explanation",
    "study.pairs": "SimilarityMap",
    "study.parity": "ParityReport parity",
    "tasks.annotate": "Annotation",
    "tasks.answer": "Answer",
    "tasks.classify": "Label",
    "tasks.entities": "Entity",
    "tasks.fill_mask": "Candidate",
    "tasks.rank": "Ranked",
    "tasks.tables": "to_pandas",
    "tokenizer": "BertTokenizer",
    "training.finetune": "Run",
    "vectors.recipe": "Recipe",
    "vectors.similarity": "quantize_embeddings similarity similarity_pairwise",
    "vectors.words": "Words words_to_pandas",
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """The value of a public name, or a module of the package, on its first use."""
    if name in _MODULES:
        value = getattr(import_module(f"minibert.{_MODULES[name]}"), name)
    elif name == "__version__":
        value = _version()
    elif not name.startswith("_") and find_spec(f"minibert.{name}") is not None:
        value = import_module(f"minibert.{name}")
    else:
        raise AttributeError(f"module 'minibert' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, also those that were not used yet."""
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("readable-bert")
    except PackageNotFoundError:  # run from the source tree, not installed
        return "0.0.0"


__all__ = [
    "Annotation",
    "Answer",
    "BatchEncoding",
    "Bert",
    "BertConfig",
    "BertForMaskedLM",
    "BertForMultipleChoice",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertTokenizer",
    "Candidate",
    "Entity",
    "Expansion",
    "Explanation",
    "HeadStatistics",
    "Hit",
    "Index",
    "Label",
    "MinibertError",
    "Pair",
    "ParityReport",
    "Ranked",
    "Recipe",
    "Run",
    "Senses",
    "SimilarityMap",
    "Source",
    "Words",
    "community_detection",
    "expand",
    "head_statistics",
    "load",
    "paraphrase_mining",
    "parity",
    "quantize_embeddings",
    "senses",
    "similarity",
    "similarity_pairwise",
    "substitutes",
    "to_pandas",
    "words_to_pandas",
]
