"""To the Hub: a saved model becomes one commit of a repository."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

from minibert.errors import MinibertError
from minibert.pretrained.answers import AnswerError, Answers, checked
from minibert.pretrained.hub import JUNK, broken_connections, first_line, is_name


class PushSettings(TypedDict, total=False):
    """Keyword arguments of `push_to_hub`, described at `push`."""

    private: bool | None
    token: str | bool | None
    commit_message: str
    revision: str | None
    create_pr: bool


def push(
    save: Callable[[Path], None],
    repo_id: str,
    card: Callable[[], str],
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload the model",
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Save a model into a temporary folder, and commit its files to a repository, which is created if need be.

    All files come in one commit: whoever loads the repository meanwhile gets the old ones or the new ones.

    Args:
        save: writes the files into a folder.
        repo_id: the repository, `name` or `owner/name`.
        card: the text of README.md; called only if the repository has none.
        private: whether a new repository is private; None leaves it to the account's default.
        token: with the right to write; `HF_TOKEN` or the stored login when None.
        commit_message: the first line of the commit's message.
        revision: the branch; the default branch when None.
        create_pr: open a pull request with the commit.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        MinibertError: the name cannot be that of a repository.
        PermissionError: no token, or one that may not write there.
        FileNotFoundError: the branch does not exist.
        ConnectionError: the Hub cannot be reached; the upload broke off; or a server answered what no Hub does, or
            named another repository, or another address. The commit is then there as a whole or not at all.
    """
    import huggingface_hub as hub

    if not isinstance(repo_id, str) or not is_name(repo_id):
        raise MinibertError(f"repo_id ({repo_id!r}) must be a name like 'me/my-model'; choose another one")
    api = hub.HfApi(token=token)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder)
        with _uploading(repo_id, revision, api.endpoint):
            named = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            repo = _checked_name(named, repo_id, api.endpoint)
            has_card = api.file_exists(repo, "README.md", revision=revision)
        if not has_card:
            (folder / "README.md").write_text(card(), encoding="utf-8")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        operations = [hub.CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
        with _uploading(repo_id, revision, api.endpoint):
            done = api.create_commit(
                repo, operations, commit_message=commit_message, revision=revision, create_pr=create_pr
            )
            address = done.pr_url or done.commit_url
            if not isinstance(address, str):
                raise TypeError(f"the address of the commit is {address!r}")
    return address


def _checked_name(named: str, repo_id: str, endpoint: str) -> str:
    """The repository that the Hub says it made or has, if it is the one that was asked for."""
    wanted, got = repo_id.casefold(), named.casefold()  # the Hub's names differ in more than case
    if got != wanted and ("/" in repo_id or got.rpartition("/")[2] != wanted):
        raise AnswerError(
            f"{endpoint} must make the repository that is asked for, {repo_id}; it answers for {named!r:.60}: nothing "
            "was sent, check HF_ENDPOINT, or push to that name"
        )
    return named


@contextmanager
def _uploading(repo_id: str, revision: str | None, endpoint: str) -> Iterator[None]:
    """Check what the client is answered in the block, and raise Python's own errors instead of the client's."""
    from huggingface_hub import errors

    what = f"the upload to {repo_id}"
    whole = "run again; its commit is made as a whole or not at all"
    failures: tuple[type[Exception], ...] = (*broken_connections(), *JUNK)
    try:
        with checked(Answers(what, upload=True)):
            yield
    except AnswerError:
        raise
    except errors.RevisionNotFoundError:
        raise FileNotFoundError(
            f"revision ({revision}) of {repo_id} must be one of its branches; create it first, or leave it out"
        ) from None
    except errors.LocalTokenNotFoundError as error:
        raise _refused(repo_id, error) from None
    except failures as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error  # of a large file
        if isinstance(cause, AnswerError):
            raise cause from None
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403, 404):
            raise _refused(repo_id, error) from None
        if isinstance(cause, broken_connections()):
            raise ConnectionError(
                f"{what} must run to its end; it broke off at {endpoint} ({first_line(cause)}): {whole}"
            ) from error
        raise ConnectionError(
            f"{what} must be answered as by a Hub; {endpoint} answers something else ({first_line(cause)}): check the "
            f"address (HF_ENDPOINT), and {whole}"
        ) from error


def _refused(repo_id: str, error: Exception) -> PermissionError:
    return PermissionError(
        f"pushing to {repo_id} needs a token that may write there, and the Hub refuses this one or there is none "
        f"({type(error).__name__}); run `hf auth login`, or pass token="
    )
