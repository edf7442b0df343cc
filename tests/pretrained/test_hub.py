"""Loading from the Hub, through its real client, from a server on this machine that speaks its protocol."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants
from oracle import theirs_of
from safetensors.torch import load_file, save_file

import minibert
from minibert.pretrained import answers

IDS = torch.tensor([[2, 5, 17, 98, 3]])
SMALL = "someone/small-bert"
BASE = "google-bert/bert-base-uncased"


@pytest.fixture
def hub(hub_client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A server, and the client pointed at it."""
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def small(tmp_path: Path, hub: HubServer) -> Path:
    """A small masked-LM checkpoint on the server, with a tokenizer; the value is its folder."""
    folder = tmp_path / "small"
    theirs_of("BertForMaskedLM", folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(94))]
    minibert.BertTokenizer({word: i for i, word in enumerate(words)}).save_pretrained(folder)
    for extra in ("tf_model.h5", "flax_model.msgpack", "pytorch_model.bin", "README.md"):
        (folder / extra).write_bytes(b"not needed")
    hub.add_repo(SMALL, folder)
    return folder


def logits(folder: Path) -> torch.Tensor:
    return minibert.BertForMaskedLM.from_pretrained(folder)(IDS).logits.detach()


def load(cache: Path, **arguments: Any) -> minibert.BertForMaskedLM:
    name = arguments.pop("name", SMALL)
    return minibert.BertForMaskedLM.from_pretrained(name, cache_dir=cache, **arguments)


def test_the_first_load_fetches_only_what_is_needed(hub: HubServer, small: Path, cache: Path) -> None:
    assert torch.equal(load(cache)(IDS).logits, logits(small))
    assert hub.files("GET") == ["config.json", "model.safetensors"]
    hub.clear()
    bert = minibert.load(SMALL, cache_dir=cache)
    assert hub.files("GET") == ["tokenizer_config.json", "tokenizer.json"]
    assert bert.fill_mask("w1 [MASK]", top_k=1)


def test_the_second_load_moves_no_body(hub: HubServer, small: Path, cache: Path) -> None:
    minibert.load(SMALL, cache_dir=cache)
    hub.clear()
    minibert.load(SMALL, cache_dir=cache)
    assert hub.files("GET") == []
    assert set(hub.files("HEAD")) == {"config.json"}  # is the branch still at this commit?


def test_an_offline_load_asks_nothing(hub: HubServer, small: Path, cache: Path) -> None:
    online = minibert.load(SMALL, cache_dir=cache)
    hub.clear()
    offline = minibert.load(SMALL, cache_dir=cache, local_files_only=True)
    assert hub.requests == []
    assert offline.source == online.source
    assert torch.equal(offline.model(IDS).logits, online.model(IDS).logits)


def test_the_cache_serves_when_the_hub_is_gone(hub: HubServer, small: Path, cache: Path) -> None:
    expected = logits(small)
    load(cache)
    hub.stop()
    assert torch.equal(load(cache)(IDS).logits, expected)


def test_offline_a_recipe_that_the_cache_does_not_know_is_told(hub: HubServer, small: Path, cache: Path) -> None:
    load(cache)  # the weights, as another program may have fetched them; nobody asked for modules.json
    minibert.BertTokenizer.from_pretrained(SMALL, cache_dir=cache)
    with pytest.warns(UserWarning, match=r"does not say whether it has modules\.json; mean pooling is used") as told:
        minibert.load(SMALL, cache_dir=cache, local_files_only=True)
    assert told[0].filename == __file__


def test_what_is_not_in_the_cache_cannot_be_loaded_offline(small: Path, cache: Path) -> None:
    message = f"config.json of {SMALL} at main must be in the cache to be loaded offline; it is not"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        load(cache, local_files_only=True)


def test_without_a_hub_and_a_cache_the_error_says_so(hub: HubServer, small: Path, cache: Path) -> None:
    hub.stop()
    with pytest.raises(ConnectionError, match=r"must be reachable to load config\.json of .*: check the network"):
        load(cache)


