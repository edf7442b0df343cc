"""Texts of any size become rows of equal length: tokenized once, kept in a file, cut on demand."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
from tokenizers import Tokenizer, models, trainers

from minibert.errors import MinibertError, warn
from minibert.pretrained.files import sha256_of, to_disk, write_text, written_whole
from minibert.records import decoded, parsed_json
from minibert.text import counted
from minibert.tokenizer import BertTokenizer
from minibert.training.packed import Ids

CHARACTERS = 1_000  # that a learned vocabulary has in any case, if the texts have so many
COVERED = 0.9999  # of all characters of the texts; the rarest others become [UNK]
PIECE = 2**16  # characters tokenized at once; a text is cut where a line ends, or a word of a very long line


class Sequences(Sequence[Ids]):
    """Rows of tokens, each from one document.

    Args:
        tokens: the ids of all documents, one after another; a memory-mapped file can be larger than the memory.
        ends: where each document ends in `tokens`.
        length: tokens of a row, with [CLS] and [SEP]; the last row of a document may be shorter.
        cls, sep: their ids.
    """

    def __init__(self, tokens: Ids, ends: Sequence[int], length: int, cls: int, sep: int) -> None:
        self.tokens = tokens
        self._cls, self._sep = np.array([cls]), np.array([sep])
        room = length - 2
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        cuts = [np.arange(start, end, room) for start, end in zip(starts, ends, strict=True)]
        self.starts = np.concatenate(cuts) if cuts else np.empty(0, dtype=np.int64)
        self.ends = np.concatenate(
            [np.minimum(cut + room, end) for cut, end in zip(cuts, ends, strict=True)] if cuts else [self.starts]
        )

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Ids: ...
    @overload
    def __getitem__(self, index: slice) -> list[Ids]: ...
    def __getitem__(self, index: int | slice) -> Ids | list[Ids]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        tokens = self.tokens[self.starts[index] : self.ends[index]]
        return np.concatenate([self._cls, tokens, self._sep]).astype(np.int64)


def tokenized(
    documents: Iterable[Iterable[str]], digest: str, tokenizer: BertTokenizer, path: Path
) -> tuple[Ids, list[int]]:
    """Tokenize documents into a file, or use the file if it is that of the same documents and tokenizer.

    Args:
        documents: the lines of each document. They are read as needed.
        digest: what tells these documents from others.
        tokenizer: of the model.
        path: the file, `.bin`; its list of documents is beside it, `.json`.

    Returns:
        The ids of all documents, memory-mapped; and where each one ends.
    """
    index = path.with_suffix(".json")
    digest = hashlib.sha256(f"{digest} {tokenizer.backend.to_str()}".encode()).hexdigest()
    dtype = np.dtype(np.uint16 if len(tokenizer) <= 2**16 else np.uint32)
    ends = _kept(path, index, digest)
    if ends is None:
        index.unlink(missing_ok=True)  # until it is written again, nothing vouches for the tokens
        ends, total = [], 0
        with written_whole(path) as new, new.open("wb") as file:
            for lines in documents:
                for piece in pieces(lines):
                    ids = tokenizer.backend.encode_batch_fast([piece], add_special_tokens=False)[0].ids
                    file.write(np.array(ids, dtype=dtype).tobytes())
                    total += len(ids)
                ends.append(total)
            to_disk(file)
        write_text(index, json.dumps({"digest": digest, "content": _content(path, ends), "ends": ends}) + "\n")
    if not ends or not ends[-1]:
        raise MinibertError("the files must hold text to learn from, and these hold no tokens; name other files")
    return np.memmap(path, dtype=dtype, mode="r"), ends


def _kept(path: Path, index: Path, digest: str) -> list[int] | None:
    """Where each document ends in the file of tokens; None if there is none, or it is of other documents.

    A file that was changed or truncated counts as none, with a warning: the same tokens are then written again.
    """
    if not index.exists():
        return None
    try:
        found = parsed_json(index.read_bytes(), str(index))
        if found["digest"] != digest:
            return None
        if path.is_file() and found["content"] == _content(path, found["ends"]):
            return list(found["ends"])
    except (MinibertError, KeyError, TypeError):
        pass
    warn(f"{path} must be as it was written; it has changed, or its list {index.name} has: it is written again")
    return None


def _content(path: Path, ends: Sequence[int]) -> str:
    """A digest of a file of tokens and of where its documents end."""
    return hashlib.sha256(f"{sha256_of(path)} {json.dumps(ends)}".encode()).hexdigest()


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text file, without their ends.

    Raises:
        FileNotFoundError: there is no such file.
        MinibertError: it is not UTF-8.
    """
    for _, line in decoded(str(path)):
        yield line.rstrip("\r\n")


