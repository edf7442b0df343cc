"""Pretraining end to end: what it writes, that it learns, and that it goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from oracle import TINY, with_real_vocabulary

import minibert
from minibert.cli import main
from minibert.errors import MinibertError
from minibert.training import pretrain as module
from minibert.training.loop import DivergenceError
from minibert.training.masking import Masking
from minibert.training.pretrain import masked_loss, pretrain

WORDS = ("the old dog sleeps", "a young cat runs", "the small bird sings", "every good child plays")
SMALL: dict[str, Any] = {"vocab_size": 120, "length": 32, "batch_size": 8, "show_progress_bar": False}


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two files of sentences that are easy to learn."""
    folder = tmp_path_factory.mktemp("books")
    random = np.random.default_rng(0)
    for name in ("one.txt", "two.txt"):
        lines = [f"{WORDS[i]} in the garden near the house today." for i in random.integers(0, 4, 300)]
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return [folder / "one.txt", folder / "two.txt"]


@pytest.fixture(scope="module")
def size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a very small model."""
    path = tmp_path_factory.mktemp("size") / "config.json"
    path.write_text(json.dumps({**TINY, "model_type": "bert"}))
    return path


def test_it_learns_writes_a_model_that_transformers_loads_and_does_nothing_twice(
    books: list[Path], size: Path, tmp_path: Path
) -> None:
    found = pretrain(books, tmp_path, size=size, epochs=12, learning_rate=3e-3, evaluate_every=20, **SMALL)
    evaluations = found.history.evaluations
    assert evaluations[-1]["loss"] < 2.0 < evaluations[0]["loss"]  # the words of a sentence, but for its animal
    assert found.metrics["loss"] == evaluations[-1]["loss"]
    assert found.metrics["accuracy"] > 0.3
    names = {path.name for path in (tmp_path / "training").iterdir()}
    assert {"losses.csv", "metrics.csv", "curve.png", "result.json", "states", "tokens.bin"} <= names
    assert (tmp_path / "training" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    sentence, before, after = found.filled[0]
    assert "[MASK]" in sentence
    assert before != after
    theirs = transformers.BertForMaskedLM.from_pretrained(tmp_path)
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path)(["the old [MASK] sleeps"], return_tensors="pt")
    assert torch.allclose(theirs(**inputs).logits, found.bert.model(**inputs).logits, atol=1e-5)
    again = pretrain(books, tmp_path, size=size, epochs=12, learning_rate=3e-3, evaluate_every=20, **SMALL)
    assert again.history.steps == found.history.steps
    assert all(
        torch.equal(a, b) for a, b in zip(again.bert.model.parameters(), found.bert.model.parameters(), strict=True)
    )
    assert again.filled == found.filled


def test_a_text_that_the_vocabulary_lacks_is_told(books: list[Path], size: Path, minilm: Path, tmp_path: Path) -> None:
    book = tmp_path / "thai.txt"
    book.write_text("ภาษาไทย " * 300, encoding="utf-8")
    settings: dict[str, Any] = {"size": size, "epochs": 0.1, "length": 16, "batch_size": 4}
    with pytest.warns(
        UserWarning, match=r"100.0% of the tokens of the text are \[UNK\], of which nothing can be learned"
    ):
        pretrain([book], tmp_path / "run", vocabulary=minilm, **settings)


def test_changed_tokens_are_written_again_and_other_folders_left_alone(
    books: list[Path], size: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"size": size, "epochs": 1, "save_every": 5, **SMALL}
    whole = pretrain(books, tmp_path / "whole", **settings)
    tokens, index = tmp_path / "whole" / "training" / "tokens.bin", tmp_path / "whole" / "training" / "tokens.json"
    right, places = tokens.read_bytes(), index.read_text()
    ends = json.loads(places)["ends"]
    for path, content in (
        (tokens, right[:100] + bytes([right[100] ^ 1]) + right[101:]),
        (tokens, right[:-50]),
        (tokens, b""),
        (index, places.replace(f"{ends[0]}", f"{ends[0] - 1}")),
        (index, "[" * 100_000),
        (index, '{"digest": 1'),
    ):
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.warns(UserWarning, match=r"tokens\.bin must be as it was written; it has changed"):
            again = pretrain(books, tmp_path / "whole", **settings)
        assert (tokens.read_bytes(), index.read_text()) == (right, places)
        assert again.metrics == whole.metrics
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text("mine")
    with pytest.raises(MinibertError, match=r"must be empty or hold a run of its own, but it holds config\.json"):
        pretrain(books, tmp_path / "other", **settings)
    assert [path.name for path in (tmp_path / "other").rglob("*")] == ["config.json"]


def test_a_stopped_run_ends_as_one_that_was_not(
    books: list[Path], size: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"size": size, "epochs": 1, "save_every": 5, **SMALL}
    whole = pretrain(books, tmp_path / "a", **settings)
    original, calls = Masking.__call__, 0

    def dying(masking: Masking, ids: Any, random: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 150:
            raise KeyboardInterrupt
        return original(masking, ids, random)

    with monkeypatch.context() as patched:
        patched.setattr(Masking, "__call__", dying)
        with pytest.raises(KeyboardInterrupt):
            pretrain(books, tmp_path / "b", **settings)
    resumed = pretrain(books, tmp_path / "b", **settings)
    losses = [(tmp_path / name / "training" / "losses.csv").read_bytes() for name in "ab"]
    assert losses[0] == losses[1]
    pairs = zip(resumed.bert.model.parameters(), whole.bert.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_vocabulary_that_was_not_saved_is_learned_again(
    books: list[Path], size: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(*_: object) -> None:
        raise KeyboardInterrupt

    settings = {"size": size, "epochs": 0.2, **SMALL}
    with monkeypatch.context() as patched:
        patched.setattr(minibert.BertTokenizer, "_save", dying)
        with pytest.raises(KeyboardInterrupt):
            pretrain(books, tmp_path, **settings)
    assert len(pretrain(books, tmp_path, **settings).bert.tokenizer) <= 120


def test_other_text_or_masks_are_not_gone_on_with(books: list[Path], size: Path, tmp_path: Path) -> None:
    settings = {"size": size, "epochs": 0.2, **SMALL}
    pretrain(books, tmp_path, **settings)
    with pytest.raises(MinibertError, match=r"masking\.rate: 0\.15, now 0\.3"):
        pretrain(books, tmp_path, mask_rate=0.3, **settings)
    with pytest.raises(MinibertError, match="files: "):
        pretrain(books[:1], tmp_path, **settings)
    changed = tmp_path / "config.json"
    changed.write_text(json.dumps({**TINY, "hidden_dropout_prob": 0.25}))
    with pytest.raises(MinibertError, match=r"model\.hidden_dropout_prob: 0\.1, now 0\.25"):
        pretrain(books, tmp_path, **{**settings, "size": changed})
    with pytest.raises(MinibertError, match="vocabulary: "):
        pretrain(books, tmp_path, **{**settings, "vocab_size": 60})


def test_a_short_text_keeps_a_row_apart_or_is_refused(size: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "size": size, "length": 8, "epochs": 3}
    (tmp_path / "book.txt").write_text("the old dog sleeps in the garden near the house")
    seen: list[bytes] = []
    with pytest.MonkeyPatch.context() as patched:
        whole = Masking.__call__

        def noted(self: Masking, ids: Any, random: Any) -> Any:
            seen.append(ids.tobytes())
            return whole(self, ids, random)

        patched.setattr(Masking, "__call__", noted)
        pretrain([tmp_path / "book.txt"], tmp_path / "two", **settings)
    assert len(set(seen)) > 1
    assert seen.count(seen[0]) == 1  # the held-out row is masked once, before all others
    (tmp_path / "short.txt").write_text("the dog")
    with pytest.raises(MinibertError, match=r"of one row of 8 tokens\) must give two; add text, or pass held_out"):
        pretrain([tmp_path / "short.txt"], tmp_path / "one", **settings)


def test_a_run_that_diverges_names_its_texts_and_leaves_a_curve(books: list[Path], size: Path, tmp_path: Path) -> None:
    def diverging(self: Any, model: Any, outputs: torch.Tensor, examples: Any, counts: Any) -> torch.Tensor:
        steps.append(1)
        return outputs.sum() * (torch.nan if len(steps) > 3 else 0.0)

    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module.MaskedTokens, "loss", diverging)
        with pytest.raises(DivergenceError, match=r"look at the texts of this step \('.*in the garden.*, \.\.\.\)"):
            pretrain(books, tmp_path, size=size, epochs=1, **SMALL)
    assert (tmp_path / "training" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    assert not (tmp_path / "config.json").exists()


def test_it_goes_on_from_a_checkpoint_with_and_without_the_head(
    books: list[Path], minilm: Path, tmp_path: Path
) -> None:
    masked = with_real_vocabulary(tmp_path / "masked", minilm)
    found = pretrain(books, tmp_path / "a", model=masked, epochs=0.5, learning_rate=1e-3, **SMALL)
    first = found.history.steps[0].loss
    assert found.metrics["loss"] < first
    before = minibert.load(minilm)
    headless = pretrain(books[:1], tmp_path / "b", model=minilm, epochs=0.1, held_out=books[1:], **SMALL)
    assert headless.bert.model.mlm_head.bias.shape == (30522,)  # type: ignore[union-attr]
    states = [
        before.encoder.encoder.layers[5].feed_forward.up.weight,
        headless.bert.encoder.encoder.layers[5].feed_forward.up.weight,
    ]
    assert 0 < (states[0] - states[1]).abs().max() < 0.01  # it went on from there
    assert minibert.load(tmp_path / "b").fill_mask("a [MASK].")


def test_the_loss_of_held_out_rows_is_that_of_transformers(minilm: Path, tmp_path: Path) -> None:
    folder = with_real_vocabulary(tmp_path, minilm)
    ours, theirs = (
        minibert.BertForMaskedLM.from_pretrained(folder),
        transformers.BertForMaskedLM.from_pretrained(folder),
    )
    tokenizer = minibert.BertTokenizer.from_pretrained(minilm)
    masking, random = Masking.of(tokenizer), np.random.default_rng(0)
    texts = ["He sat by the river and looked at the water.", "She went to the bank.", "Stop!"]
    examples = [masking(np.array(tokenizer.encode(text)), random) for text in texts]
    losses, hits, count = 0.0, 0, 0
    for example in examples:
        ids, labels = torch.tensor(example.rows[0])[None], torch.tensor(example.labels)[None]
        outputs = theirs(ids, labels=labels)
        masks = int((labels != -100).sum())
        losses, count = losses + outputs.loss.item() * masks, count + masks
        hits += int((outputs.logits.argmax(-1) == labels).sum())
    found = masked_loss(ours, examples, part_tokens=10)
    assert found["loss"] == pytest.approx(losses / count, rel=1e-5)
    assert found["accuracy"] == pytest.approx(hits / count)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": "huge"}, r"size \(huge\) must be one of tiny, mini, small, base, or a config\.json"),
        ({"size": "tiny", "model": "x"}, r"size \(tiny\) must not be given with model \(x\)"),
        ({"vocabulary": "y", "model": "x"}, r"vocabulary \(y\) must not be given with model \(x\)"),
        ({"mask_rate": 1.5}, r"mask_rate \(1\.5\) must be between 0 and 1"),
        ({"length": 2}, r"length \(2\) must be 3 to 512 tokens"),
        ({"batch_size": 0}, r"batch_size \(0\) must be a whole number"),
        ({"epochs": -1}, r"epochs \(-1\) must be a number above 0"),
        ({"evaluate_every": 0}, r"evaluate_every \(0\) must be a whole number"),
        ({"vocab_size": 9}, r"vocab_size \(9\) must have room for each character"),
    ],
)
def test_wrong_settings_get_one_sentence(
    arguments: dict[str, Any], message: str, books: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(MinibertError, match=message):
        pretrain(books, tmp_path, **{"vocab_size": 120, **arguments})


def test_rows_longer_than_a_checkpoint_takes_are_refused(books: list[Path], minilm: Path, tmp_path: Path) -> None:
    with pytest.raises(MinibertError, match=r"length \(513\) must be 3 to 512 tokens"):
        pretrain(books, tmp_path, model=minilm, length=513)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "size.json").write_bytes(b"\x8a")
    (tmp_path / "text.txt").write_text("some words")
    with pytest.raises(MinibertError, match=r"size\.json\) must be a config\.json of a BERT"):
        pretrain([tmp_path / "text.txt"], tmp_path / "out", size=tmp_path / "size.json")
    with pytest.raises(MinibertError, match=r"text\.txt\) must be a folder, not a file"):
        pretrain([tmp_path / "text.txt"], tmp_path / "text.txt")
    with pytest.raises(MinibertError, match=r"files \(\[\]\) must name at least one"):
        pretrain([], tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        pretrain([tmp_path / "none.txt"], tmp_path / "out")


def test_without_matplotlib_it_says_so_before_it_starts(
    books: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        pretrain(books, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_what_was_learned(
    books: list[Path], size: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["pretrain", *map(str, books), "--config", str(size), "--vocab-size", "120", "--length", "32"]
    assert main([*given, "--epochs", "0.5", "-o", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  before: ")
    assert lines[2].startswith("  after:  ")
    assert lines[-1].startswith("held-out loss ")
    assert module.SIZES["base"] == (12, 768)
