"""The stand-in for the Hub, proved against the Hub's real client."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hub_server import HubServer
from huggingface_hub import errors

NAME = "google-bert/bert-base-uncased"
WEIGHTS = bytes(range(256)) * 40
BROKEN: type[Exception] = errors.HfHubHTTPError.__mro__[1]  # what the client's HTTP library raises by itself
FILES = {"config.json": b'{"vocab_size": 7}', "model.safetensors": WEIGHTS, "1_Pooling/config.json": b"{}"}


@pytest.fixture
def server(hub_client: None) -> Iterator[HubServer]:
    """A running server with one repository."""
    with HubServer() as running:
        running.add_repo(NAME, FILES)
        yield running


def download(server: HubServer, cache: Path, path: str, name: str = NAME, **arguments: Any) -> Path:
    arguments = {"token": False, "cache_dir": cache, "endpoint": server.url, **arguments}
    return Path(huggingface_hub.hf_hub_download(name, path, **arguments))


def test_the_first_download_names_each_blob_by_its_etag(server: HubServer, tmp_path: Path) -> None:
    commit = server.add_repo(NAME, FILES)
    for path, content in FILES.items():
        file = download(server, tmp_path, path)
        assert file.read_bytes() == content
        assert file.relative_to(tmp_path).as_posix().endswith(f"snapshots/{commit}/{path}")
    blobs = {blob.name for blob in tmp_path.rglob("blobs/*")}
    assert hashlib.sha256(WEIGHTS).hexdigest() in blobs
    assert "9e26dfeeb6e641a33dae4961196235bdb965b21b" in blobs  # what git calls a file with "{}"
    assert server.files("GET") == list(FILES)
    assert server.body_bytes_sent == sum(map(len, FILES.values()))


def test_a_second_download_asks_for_the_commit_and_moves_no_body(server: HubServer, tmp_path: Path) -> None:
    first = download(server, tmp_path, "model.safetensors")
    server.clear()
    assert download(server, tmp_path, "model.safetensors") == first
    assert [(request.method, request.status) for request in server.requests] == [("HEAD", 302)]
    assert server.body_bytes_sent == 0


def test_commits_and_tags_stay_when_the_branch_moves(server: HubServer, tmp_path: Path) -> None:
    old = server.add_repo(NAME, FILES)
    server.point(NAME, "v1.0", old)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.json").write_bytes(b"new")
    new = server.add_repo(NAME, tmp_path / "new")
    assert new != old
    assert server.add_repo(NAME, {"config.json": b"new"}) == new
    assert download(server, tmp_path, "config.json").read_bytes() == b"new"
    for revision in (old, "v1.0"):
        pinned = download(server, tmp_path, "config.json", revision=revision)
        assert pinned.read_bytes() == FILES["config.json"]
    server.clear()
    download(server, tmp_path, "config.json", revision=old)
    assert server.requests == []


def test_a_branch_with_a_slash_and_a_given_commit_are_served(server: HubServer, tmp_path: Path) -> None:
    commit = server.add_repo(NAME, {"a b.txt": b"!"}, commit="c" * 40, branch="refs/pr/1")
    path = download(server, tmp_path, "a b.txt", revision="refs/pr/1")
    assert path.read_bytes() == b"!"
    assert path.parent.name == commit


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_a_short_name_is_redirected_to_the_full_one(server: HubServer, tmp_path: Path, path: str) -> None:
    server.add_alias("bert-base-uncased", NAME)
    assert download(server, tmp_path, path, name="bert-base-uncased").read_bytes() == FILES[path]
    assert server.requests[0].path == f"/bert-base-uncased/resolve/main/{path}"
    assert server.requests[0].status == 307
    assert server.requests[1].path == f"/{NAME}/resolve/main/{path}"


@pytest.mark.parametrize(
    ("arguments", "error", "status"),
    [
        ({"name": "no/such"}, errors.RepositoryNotFoundError, 401),
        ({"name": "no/such", "token": "hf_any"}, errors.RepositoryNotFoundError, 404),
        ({"revision": "v9"}, errors.RevisionNotFoundError, 404),
        ({"path": "no.such"}, errors.EntryNotFoundError, 404),
        ({"token": "hf_expired"}, errors.HfHubHTTPError, 401),
    ],
)
def test_what_cannot_be_had_raises_what_the_client_raises_for_the_hub(
    server: HubServer, tmp_path: Path, arguments: dict[str, str], error: type[Exception], status: int
) -> None:
    server.invalidate_token("hf_expired")
    with pytest.raises(error) as caught:
        download(server, tmp_path, **{"path": "config.json", **arguments})
    assert type(caught.value).__name__.removeprefix("Remote") == error.__name__
    assert server.requests[-1].status == status
    assert server.body_bytes_sent == 0


def test_a_gated_repository_opens_to_its_token_alone(server: HubServer, tmp_path: Path) -> None:
    server.gate(NAME, token="hf_good")
    for token, status in ((False, 401), ("hf_other", 403)):
        with pytest.raises(errors.GatedRepoError):
            download(server, tmp_path, "model.safetensors", token=token)
        assert server.requests[-1].status == status
    server.clear()
    for path in ("config.json", "model.safetensors"):
        assert download(server, tmp_path, path, token="hf_good").read_bytes() == FILES[path]
    for request in server.requests:
        assert request.authorized != request.path.startswith("/cdn/")  # other hosts must not learn the token


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_a_cut_download_is_resumed_with_a_range_request(server: HubServer, tmp_path: Path, path: str) -> None:
    content = b"0123456789" * 1000
    server.add_repo(NAME, {path: content})
    server.cut(NAME, path, after=4000, times=2)
    assert download(server, tmp_path, path).read_bytes() == content
    gets = [request for request in server.requests if request.method == "GET"]
    assert [request.range_header for request in gets] == [None, "bytes=4000-", "bytes=8000-"]
    assert [request.status for request in gets] == [200, 206, 206]
    assert [request.body_bytes_sent for request in gets] == [4000, 4000, 2000]


def test_a_download_cut_again_and_again_fails_and_leaves_nothing(server: HubServer, tmp_path: Path) -> None:
    server.cut(NAME, "model.safetensors", after=0, times=100)
    with pytest.raises(BROKEN, match="without sending complete message body"):
        download(server, tmp_path, "model.safetensors")
    assert server.files("GET") == ["model.safetensors"] * 6
    assert not list(tmp_path.rglob("blobs/*"))
    server.heal()
    assert download(server, tmp_path, "model.safetensors").read_bytes() == WEIGHTS


def test_a_reset_connection_ends_the_download_at_once(server: HubServer, tmp_path: Path) -> None:
    server.cut(NAME, "model.safetensors", after=4000, reset=True)
    with pytest.raises(BROKEN, match="reset by peer"):
        download(server, tmp_path, "model.safetensors")
    assert server.files("GET") == ["model.safetensors"]
    assert download(server, tmp_path, "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_damaged_contents_go_unnoticed_by_the_client(server: HubServer, tmp_path: Path, path: str) -> None:
    whole = download(server, tmp_path / "whole", path)
    server.corrupt(NAME, path, flip_at=3)
    damaged = download(server, tmp_path / "damaged", path)
    server.heal()
    server.truncate(NAME, path, to=5)
    short = download(server, tmp_path / "short", path)
    assert {file.resolve().name for file in (whole, damaged, short)} == {whole.resolve().name}
    flipped = bytearray(FILES[path])
    flipped[3] ^= 0xFF
    assert damaged.read_bytes() == flipped
    assert short.read_bytes() == FILES[path][:5]


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_a_body_shorter_than_announced_is_refused(server: HubServer, tmp_path: Path, path: str) -> None:
    server.truncate(NAME, path, to=5, advertised=False)
    with pytest.raises(OSError, match="Consistency check failed"):
        download(server, tmp_path, path)


@pytest.mark.parametrize(
    ("asked", "status", "answered", "content"),
    [
        ("bytes=2-4", 206, "bytes 2-4/10240", WEIGHTS[2:5]),
        ("bytes=10200-", 206, "bytes 10200-10239/10240", WEIGHTS[10200:]),
        ("bytes=-7", 206, "bytes 10233-10239/10240", WEIGHTS[-7:]),
        ("bytes=10240-", 416, "bytes */10240", b""),
        ("lines=1-2", 200, None, WEIGHTS),
    ],
)
def test_ranges_are_answered(
    server: HubServer,
    asked: str,
    status: int,
    answered: str | None,
    content: bytes,
) -> None:
    url = huggingface_hub.hf_hub_url(NAME, "model.safetensors", endpoint=server.url)
    response = huggingface_hub.get_session().get(url, headers={"Range": asked})
    assert (response.status_code, response.headers.get("Content-Range")) == (status, answered)
    assert response.content == content


def test_a_stopped_server_refuses_and_comes_back_at_its_address(server: HubServer, tmp_path: Path) -> None:
    config = download(server, tmp_path, "config.json")
    url = server.url
    server.stop()
    assert download(server, tmp_path, "config.json") == config
    with pytest.raises(errors.LocalEntryNotFoundError):
        download(server, tmp_path, "model.safetensors")
    server.start()
    assert server.url == url
    assert download(server, tmp_path, "model.safetensors").read_bytes() == WEIGHTS


def test_stopping_leaves_no_thread(server: HubServer, tmp_path: Path) -> None:
    before = threading.active_count()
    with HubServer() as other:
        other.add_repo(NAME, FILES)
        download(other, tmp_path, "model.safetensors")
        assert threading.active_count() > before
    assert threading.active_count() == before