def test_a_pinned_revision_stays_when_the_branch_moves(
    hub: HubServer, small: Path, tmp_path: Path, cache: Path
) -> None:
    old = hub.add_repo(SMALL, small)
    before = logits(small)
    theirs_of("BertForMaskedLM", small, initializer_range=0.7)
    after = logits(small)
    new = hub.add_repo(SMALL, small)
    hub.point(SMALL, "v1.0", old)
    assert old != new
    assert torch.equal(load(cache)(IDS).logits, after)
    for revision in (old, "v1.0"):
        assert torch.equal(load(cache, revision=revision)(IDS).logits, before)
    assert str(minibert.load(SMALL, cache_dir=cache, revision="v1.0").source) == f"{SMALL} at {old[:12]}"
    hub.clear()
    load(cache, revision=old)
    assert hub.requests == []  # a commit that is in the cache needs no question


def test_a_branch_that_moves_while_loading_is_not_mixed(hub: HubServer, small: Path, cache: Path) -> None:
    repository = minibert.pretrained.hub.Repository.open(SMALL, cache_dir=cache)
    config = minibert.BertConfig.from_repository(repository)
    before = logits(small)
    theirs_of("BertForMaskedLM", small, num_hidden_layers=1)
    hub.add_repo(SMALL, small)
    checkpoint = minibert.pretrained.checkpoint.Checkpoint.open(repository)
    assert torch.equal(minibert.BertForMaskedLM.from_checkpoint(checkpoint, config)(IDS).logits, before)


def test_short_names_are_redirected_to_full_ones(hub: HubServer, small: Path, cache: Path) -> None:
    hub.add_alias("bert-base-uncased", SMALL)
    assert torch.equal(load(cache, name="bert-base-uncased")(IDS).logits, logits(small))


def test_a_missing_repository_is_named(hub: HubServer, cache: Path) -> None:
    for token in (None, "hf_mine"):
        with pytest.raises(FileNotFoundError, match=r"^'no/such' must be a local folder or a repository of the Hub"):
            load(cache, name="no/such", token=token)


def test_a_missing_revision_is_named(hub: HubServer, small: Path, cache: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(f"revision (v9) of {SMALL} must be one of its branches")):
        load(cache, revision="v9")


@pytest.mark.parametrize(
    ("file", "message"),
    [("config.json", "must hold config.json"), ("model.safetensors", "must hold weights as model.safetensors or")],
)
def test_a_missing_file_is_named(hub: HubServer, small: Path, cache: Path, file: str, message: str) -> None:
    for name in (file, "pytorch_model.bin"):
        (small / name).unlink()
    hub.add_repo(SMALL, small)
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        load(cache)


