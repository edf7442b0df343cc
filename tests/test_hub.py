"""Loading from the Hub, through its real client, from a server on this machine that speaks its protocol."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from local_hub import LocalHub
from oracle import theirs_of
from safetensors.torch import load_file, save_file

import minibert

IDS = torch.tensor([[2, 5, 17, 98, 3]])
SMALL = "someone/small-bert"
BASE = "google-bert/bert-base-uncased"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A server, and the client pointed at it; the client's pauses between retries are skipped."""
    server = LocalHub()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    # the client keeps what has arrived in chunks of 10 MB, more than these small files have
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    yield server
    huggingface_hub.close_session()
    server.stop()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def small(tmp_path: Path, hub: LocalHub) -> Path:
    """A small masked-LM checkpoint on the server, with a tokenizer; the value is its folder."""
    folder = tmp_path / "small"
    theirs_of("BertForMaskedLM", folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(94))]
    minibert.BertTokenizer({word: i for i, word in enumerate(words)}).save_pretrained(folder)
    for extra in ("tf_model.h5", "flax_model.msgpack", "pytorch_model.bin", "README.md"):
        (folder / extra).write_bytes(b"not needed")
    hub.add(SMALL, folder)
    return folder


def logits(folder: Path) -> torch.Tensor:
    return minibert.BertForMaskedLM.from_pretrained(folder)(IDS).logits.detach()


def load(cache: Path, **arguments: Any) -> minibert.BertForMaskedLM:
    name = arguments.pop("name", SMALL)
    return minibert.BertForMaskedLM.from_pretrained(name, cache_dir=cache, **arguments)


def test_the_first_load_fetches_only_what_is_needed(hub: LocalHub, small: Path, cache: Path) -> None:
    assert torch.equal(load(cache)(IDS).logits, logits(small))
    assert hub.paths("GET") == ["config.json", "model.safetensors"]
    hub.requests.clear()
    bert = minibert.load(SMALL, cache_dir=cache)
    assert hub.paths("GET") == ["tokenizer_config.json", "tokenizer.json"]
    assert bert.fill_mask("w1 [MASK]", top_k=1)


def test_the_second_load_moves_no_body(hub: LocalHub, small: Path, cache: Path) -> None:
    minibert.load(SMALL, cache_dir=cache)
    hub.requests.clear()
    minibert.load(SMALL, cache_dir=cache)
    assert hub.paths("GET") == []
    assert len(hub.paths("HEAD")) == 1  # is the branch still at this commit?


def test_an_offline_load_asks_nothing(hub: LocalHub, small: Path, cache: Path) -> None:
    online = minibert.load(SMALL, cache_dir=cache)
    hub.requests.clear()
    offline = minibert.load(SMALL, cache_dir=cache, local_files_only=True)
    assert hub.requests == []
    assert offline.source == online.source
    assert torch.equal(offline.model(IDS).logits, online.model(IDS).logits)


def test_the_cache_serves_when_the_hub_is_gone(hub: LocalHub, small: Path, cache: Path) -> None:
    expected = logits(small)
    load(cache)
    hub.server.shutdown()
    hub.server.socket.close()
    assert torch.equal(load(cache)(IDS).logits, expected)


def test_offline_a_recipe_that_the_cache_does_not_know_is_told(hub: LocalHub, small: Path, cache: Path) -> None:
    load(cache)  # the weights, as another program may have fetched them; nobody asked for modules.json
    minibert.BertTokenizer.from_pretrained(SMALL, cache_dir=cache)
    with pytest.warns(UserWarning, match=r"does not say whether it has modules\.json; mean pooling is used"):
        minibert.load(SMALL, cache_dir=cache, local_files_only=True)


def test_what_is_not_in_the_cache_cannot_be_loaded_offline(small: Path, cache: Path) -> None:
    message = f"config.json of {SMALL} at main must be in the cache to be loaded offline; it is not"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        load(cache, local_files_only=True)


def test_without_a_hub_and_a_cache_the_error_says_so(hub: LocalHub, small: Path, cache: Path) -> None:
    hub.server.shutdown()
    hub.server.socket.close()
    with pytest.raises(
        ConnectionError, match=r"the Hub must be reachable to load config\.json of .*: check the network"
    ):
        load(cache)


