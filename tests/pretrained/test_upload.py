"""`push_to_hub`, through the Hub's real client, against a server on 127.0.0.1."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import transformers
import yaml
from hub_server import HubServer
from huggingface_hub import ModelCard, constants
from markdown_it import MarkdownIt
from oracle import theirs_of, with_real_vocabulary
from sentence_transformers import SentenceTransformer

import minibert
from minibert.pretrained import answers
from minibert.pretrained.card import card
from minibert.pretrained.source import Source
from minibert.training.card import card as training_card
from minibert.training.data import Data

TOKEN = "hf_of_me"
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client's own code


@pytest.fixture
def hub(hub_client: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub on which TOKEN may write to the repositories of `me`."""
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
        server.allow_writing(TOKEN, "me")
        yield server


def test_a_pushed_model_comes_back_as_it_was_for_all_three_libraries(
    hub: HubServer, bert: minibert.Bert, tmp_path: Path
) -> None:
    address = bert.push_to_hub("me/minilm", token=TOKEN, private=True)
    assert address.startswith(f"{hub.url}/me/minilm/commit/")
    assert hub.private == {"me/minilm": True}
    assert hub.commits_of("me/minilm") == 2  # the empty one, and one with everything
    again = minibert.load("me/minilm", token=TOKEN, cache_dir=tmp_path)
    texts = ["He sat by the river.", "She went to the bank."]
    assert np.array_equal(again.encode(texts), bert.encode(texts))
    folder = tmp_path / "all"
    for path, content in hub.files_of("me/minilm").items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    np.testing.assert_allclose(
        SentenceTransformer(str(folder), device="cpu").encode(texts), bert.encode(texts), atol=1e-6
    )
    transformers.AutoModel.from_pretrained(folder)


def test_the_card_says_what_the_model_is_and_holds_no_path(hub: HubServer, bert: minibert.Bert) -> None:
    bert.push_to_hub("me/minilm", token=TOKEN)
    text = hub.files_of("me/minilm")["README.md"].decode()
    assert text.startswith('---\nlibrary_name: "sentence-transformers"\npipeline_tag: "sentence-similarity"\n')
    assert "6 layers, 384 dimensions, 12 heads" in text
    assert "384 numbers, by mean pooling, then normalization" in text
    assert 'minibert.load("me/minilm")' in text
    assert "/site-packages" not in text
    assert "base_model" not in text  # it came from a folder
    assert ModelCard(text).data.pipeline_tag == "sentence-similarity"


def test_a_card_that_is_there_stays(hub: HubServer, bert: minibert.Bert) -> None:
    hub.add_repo("me/mine", {"README.md": b"my own words", "old.txt": b"kept"})
    bert.push_to_hub("me/mine", token=TOKEN)
    files = hub.files_of("me/mine")
    assert files["README.md"] == b"my own words"
    assert files["old.txt"] == b"kept"
    assert "model.safetensors" in files


