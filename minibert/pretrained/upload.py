"""To the Hub: a saved model becomes one commit of a repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypedDict

from minibert.errors import MinibertError
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
        ConnectionError: the Hub cannot be reached, or the upload broke off. Nothing was committed then.
    """
    import huggingface_hub as hub
    from huggingface_hub import errors

    if not isinstance(repo_id, str) or not is_name(repo_id):
        raise MinibertError(f"repo_id ({repo_id!r}) must be a name like 'me/my-model'; choose another one")
    api = hub.HfApi(token=token)
    text = card()
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save(folder)
        try:
            repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if repo != repo_id and not ("/" not in repo_id and repo.endswith(f"/{repo_id}")):
                raise ConnectionError(
                    f"{api.endpoint} must make the repository that is asked for, {repo_id}; it answers for "
                    f"{repo!r:.60}: nothing was sent, check HF_ENDPOINT"
                )
            if not api.file_exists(repo, "README.md", revision=revision):
                (folder / "README.md").write_text(text, encoding="utf-8")
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            operations = [hub.CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
            done = api.create_commit(
                repo, operations, commit_message=commit_message, revision=revision, create_pr=create_pr
            )
        except errors.RevisionNotFoundError:
            raise FileNotFoundError(
                f"revision ({revision}) of {repo_id} must be one of its branches; create it first, or leave it out"
            ) from None
        except errors.LocalTokenNotFoundError as error:
            raise _refused(repo_id, error) from None
        except JUNK as error:
            raise ConnectionError(
                f"the answers of {api.endpoint} must be those of a Hub to push to {repo_id}; they are not "
                f"({first_line(error)}): check HF_ENDPOINT, nothing was committed"
            ) from error
        except broken_uploads() as error:
            if isinstance(error, ConnectionError) and error.errno is None and repo_id in str(error):
                raise  # from above
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status in (401, 403, 404):
                raise _refused(repo_id, error) from None
            raise ConnectionError(
                f"the upload to {repo_id} must run to its end; it broke off ({first_line(error)}): run again, nothing "
                "was committed"
            ) from error
    return str(done.pr_url or done.commit_url)


def _refused(repo_id: str, error: Exception) -> PermissionError:
    return PermissionError(
        f"pushing to {repo_id} needs a token that may write there, and the Hub refuses this one or there is none "
        f"({type(error).__name__}); run `hf auth login`, or pass token="
    )


def broken_uploads() -> tuple[type[Exception], ...]:
    """What the client raises when a connection breaks, or when a large file does not arrive: RuntimeError."""
    return (*broken_connections(), RuntimeError)