def test_a_pinned_revision_stays_when_the_branch_moves(hub: LocalHub, small: Path, tmp_path: Path, cache: Path) -> None:
    old = hub.repos[SMALL].references["main"]
    before = logits(small)
    theirs_of("BertForMaskedLM", small, initializer_range=0.7)
    after = logits(small)
    new = hub.add(SMALL, small)
    hub.repos[SMALL].references["v1.0"] = old
    assert old != new
    assert torch.equal(load(cache)(IDS).logits, after)
    for revision in (old, "v1.0"):
        assert torch.equal(load(cache, revision=revision)(IDS).logits, before)
    assert minibert.load(SMALL, cache_dir=cache, revision="v1.0").source == f"{SMALL} at {old[:12]}"
    hub.requests.clear()
    load(cache, revision=old)
    assert hub.requests == []  # a commit that is in the cache needs no question


def test_a_branch_that_moves_while_loading_is_not_mixed(hub: LocalHub, small: Path, cache: Path) -> None:
    repository = minibert.pretrained.hub.Repository.open(SMALL, cache_dir=cache)
    config = minibert.BertConfig.from_repository(repository)
    before = logits(small)
    theirs_of("BertForMaskedLM", small, num_hidden_layers=1)
    hub.add(SMALL, small)
    checkpoint = minibert.pretrained.checkpoint.Checkpoint.open(repository)
    assert torch.equal(minibert.BertForMaskedLM.from_checkpoint(checkpoint, config)(IDS).logits, before)


def test_short_names_are_redirected_to_full_ones(hub: LocalHub, small: Path, cache: Path) -> None:
    hub.aliases["bert-base-uncased"] = SMALL
    assert torch.equal(load(cache, name="bert-base-uncased")(IDS).logits, logits(small))


def test_a_missing_repository_is_named(hub: LocalHub, cache: Path) -> None:
    for token in (None, "hf_mine"):
        with pytest.raises(FileNotFoundError, match=r"^'no/such' must be a local folder or a repository of the Hub"):
            load(cache, name="no/such", token=token)


def test_a_missing_revision_is_named(hub: LocalHub, small: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"revision (v9) of {SMALL} must be one of its branches")):
        load(cache, revision="v9")


@pytest.mark.parametrize(
    ("file", "message"),
    [("config.json", "must hold config.json"), ("model.safetensors", "must hold weights as model.safetensors or")],
)
def test_a_missing_file_is_named(hub: LocalHub, small: Path, cache: Path, file: str, message: str) -> None:
    for name in (file, "pytorch_model.bin"):
        (small / name).unlink()
    hub.add(SMALL, small)
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        load(cache)


