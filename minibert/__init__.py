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
    bert.py         tokenizer, model and the checkpoint's recipe: vectors, answers, and what is inside
    loading.py      `load`: from a checkpoint to a `Bert`
    cli/            the commands, one file each; demo.py is the text of `minibert demo`

The folders: pretrained/ (name -> files -> tensors -> our names); engine/ (many texts through the model, fast); vectors/
(hidden states -> vectors of texts and words); tasks/ (hidden states -> answers); study/ (inspecting and editing the
computation, parity with transformers); training/ (fine-tuning and pretraining); search/ (an index); lexicon/ (meanings
of words); corpus/ (files of any size); pictures/ and reports/ (figures and measurements); integrations/ (spaCy,
scikit-learn and others).
"""

from importlib.metadata import PackageNotFoundError, version

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

try:
    __version__ = version("readable-bert")
except PackageNotFoundError:  # run from the source tree, not installed
    __version__ = "0.0.0"

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
