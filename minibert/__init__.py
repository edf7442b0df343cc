"""BERT in one sitting: text in, meaning out, with code a person can read.

    import minibert

    bert = minibert.load("google-bert/bert-base-uncased")
    bert.encode("How do I reset my password?")        # a vector
    bert.fill_mask("Hello I'm a [MASK] model.")       # candidates

To read the code, follow the data, and never turn back:

    errors.py       what can be wrong with what a user gives
    text.py         one text, several, a stream: told apart
    config.py       the sizes, and the letters for them
    wordpiece.py    BERT's rules for text, in a page of plain Python
    batch.py        texts side by side: truncated, padded, made into tensors
    tokenizer.py    text -> ids, by the same rules, fast
    embeddings.py   ids -> (B, S, H)
    attention.py    queries, keys, values, scores, mix
    encoder.py      feed-forward; L layers of both
    heads.py        the pooler, the masked-LM head, classifiers
    outputs.py      what a model returns
    model.py        BertModel, BertFor...: the parts above, joined
    bert.py         tokenizer + model + what the checkpoint says about using them: vectors, filled masks
    loading.py      `load`: a checkpoint becomes a `Bert`
    cli/            a file for each command; demo.py is the tour that one of them gives

and the folders: pretrained/ (name -> files -> tensors -> our names); engine/ (many texts through the model, fast);
vectors/ (hidden states -> vectors of texts and words); tasks/ (hidden states -> answers); study/ (the numbers inside,
edits, parity with transformers); search/, lexicon/ and corpus/ (what is done with vectors: an index, meanings of words,
files of any size); pictures/ and reports/ (figures and measurements); integrations/ (spaCy, scikit-learn and others).
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
from minibert.study.attribution import Explanation
from minibert.study.pairs import SimilarityMap
from minibert.study.parity import ParityReport, parity
from minibert.tasks.fill_mask import Candidate
from minibert.tokenizer import BertTokenizer
from minibert.vectors.recipe import Recipe
from minibert.vectors.similarity import quantize_embeddings, similarity, similarity_pairwise
from minibert.vectors.words import Words, words_to_pandas

try:
    __version__ = version("readable-bert")
except PackageNotFoundError:  # run from the source tree, not installed
    __version__ = "0.0.0"

__all__ = [
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
    "Expansion",
    "Explanation",
    "HeadStatistics",
    "Hit",
    "Index",
    "MinibertError",
    "ParityReport",
    "Recipe",
    "Senses",
    "SimilarityMap",
    "Source",
    "Words",
    "expand",
    "head_statistics",
    "load",
    "parity",
    "quantize_embeddings",
    "senses",
    "similarity",
    "similarity_pairwise",
    "substitutes",
    "words_to_pandas",
]