def test_a_gated_repository_opens_to_its_token_alone(
    hub: LocalHub, small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add(SMALL, small, token="hf_good")
    for token in (False, "hf_wrong"):
        with pytest.raises(PermissionError, match=f"{SMALL} is gated and must be opened to you; accept its terms"):
            load(cache, token=token)
    assert torch.equal(load(cache, token="hf_good")(IDS).logits, logits(small))
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    load(cache.with_name("other"))


def test_a_server_that_dies_mid_file_is_asked_for_the_rest(hub: LocalHub, small: Path, cache: Path) -> None:
    size = (small / "model.safetensors").stat().st_size
    hub.cuts["model.safetensors"] = [5_000, 7_000]
    assert torch.equal(load(cache)(IDS).logits, logits(small))
    asked = [request for request in hub.requests if request.path.startswith("/content") and request.method == "GET"]
    assert [request.range for request in asked] == [None, "bytes=5000-", "bytes=12000-"]
    assert [request.body for request in asked] == [5_000, 7_000, size - 12_000]


def test_a_server_that_keeps_dying_is_told_and_nothing_broken_is_kept(hub: LocalHub, small: Path, cache: Path) -> None:
    hub.cuts["model.safetensors"] = [10_000, *[0] * 10]  # more often than the client retries
    with pytest.raises(ConnectionError, match=r"the download of model\.safetensors of .* it broke off, .* run again"):
        load(cache)
    assert [path.name for path in cache.rglob("*.safetensors")] == []
    hub.cuts.clear()
    assert torch.equal(load(cache)(IDS).logits, logits(small))


def test_a_corrupt_download_is_found_by_its_sha256_and_removed(hub: LocalHub, small: Path, cache: Path) -> None:
    data = bytearray((small / "model.safetensors").read_bytes())
    data[-5] ^= 0xFF  # one number of one tensor, in a file that is otherwise whole
    hub.damaged["model.safetensors"] = bytes(data)
    with pytest.raises(OSError, match=r"model\.safetensors of .* must have the sha256 [0-9a-f]{64}; what arrived has"):
        load(cache)
    hub.damaged.clear()
    assert torch.equal(load(cache)(IDS).logits, logits(small))


def test_a_truncated_download_is_refused(hub: LocalHub, small: Path, cache: Path) -> None:
    hub.damaged["model.safetensors"] = (small / "model.safetensors").read_bytes()[:1000]
    with pytest.raises(OSError, match=r"broke off|sha256"):
        load(cache)
    hub.damaged.clear()
    assert torch.equal(load(cache)(IDS).logits, logits(small))


def test_sharded_and_pickled_weights_come_from_the_hub_too(hub: LocalHub, small: Path, cache: Path) -> None:
    expected = logits(small)
    tensors = load_file(small / "model.safetensors")
    (small / "model.safetensors").unlink()
    names = list(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: tensors[name].clone() for name in part}, small / file)
        weight_map |= dict.fromkeys(part, file)
    (small / "pytorch_model.bin").unlink()
    (small / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    hub.add(SMALL, small)
    assert torch.equal(load(cache)(IDS).logits, expected)
    assert [path for path in hub.paths("GET") if path.endswith(".bin")] == sorted(set(weight_map.values()))


def look_alike(folder: Path, minilm: Path) -> None:
    """The real bert-base-uncased repository, but for the values: configuration, tensor names and quirks, vocabulary."""
    theirs_of(
        "BertForPreTraining",
        folder,
        vocab_size=30522,
        hidden_size=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        intermediate_size=3072,
    )
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        renamed = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        tensors[renamed] = tensor
    assert not any("decoder" in name for name in tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.1,
        "gradient_checkpointing": False,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": 768,
        "initializer_range": 0.02,
        "intermediate_size": 3072,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "transformers_version": "4.6.0.dev0",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": 30522,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true, "model_max_length": 512}')
    for name in ("vocab.txt", "tokenizer.json"):
        shutil.copy(minilm / name, folder)


ENVIRONMENT_SCRIPT = """
import sys, minibert, torch
bert = minibert.load("bert-base-uncased")
print(bert.source)
print(bert.heads)
print(bert.encode("He robbed the bank.").shape, len(bert.fill_mask("Hello I'm a [MASK] model.")))
"""


def test_the_variables_of_the_hub_are_obeyed_in_a_fresh_process(hub: LocalHub, tmp_path: Path, minilm: Path) -> None:
    folder = tmp_path / "look-alike"
    look_alike(folder, minilm)
    commit = hub.add(BASE, folder, token="hf_good")
    hub.aliases["bert-base-uncased"] = BASE
    variables = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_good",
        "HF_HUB_OFFLINE": "0",
    }

    def run(**changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", ENVIRONMENT_SCRIPT],
            env={**os.environ, **variables, **changes},
            capture_output=True,
            text=True,
            check=False,
        )

    # "-1": show the bar although standard error is not a terminal
    first = run(HF_HUB_DISABLE_PROGRESS_BARS="0", TQDM_POSITION="-1")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines() == [
        f"bert-base-uncased at {commit[:12]}",
        "('masked LM', 'next sentence', 'pooler')",
        "(768,) 5",
    ]
    assert "model.safetensors" in first.stderr  # the progress bar
    assert (tmp_path / "home" / "hub").is_dir()
    hub.requests.clear()
    offline = run(HF_HUB_OFFLINE="1", HF_TOKEN="")
    assert offline.stdout == first.stdout, offline.stderr
    assert hub.requests == []


def test_a_blob_is_named_by_what_the_hub_calls_it(hub: LocalHub, small: Path, cache: Path) -> None:
    load(cache)
    digest = hashlib.sha256((small / "model.safetensors").read_bytes()).hexdigest()
    assert list(cache.rglob(f"blobs/{digest}"))  # what the check of downloads stands on