def test_a_model_class_pushes_itself(hub: HubServer, tmp_path: Path) -> None:
    theirs_of(
        "BertForTokenClassification", tmp_path / "a", id2label={0: "O", 1: "B-LOC"}, label2id={"O": 0, "B-LOC": 1}
    )
    model = minibert.BertForTokenClassification.from_pretrained(tmp_path / "a")
    model.push_to_hub("me/tagger", token=TOKEN)
    files = hub.files_of("me/tagger")
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    text = files["README.md"].decode()
    assert "Labels: O, B-LOC." in text
    assert "transformers.BertForTokenClassification.from_pretrained" in text
    assert json.loads(files["config.json"])["architectures"] == ["BertForTokenClassification"]
    again = minibert.BertForTokenClassification.from_pretrained("me/tagger", token=TOKEN, cache_dir=tmp_path / "c")
    assert all((a == b).all() for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_a_derived_model_names_the_one_it_was_made_from(hub: HubServer, minilm: Path, tmp_path: Path) -> None:
    hub.add_repo("them/base", with_real_vocabulary(tmp_path / "a", minilm))
    bert = minibert.load("them/base", cache_dir=tmp_path / "c")
    bert.push_to_hub("me/derived", token=TOKEN)
    text = hub.files_of("me/derived")["README.md"].decode()
    assert 'base_model: "them/base"' in text
    assert "bert.fill_mask" in text


@pytest.mark.parametrize("failing", ["refuse_commits", "refuse_files"])
def test_a_push_that_breaks_off_commits_nothing(failing: str, hub: HubServer, bert: minibert.Bert) -> None:
    setattr(hub, failing, True)
    with pytest.raises(ConnectionError, match="the upload to me/minilm must run to its end"):
        bert.push_to_hub("me/minilm", token=TOKEN)
    assert hub.files_of("me/minilm") == {}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> minibert.BertForMaskedLM:
    """A small model, whose push needs one file of LFS and two others."""
    folder = tmp_path_factory.mktemp("small")
    theirs_of("BertForMaskedLM", folder)
    return minibert.BertForMaskedLM.from_pretrained(folder)


STEPS = {
    "create": ("POST", "/api/repos/create"),
    "yaml": ("POST", "/api/validate-yaml"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/info/lfs/objects/batch"),
    "commit": ("POST", "/commit/"),
}
# No JSON, none of a Hub, or nearly that of one. What only some steps misread is theirs alone.
EVERYWHERE = [b"", b"<html></html>", b"[]", b"null", b"5", b'"text"', b"\xff\xfe\x00", b"[" * 100_000]
JUNK = {
    "create": [b"{}", b'{"url": null}', b'{"url": 5}', b'{"url": "text"}', b'{"url": "http://a/b"}'],
    "yaml": [],
    "preupload": [b"{}", b'{"files": 5}', b'{"files": []}', b'{"files": [{"path": "README.md", "uploadMode": "lfs"}]}'],
    "batch": [
        *(b"{}", b'{"objects": 5}', b'{"objects": [5]}', b'{"objects": [{}]}'),
        b'{"objects": [{"oid": "x", "size": 1, "actions": {}}]}',
        b'{"objects": [{"oid": "x", "size": 1, "actions": {"upload": {"href": "http://127.0.0.1:1/"}}}]}',
    ],
    "commit": [b"{}", b'{"commitUrl": "x"}', b'{"commitUrl": 5, "commitOid": 5}'],
}


@pytest.mark.parametrize("step", STEPS)
def test_an_answer_that_is_no_hubs_is_told_with_the_address(
    step: str, hub: HubServer, model: minibert.BertForMaskedLM
) -> None:
    message = (
        "the upload to me/minilm must be answered as by a Hub; " + re.escape(hub.url) + r" answers something else \("
    )
    for body in [*EVERYWHERE, *JUNK[step]]:
        hub.heal()
        hub.answer_instead(*STEPS[step], body=body)
        with pytest.raises(ConnectionError, match=message):
            model.push_to_hub("me/minilm", token=TOKEN)


@pytest.mark.parametrize("step", STEPS)
def test_an_error_of_the_server_is_told_with_the_address(
    step: str, hub: HubServer, model: minibert.BertForMaskedLM
) -> None:
    for body in (b"", b"[]", b"null", b'{"error": 5, "errors": 5}'):
        hub.heal()
        hub.answer_instead(*STEPS[step], status=500, body=body)
        with pytest.raises(ConnectionError, match="^the upload to me/minilm must .*" + re.escape(hub.url)):
            model.push_to_hub("me/minilm", token=TOKEN)


@pytest.mark.parametrize("step", STEPS)
def test_what_is_written_is_not_sent_on_to_another_address(
    step: str, hub: HubServer, model: minibert.BertForMaskedLM
) -> None:
    other = hub.cdn_url + "/somewhere"
    message = rf"must be taken at the address it is sent to \({hub.url}/.*\); the answer names another one \({other}\)"
    for status in (301, 302, 303, 307, 308):
        hub.heal()
        hub.answer_instead(*STEPS[step], status=status, headers={"Location": other})
        with pytest.raises(ConnectionError, match=message):
            model.push_to_hub("me/minilm", token=TOKEN)
    assert not any(request.path.startswith("/somewhere") for request in hub.requests)


@pytest.mark.parametrize("named", ["me/other", "them/minilm", "me/minilm2"])
def test_the_repository_that_is_written_is_the_one_asked_for(
    named: str, hub: HubServer, model: minibert.BertForMaskedLM
) -> None:
    hub.add_repo(named, {"README.md": b"theirs"})
    hub.answer_instead(*STEPS["create"], body=json.dumps({"url": f"{hub.url}/{named}"}).encode())
    for repo_id in ("me/minilm", "minilm") if named != "them/minilm" else ("me/minilm",):
        with pytest.raises(
            ConnectionError, match=f"must make the repository that is asked for, {repo_id}; it answers for '{named}'"
        ):
            model.push_to_hub(repo_id, token=TOKEN)
    assert hub.files_of(named) == {"README.md": b"theirs"}


def test_the_owner_may_be_left_to_the_hub(hub: HubServer, model: minibert.BertForMaskedLM) -> None:
    assert model.push_to_hub("minilm", token=TOKEN).startswith(f"{hub.url}/me/minilm/commit/")
    assert "model.safetensors" in hub.files_of("me/minilm")


def test_a_hub_that_is_always_busy_is_not_asked_for_ever(
    hub: HubServer, model: minibert.BertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "ATTEMPTS", 30)
    busy = b"Cannot create repo: another conflicting operation is in progress"
    hub.answer_instead(*STEPS["create"], status=409, body=busy)
    with pytest.raises(ConnectionError, match=f"must end after 30 requests to {hub.url}/api/repos/create"):
        model.push_to_hub("me/minilm", token=TOKEN)


def test_a_server_that_says_nothing_is_given_up(
    hub: HubServer, model: minibert.BertForMaskedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", url)
        with pytest.raises(ConnectionError, match=f"it broke off at {url} \\(ReadTimeout"):
            model.push_to_hub("me/minilm", token=TOKEN)


def test_other_calls_of_the_client_are_as_ever(hub: HubServer) -> None:
    hub.answer_instead(*STEPS["create"], body=json.dumps({"url": f"{hub.url}/me/other"}).encode())
    api = huggingface_hub.HfApi(token=TOKEN)
    assert api.create_repo("me/minilm").repo_id == "me/other"


def test_who_gets_the_token_in_an_upload(hub: HubServer, model: minibert.BertForMaskedLM) -> None:
    """The Hub alone, but for an address for `verify`, which it names itself and the client believes.

    That is huggingface_hub's own doing: `huggingface_hub.lfs.lfs_upload` asks the address with the headers of the Hub,
    whatever its host is. This test fails when it stops to do so, and should then expect no token there.
    """
    hub.verify_at = hub.cdn_url + "/verify"
    model.push_to_hub("me/minilm", token=TOKEN)
    sent = {request.path.partition("?")[0]: request.authorized for request in hub.requests}
    assert sent.pop("/verify") is True
    puts = [path for path in sent if path.startswith("/upload/")]
    assert puts
    assert not any(sent.pop(path) for path in puts)
    assert all(authorized for path, authorized in sent.items() if path.startswith("/api/") and "/repos/" in path)


@pytest.mark.parametrize(("repo_id", "token"), [("me/minilm", None), ("me/minilm", "hf_wrong"), ("them/minilm", TOKEN)])
def test_without_the_right_to_write_the_remedy_is_named(
    repo_id: str, token: str | None, hub: HubServer, bert: minibert.Bert
) -> None:
    with pytest.raises(PermissionError, match=rf"pushing to {repo_id} needs a token that may write there"):
        bert.push_to_hub(repo_id, token=token)


def test_names_and_branches_that_cannot_be_are_refused(hub: HubServer, bert: minibert.Bert) -> None:
    with pytest.raises(minibert.MinibertError, match=r"repo_id \('a/b/c'\) must be a name like"):
        bert.push_to_hub("a/b/c", token=TOKEN)
    with pytest.raises(FileNotFoundError, match=r"revision \(nowhere\) of me/minilm must be one of its branches"):
        bert.push_to_hub("me/minilm", token=TOKEN, revision="nowhere")


def test_each_class_has_a_card() -> None:
    for kind in ("BertModel", "BertForMaskedLM", "BertForNextSentencePrediction", "BertForMultipleChoice"):
        text = card("me/x", minibert.BertConfig(architectures=(kind,)))
        assert f"transformers.{kind}.from_pretrained" in text
    reranker = card("me/x", minibert.BertConfig(architectures=("BertForSequenceClassification",), num_labels=1))
    assert 'pipeline_tag: "text-ranking"' in reranker


HOSTILE = (
    "\n---\n# a heading",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](http://x/y)",
    "a | b \\| c",
    "`code`",
    "\u202etxt.exe",
    "<script>",
    "a\r\nb: c",
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_of_others_are_plain_text_in_cards(hostile: str) -> None:
    config = minibert.BertConfig(architectures=("BertForTokenClassification",), id2label={0: hostile, 1: "B"})
    data = [Data("train", hostile, "abc", [])]
    cards = [
        card("me/x", config),
        training_card(Source(hostile, revision="main"), "classify", data, {"file": hostile}, {}),
        training_card(Source(f"/a/{hostile}"), "classify", data, {"file": hostile}, {}),
    ]
    for text in cards:
        _, front, body = text.split("---\n", 2)
        assert yaml.safe_load(front).get("base_model", hostile) == hostile
        tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
        inner = [token for block in tokens for token in [block, *(block.children or [])]]
        assert {token.tag for token in inner} <= {"h1", "p", "code", "table", "thead", "tbody", "tr", "th", "td", ""}
        assert not [token for token in inner if token.type in ("html_block", "html_inline", "link_open", "image")]
        assert len([token for token in tokens if token.type == "heading_open"]) == 1
        rows = [token for token in tokens if token.type == "tr_open"]
        cells = [token for token in tokens if token.type in ("th_open", "td_open")]
        assert not rows or len(cells) == 2 * 4 + 2 * 2  # a table of data and one of settings
        assert "\u202e" not in text


def test_only_the_repository_that_was_asked_for_is_written(
    hub: HubServer, bert: minibert.Bert, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = huggingface_hub.HfApi.create_repo

    def other(self: Any, repo_id: str, **settings: Any) -> Any:
        create(self, repo_id, **settings)
        return create(self, "me/other", **settings)

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", other)
    for name in ("me/minilm", "minilm"):
        with pytest.raises(
            ConnectionError, match=f"must make the repository that is asked for, {name}; it answers for"
        ):
            bert.push_to_hub(name, token=TOKEN)
    assert hub.files_of("me/other") == {}