def test_a_gated_repository_opens_to_its_token_alone(
    hub: HubServer, small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gate(SMALL, token="hf_good")
    for token in (False, "hf_wrong"):
        with pytest.raises(PermissionError, match=f"{SMALL} is gated and must be opened to you; accept its terms"):
            load(cache, token=token)
    assert torch.equal(load(cache, token="hf_good")(IDS).logits, logits(small))
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    load(cache.with_name("other"))


def test_an_expired_token_is_told(hub: HubServer, small: Path, cache: Path) -> None:
    hub.invalidate_token("hf_expired")
    with pytest.raises(PermissionError, match=f"the token for {SMALL} must be valid; the Hub refuses it"):
        load(cache, token="hf_expired")


WEIGHTS = "model.safetensors"


def test_a_server_that_dies_mid_file_is_asked_for_the_rest(hub: HubServer, small: Path, cache: Path) -> None:
    size = (small / WEIGHTS).stat().st_size
    hub.cut(SMALL, WEIGHTS, after=5_000)
    hub.cut(SMALL, WEIGHTS, after=7_000)
    assert torch.equal(load(cache)(IDS).logits, logits(small))
    asked = [request for request in hub.requests if request.path.startswith("/cdn") and request.method == "GET"]
    assert [request.range_header for request in asked] == [None, "bytes=5000-", "bytes=12000-"]
    assert [request.body_bytes_sent for request in asked] == [5_000, 7_000, size - 12_000]


@pytest.mark.parametrize("reset", [False, True])
def test_a_server_that_keeps_dying_is_told_and_nothing_broken_is_kept(
    hub: HubServer, small: Path, cache: Path, reset: bool
) -> None:
    hub.cut(SMALL, WEIGHTS, after=10_000, reset=reset)
    hub.cut(SMALL, WEIGHTS, after=0, times=10)  # more often than the client retries
    with pytest.raises(ConnectionError, match=r"the download of model\.safetensors of .* it broke off .* run again"):
        load(cache)
    assert [path.name for path in cache.rglob("*.safetensors")] == []
    hub.heal()
    assert torch.equal(load(cache)(IDS).logits, logits(small))


@pytest.mark.parametrize("file", [WEIGHTS, "config.json"])
def test_a_corrupt_download_is_found_by_its_name_and_removed(
    hub: HubServer, small: Path, cache: Path, file: str
) -> None:
    # one byte of a file that is otherwise whole: a digit of a number of the configuration, or of a tensor
    content = (small / file).read_bytes()
    hub.corrupt(SMALL, file, flip_at=len(content) - 5)
    with pytest.raises(OSError, match=re.escape(f"{file} of {SMALL} at ") + ".* must have the digest [0-9a-f]{40,64};"):
        load(cache)
    hub.heal()
    assert torch.equal(load(cache)(IDS).logits, logits(small))


@pytest.mark.parametrize("advertised", [True, False])
def test_a_truncated_download_is_refused(hub: HubServer, small: Path, cache: Path, advertised: bool) -> None:
    hub.truncate(SMALL, WEIGHTS, to=1000, advertised=advertised)
    with pytest.raises(OSError, match=r"must have the digest" if advertised else r"it broke off"):
        load(cache)
    hub.heal()
    assert torch.equal(load(cache)(IDS).logits, logits(small))


OUTSIDE = [
    "C:x",
    '"../../x"',
    '"a/../../../x"',
    '"/tmp/x"',
    '"."',
    '".."',
    '""',
    'W/"../x"',
    f'"{"a" * 300}"',
    '"a\tb"',
]


@pytest.mark.parametrize("header", ["ETag", "X-Linked-Etag", "X-Repo-Commit"])
def test_no_name_of_a_server_leaves_the_cache(hub: HubServer, tmp_path: Path, header: str) -> None:
    for value in OUTSIDE:
        value = value.strip('"') if header == "X-Repo-Commit" else value
        for status in (200, 404):  # the commit is kept for a file that is not there, too
            hub.heal()
            names = {"ETag": "a" * 40, "X-Repo-Commit": "c" * 40, "X-Error-Code": "EntryNotFound", header: value}
            hub.answer_instead("HEAD", "config.json", status, b"{}", names)
            hub.answer_instead("GET", "config.json", 200, b"{}")
            message = rf"the download of config\.json of {SMALL} at main must be answered with a name for .*{header}"
            with pytest.raises(ConnectionError, match=message):
                load(tmp_path / "a" / "b" / "c" / "d" / "cache")
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize("known", [True, False])
def test_a_new_session_of_the_client_is_watched_too(
    hub: HubServer, tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:  # where the client keeps what makes its sessions
        monkeypatch.setattr(answers, "FACTORY", "nowhere")
    hub.answer_instead("HEAD", "config.json", 200, b"{}", {"ETag": '"../../x"', "X-Repo-Commit": "c" * 40})
    for _ in range(2):
        with pytest.raises(ConnectionError, match="must be answered with a name for a file"):
            load(tmp_path / "cache")
        huggingface_hub.close_session()  # as the client itself does when a connection was refused


@pytest.mark.parametrize("etag", ["d41d8cd98f00b204e9800998ecf8427e-5", 'W/"5f3c-1a2b"', '"a/b+c="'])
def test_an_etag_that_is_no_digest_is_told_once(hub: HubServer, small: Path, cache: Path, etag: str) -> None:
    for file in ("config.json", "model.safetensors"):
        content = (small / file).read_bytes()
        hub.answer_instead("HEAD", file, 200, content, {"ETag": etag + file[:2], "X-Repo-Commit": "c" * 40})
        hub.answer_instead("GET", file, 200, content)
    name = re.escape(etag.removeprefix("W/").strip('"'))
    with pytest.warns(UserWarning, match=rf"gives no digest of config\.json \(its ETag is '{name}.*'\)") as told:
        model = load(cache)
    assert len(told) == 1
    assert torch.equal(model(IDS).logits, logits(small))
    assert torch.equal(load(cache)(IDS).logits, logits(small))  # without a warning


def test_a_weak_etag_with_a_digest_is_compared(hub: HubServer, small: Path, cache: Path) -> None:
    content = (small / "config.json").read_bytes()
    digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    hub.answer_instead("HEAD", "config.json", 200, content, {"ETag": f'W/"{digest}"', "X-Repo-Commit": "c" * 40})
    hub.answer_instead("GET", "config.json", 200, content)
    minibert.BertConfig.from_pretrained(SMALL, cache_dir=cache)
    hub.heal()
    hub.answer_instead("HEAD", "config.json", 200, content, {"ETag": f'W/"{digest}"', "X-Repo-Commit": "c" * 40})
    hub.answer_instead("GET", "config.json", 200, content[:-1] + b" ")
    with pytest.raises(OSError, match=f"must have the digest {digest}"):
        minibert.BertConfig.from_pretrained(SMALL, cache_dir=cache.with_name("other"))


def test_a_server_that_drips_is_given_up(
    hub: HubServer, small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "WINDOW", 0.3)
    content = (small / WEIGHTS).read_bytes()
    hub.answer_instead("GET", f"cdn/.*{WEIGHTS}", 200, content, drip=0.02)
    with pytest.raises(
        ConnectionError,
        match=r"the download of model\.safetensors of .* must bring at least 1,000 bytes a second; .* 0 se",
    ):
        load(cache)
    assert not [path for path in cache.rglob("*") if "safetensors" in path.name or "incomplete" in path.name]


def test_a_server_that_drips_and_hangs_up_is_given_up(
    hub: HubServer, small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "ATTEMPTS", 30)
    hub.cut(SMALL, WEIGHTS, after=1_000, times=100_000)  # the client asks again after each chunk of DOWNLOAD_CHUNK_SIZE
    with pytest.raises(ConnectionError, match=r"the download of .* must end after 30 requests to http://127\.0\.0\.1"):
        load(cache)


def test_a_slow_line_loads_what_it_can(
    hub: HubServer, small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "WINDOW", 0.0)  # each piece is judged by itself
    monkeypatch.setattr(answers, "SLOWEST", 0.001)
    for after in range(3_000, 30_000, 3_000):
        hub.cut(SMALL, WEIGHTS, after=after)
    assert torch.equal(load(cache)(IDS).logits, logits(small))


def test_a_wait_of_hours_is_not_waited_for(hub: HubServer, small: Path, cache: Path) -> None:
    for headers in ({"Retry-After": "100000"}, {"RateLimit": '"api";r=0;t=100000'}):
        hub.heal()
        hub.answer_instead("GET", f"cdn/.*{WEIGHTS}", 429, headers=headers)
        with pytest.raises(ConnectionError, match=r"must go on within three hours; .* asks for more"):
            load(cache)


HEADERS = {"ETag": "a" * 40, "X-Repo-Commit": "c" * 40}
ODD = [
    ("HEAD", 200, {}),
    ("HEAD", 200, {"ETag": "a" * 40}),
    ("HEAD", 200, {"X-Repo-Commit": "c" * 40}),
    ("HEAD", 200, {**HEADERS, "Content-Length": "many"}),
    ("HEAD", 302, {**HEADERS, "Location": "http://[::1/x"}),
    ("HEAD", 302, {**HEADERS, "Location": "http://exa mple:x/x"}),
    ("HEAD", 302, {**HEADERS, "Location": "file:///etc/passwd"}),
    ("HEAD", 307, {"Location": f"/{SMALL}/resolve/main/config.json"}),
    ("HEAD", 400, {}),
    ("HEAD", 418, {}),
    ("HEAD", 500, {}),
    ("GET", 200, {"Content-Range": "bytes 0-1/many"}),
    ("GET", 200, {"Content-Encoding": "gzip"}),
    ("GET", 307, {"Location": "http://[::1/x"}),
    ("GET", 400, {}),
    ("GET", 500, {}),
]


@pytest.mark.parametrize("body", [b"[]", b"null", b"[" * 100_000, b'{"error": 5, "errors": 5}', b"\xff"])
def test_an_odd_answer_to_a_download_is_an_error_of_the_connection(hub: HubServer, cache: Path, body: bytes) -> None:
    for method, status, headers in ODD:
        hub.heal()
        hub.answer_instead(method, "config.json", status, body, headers)
        hub.answer_instead("HEAD", "config.json", 200, body, {**HEADERS, "Content-Length": str(len(body))})
        with pytest.raises(
            OSError, match=r"^(the download of config\.json of|the Hub .* must be reachable|config\.json of)"
        ):
            minibert.BertConfig.from_pretrained(SMALL, cache_dir=cache)
    hub.heal()
    hub.answer_instead("HEAD", "config.json", 200, body, HEADERS)
    assert not list(cache.rglob("config.json"))


def test_json_that_cannot_be_read_is_one_sentence(hub: HubServer, small: Path, cache: Path) -> None:
    for content, reason in (
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "can't decode"),
        (b'{"a": ', "value"),
    ):
        (small / "config.json").write_bytes(content)
        hub.add_repo(SMALL, small)
        for name in (SMALL, str(small)):
            with pytest.raises(
                minibert.MinibertError, match=rf"config\.json of .* must be valid JSON \(.*{reason}.*\); corr"
            ):
                load(cache, name=name)


def test_a_short_name_is_that_of_sentence_transformers_if_the_hub_has_none(
    hub: HubServer, small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    full = "sentence-transformers/tiny"
    commit = hub.add_repo(full, small)
    bert = minibert.load("tiny", cache_dir=cache)
    assert str(bert.source) == f"{full} at {commit[:12]}"
    assert bert.source.name == full
    assert {request.path.split("/resolve")[0] for request in hub.requests if "/resolve/" in request.path} == {
        "/tiny",
        f"/{full}",
    }
    offline = minibert.load("tiny", cache_dir=cache, local_files_only=True)
    assert offline.source == bert.source
    hub.add_repo("tiny", small, commit="d" * 40)  # the Hub's own wins
    assert minibert.load("tiny", cache_dir=cache).source.name == "tiny"
    hub.stop()
    assert minibert.load(full, cache_dir=cache).source == bert.source
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    with pytest.raises(FileNotFoundError):  # a folder of that name wins over both
        minibert.load("tiny", cache_dir=cache)


def test_the_full_name_of_a_short_one_is_in_the_errors(hub: HubServer, cache: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"'nothing' must be .* there is no 'sentence-transformers/nothing': check"
    ):
        load(cache, name="nothing")
    with pytest.raises(
        FileNotFoundError, match="it is not, nor is that of sentence-transformers/nothing: load it once"
    ):
        load(cache, name="nothing", local_files_only=True)
    hub.gate("gated", token="hf_good")
    hub.add_repo("gated", {"config.json": b"{}"})
    with pytest.raises(PermissionError, match="gated is gated"):
        load(cache, name="gated")
    assert not any("sentence-transformers/gated" in request.path for request in hub.requests)


def test_a_short_name_in_the_cache_serves_when_the_hub_is_gone(hub: HubServer, small: Path, cache: Path) -> None:
    hub.add_repo("sentence-transformers/tiny", small)
    load(cache, name="tiny")
    hub.stop()
    assert torch.equal(load(cache, name="tiny")(IDS).logits, logits(small))
    with pytest.raises(ConnectionError, match=r"must be reachable to load config\.json of nothing"):
        load(cache, name="nothing")


def test_an_adapter_on_the_hub_is_told_as_what_it_is(hub: HubServer, cache: Path) -> None:
    hub.add_repo("me/adapter", {"adapter_config.json": b'{"base_model_name_or_path": "them/base"}'})
    with pytest.raises(
        FileNotFoundError, match=r"it holds a PEFT adapter alone; load its base model with peft \(them/base"
    ):
        minibert.load("me/adapter", cache_dir=cache)


def test_offline_weights_that_were_never_fetched_are_told(hub: HubServer, small: Path, cache: Path) -> None:
    minibert.BertConfig.from_pretrained(SMALL, cache_dir=cache)
    with pytest.raises(FileNotFoundError, match=r"the weights of .* must be in the cache to be loaded offline"):
        load(cache, local_files_only=True)


def test_a_full_disk_is_told_as_what_it_is(
    hub: HubServer, small: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **keywords: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        load(cache)
    assert not isinstance(caught.value, ConnectionError)


def test_sharded_and_pickled_weights_come_from_the_hub_too(hub: HubServer, small: Path, cache: Path) -> None:
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
    hub.add_repo(SMALL, small)
    assert torch.equal(load(cache)(IDS).logits, expected)
    assert [path for path in hub.files("GET") if path.endswith(".bin")] == sorted(set(weight_map.values()))


def look_alike(folder: Path, minilm: Path) -> None:
    """The real bert-base-uncased repository with 2 layers and other values: tensor names and quirks, vocabulary."""
    theirs_of(
        "BertForPreTraining",
        folder,
        vocab_size=30522,
        hidden_size=768,
        num_hidden_layers=2,
        num_attention_heads=12,
        intermediate_size=768,
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
        "intermediate_size": 768,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "model_type": "bert",
        "num_attention_heads": 12,
        "num_hidden_layers": 2,
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


@pytest.mark.slow
def test_the_variables_of_the_hub_are_obeyed_in_a_fresh_process(hub: HubServer, tmp_path: Path, minilm: Path) -> None:
    folder = tmp_path / "look-alike"
    look_alike(folder, minilm)
    commit = hub.add_repo(BASE, folder)
    hub.gate(BASE, token="hf_good")
    hub.add_alias("bert-base-uncased", BASE)
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
    hub.clear()
    offline = run(HF_HUB_OFFLINE="1", HF_TOKEN="")
    assert offline.stdout == first.stdout, offline.stderr
    assert hub.requests == []


def test_a_blob_is_named_by_what_the_hub_calls_it(hub: HubServer, small: Path, cache: Path) -> None:
    load(cache)
    digest = hashlib.sha256((small / "model.safetensors").read_bytes()).hexdigest()
    assert list(cache.rglob(f"blobs/{digest}"))  # what the check of downloads stands on


def test_a_family_whose_files_name_no_prompts_has_those_of_its_model_card(
    hub: HubServer, small: Path, cache: Path
) -> None:
    hub.add_repo("intfloat/e5-small-v2", small)
    bert = minibert.load("intfloat/e5-small-v2", cache_dir=cache)
    plain, asked = bert.encode("w1 w2"), bert.encode("w1 w2", prompt_name="query")
    np.testing.assert_array_equal(asked, bert.encode("w1 w2", prompt="query: "))
    np.testing.assert_array_equal(bert.encode_query("w1 w2"), plain)  # only where it is asked for by name
    assert not np.array_equal(asked, plain)
    assert re.search(r"prompts +document, passage, query", repr(bert))


def test_a_name_without_an_owner_is_one_of_sentence_transformers(hub: HubServer, small: Path, cache: Path) -> None:
    hub.add_repo("sentence-transformers/tiny-model", small)
    ours = minibert.BertForMaskedLM.from_pretrained("tiny-model", cache_dir=cache)
    assert isinstance(ours, minibert.BertForMaskedLM)
    minibert.BertForMaskedLM.from_pretrained("tiny-model", cache_dir=cache, local_files_only=True)
    with pytest.raises(FileNotFoundError, match=r"'no-such-model' must be a local folder or a repository of the Hub"):
        minibert.BertForMaskedLM.from_pretrained("no-such-model", cache_dir=cache)


def test_a_file_without_a_digest_is_not_taken_in_silence(hub: HubServer, small: Path, cache: Path) -> None:
    name = "me/undigested"
    hub.add_repo(name, small)
    for repository in hub._repositories.values():
        for tree in repository.commits.values():
            tree["config.json"] = replace(tree["config.json"], etag="version-7")
    with pytest.warns(UserWarning, match=r"gives no digest of config\.json \(its ETag is 'version-7'\)"):
        minibert.BertForMaskedLM.from_pretrained(name, cache_dir=cache)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "it is empty; if you mean a repository of the Hub of this name, rename or remove the folder"),
        ({"adapter_config.json": "{}"}, "it holds a PEFT adapter alone; load its base model with peft"),
    ],
    ids=["empty", "adapter"],
)
def test_a_folder_that_is_no_checkpoint_is_called_what_it_is(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(FileNotFoundError, match=f"must hold config.json; .*: {message}"):
        minibert.load(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pointer_of_git_lfs_is_called_what_it_is(name: str, small: Path) -> None:
    (small / "model.safetensors").unlink()
    (small / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n")
    with pytest.raises(minibert.MinibertError, match=f"{name} must hold weights, but it is a pointer of Git LFS"):
        minibert.BertForMaskedLM.from_pretrained(small)


@pytest.mark.parametrize("name", ["someone/small-bert", "tiny"])
def test_a_hub_that_does_not_answer_is_given_up_at_once(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as free:  # nobody listens there
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    with pytest.raises(
        ConnectionError, match=r"must be reachable to load .*; it is not \(it does not answer\)"
    ) as told:
        minibert.load(name, cache_dir=cache)
    assert told.value.__suppress_context__
    assert sum(waits) < 2
    assert "Retrying" not in caplog.text