def digest_of(paths: Sequence[Path]) -> str:
    """One digest of the contents of files."""
    return hashlib.sha256(b"".join(bytes.fromhex(sha256_of(path)) for path in paths)).hexdigest()


def pieces(lines: Iterable[str]) -> Iterator[str]:
    """Lines joined to pieces of about `PIECE` characters; a longer line is cut before white space."""
    held: list[str] = []
    size = 0
    for line in lines:
        if len(line) > PIECE:
            if held:
                yield "\n".join(held)
            *cut, line = _cut(line)
            yield from cut
            held, size = [], 0
        held.append(line)
        size += len(line)
        if size >= PIECE:
            yield "\n".join(held)
            held, size = [], 0
    if held:
        yield "\n".join(held)


def _cut(line: str) -> Iterator[str]:
    while len(line) > PIECE:
        cut = next((place for place in range(PIECE, 0, -1) if line[place].isspace()), PIECE)
        yield line[:cut]
        line = line[cut:]
    yield line


def new_vocabulary(texts: Callable[[], Iterable[str]], size: int, *, lower_case: bool = True) -> BertTokenizer:
    """Learn a WordPiece vocabulary. The same texts always give the same one. Accents and vowel signs are kept.

    Args:
        texts: returns what it is learned from; called twice.
        size: tokens, the five special ones included.
        lower_case: capitals count as small letters.

    Raises:
        MinibertError: the size leaves no room for the characters of the texts.

    Source: the `tokenizers` library's WordPiece trainer (Schuster and Nakajima 2012, by way of byte-pair merges).
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]  # in the order of BERT's own vocabularies
    # accents are kept: without its marks, Hindi is another text
    rules = BertTokenizer(
        {token: i for i, token in enumerate(special)}, do_lower_case=lower_case, strip_accents=False
    ).backend
    counts: Counter[str] = Counter()
    for text in texts():
        counts.update(rules.normalizer.normalize_str(text))
    most = [(c, count) for c, count in counts.most_common() if not c.isspace()]
    share = np.cumsum([count for _, count in most]) / max(1, sum(count for _, count in most))
    characters = sorted(c for c, _ in most[: max(CHARACTERS, int(np.searchsorted(share, COVERED)) + 1)])
    inside = [c for c in characters if not _is_word(rules, c)]
    # the trainer numbers pieces in the order in which it meets them, which is another one each time, unless it is told
    pieces = [*characters, *(f"##{c}" for c in inside)]
    if len(special) + len(pieces) > size:
        needed = counted(len(special) + len(pieces), "token")
        raise MinibertError(
            f"vocab_size ({size}) must have room for each character, at the start of a word and inside one, and for "
            f"special tokens ({needed}); choose a larger one"
        )
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = rules.normalizer, rules.pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=special + pieces,
        limit_alphabet=len(characters),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    made.train_from_iterator(texts(), trainer)
    return BertTokenizer(made.get_vocab(), do_lower_case=lower_case, strip_accents=False)


def _is_word(rules: Tokenizer, character: str) -> bool:
    """Whether a character is a word of its own wherever it stands, such as a Chinese one or a comma."""
    normal = rules.normalizer.normalize_str(f"a{character}a")
    return len(rules.pre_tokenizer.pre_tokenize_str(normal)) > 1
