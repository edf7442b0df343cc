"""From the name of a checkpoint to its files: a local folder, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
from collections.abc import Callable
from copy import copy
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TypedDict, TypeVar

from typing_extensions import Unpack

from minibert.errors import MinibertError, warn
from minibert.pretrained.answers import AnswerError, Answers, UnreachableError, checked
from minibert.pretrained.files import check_readable, is_file, is_folder, place
from minibert.pretrained.source import Source
from minibert.records import parsed_json

T = TypeVar("T")
READINGS = 10  # of a folder that changes while it is read
OWNER = "sentence-transformers"  # of the models that people call "all-MiniLM-L6-v2"; their library adds it, too


class Where(TypedDict, total=False):
    """Which files are meant, and how they are fetched: arguments of `Pretrained.from_pretrained`, described there."""

    revision: str | None
    cache_dir: str | Path | None
    token: str | bool | None
    local_files_only: bool


class Repository:
    """The files of a checkpoint, in a local folder or on the Hub.

    Files of the Hub are downloaded when they are needed, into the Hub client's cache. All files are from the commit of
    the first one, so files of two versions are never mixed.

    Attributes:
        name: as the user gave it; with `OWNER` in front once a file was found there.
        commit: 40 hex digits, once known; None for a local folder.
        unknown: files that were asked for offline, and of which the cache does not say whether they exist.
    """

    def __init__(
        self,
        name: str,
        folder: Path | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.name = name
        self.folder = folder
        self.revision = revision or "main"
        self.commit: str | None = None
        self.unknown: set[str] = set()
        self._unchecked: set[str] = set()  # new downloads that could not be compared with a digest
        self._prefix = ""
        self._seen: dict[str, tuple[Any, ...] | None] = {}
        self._cache_dir = cache_dir
        self._token = token
        self._local_files_only = local_files_only

    @classmethod
    def open(cls, name_or_folder: str | Path, **where: Unpack[Where]) -> Repository:
        """Decide whether a name is a folder or a repository of the Hub; nothing is downloaded yet.

        Raises:
            FileNotFoundError: a path that does not exist.
            PermissionError: a path that may not be read.
            MinibertError: neither a folder nor a possible name; a revision of a folder.
        """
        if not isinstance(name_or_folder, (str, Path)):
            raise MinibertError(
                f"the checkpoint ({name_or_folder!r}) must be the name of a repository or a folder, as str or Path"
            )
        name = str(name_or_folder)
        if "://" in name:
            raise MinibertError(
                f"the checkpoint ({name}) must be a folder or a name, not an address: 'google-bert/bert-base-uncased'"
            )
        if len(name) > 4096 or any(len(part) > 255 for part in name.split("/")):
            raise MinibertError(
                f"the checkpoint ({name[:40]}...) must be a folder or a name; it is too long for either"
            )
        folder = Path(name).expanduser()
        if name and is_folder(folder):
            if where.get("revision") is not None:
                raise MinibertError(f"revision ({where['revision']!r}) must be left out for a local folder ({name})")
            return cls(name, folder=folder)
        if is_file(folder):
            raise MinibertError(f"the checkpoint ({name}) must be a folder; pass {folder.parent}, which holds the file")
        if isinstance(name_or_folder, Path) or name.startswith((".", "~", os.sep)) or name.count("/") > 1:
            raise FileNotFoundError(f"the folder ({name}) must exist; check the path")
        if not is_name(name):
            raise MinibertError(
                f"the checkpoint ({name!r}) must be a folder that exists or a name like 'google-bert/bert-base-uncased'"
            )
        return cls(name, **where)

    def inside(self, path: str) -> Repository:
        """A folder of the repository; sentence-transformers keeps parts of a model in folders."""
        inner = copy(self)
        if path:
            inner._prefix = f"{self._prefix}{path}/"
        return inner

    def __str__(self) -> str:
        return str(self.source)

    @property
    def source(self) -> Source:
        """Where it is, as a value."""
        if self.folder is not None:
            return Source(str(self.folder), folder=str(self.folder.absolute()))
        return Source(self.name, self.revision, self.commit)

    def file(self, filename: str) -> Path | None:
        """The path of a file, downloaded if needed; None where the repository has no such file.

        Raises:
            FileNotFoundError: no such repository or revision; or no network, and the file is not in the cache.
            PermissionError: a gated or private repository, and no token that opens it; or a folder that may not be
                read.
            ConnectionError: the Hub cannot be reached; or a download failed, also after the client's retries, which
                resume it; or it was too slow (see `answers`); or a server answered what no Hub does.
            OSError: the file has another digest than on the Hub.
            MinibertError: the name leads out of the repository.
        """
        filename = check_inside(self._prefix + filename, self)
        if self.folder is not None:
            path = place(self.folder, filename)
            self._seen[filename] = _identity(path)
            return path
        return self._fetch(filename)

    def instead(self) -> str:
        """What is there in the place of a checkpoint, to end a message with; empty where nothing special is."""
        adapter = self.object("adapter_config.json")
        if adapter is not None:
            base = adapter.get("base_model_name_or_path") or "its base model"
            return (
                f": it holds a PEFT adapter alone; load its base model with peft ({base}), call merge_and_unload(), "
                "and save that model here"
            )
        if self.folder is None:
            return ""
        other = "if you mean a repository of the Hub of this name, rename or remove the folder"
        if not any(self.folder.iterdir()):
            return f": it is empty; {other}"
        return f": {other}" if is_name(self.name) else ""

    def read_whole(self, read: Callable[[], T]) -> T:
        """The result of `read`, with all files from the same save.

        A folder that changes meanwhile is read again, since its configuration and weights could be of different models.

        Raises:
            OSError: the folder changed each time.
        """
        for _ in range(READINGS):
            self._seen.clear()
            try:
                result = read()
            except Exception:  # may come from the mixture; of files that are as they were, it is the reader's own
                if not self._changed():
                    raise
            else:
                if not self._changed():
                    return result
        raise OSError(f"the folder ({self}) must not change while it is loaded; load it when it has been written")

    def _changed(self) -> bool:
        folder = self.folder
        return folder is not None and any(_identity(place(folder, name)) != of for name, of in self._seen.items())

    def json(self, filename: str) -> Any:
        """The content of a JSON file; None where the repository has no such file.

        Raises:
            MinibertError: the file is not JSON.
        """
        path = self.file(filename)
        if path is None:
            return None
        check_readable(path, "JSON")
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)  # with or without a byte order mark
        return parsed_json(content, f"{self._prefix}{filename} of {self}", "correct the file")

    def object(self, filename: str) -> dict[str, Any] | None:
        """The content of a JSON file that must hold an object; None where the repository has no such file.

        Raises:
            MinibertError: the file is not JSON, or something else than an object.
        """
        values = self.json(filename)
        if values is not None and not isinstance(values, dict):
            raise MinibertError(
                f"{self._prefix}{filename} of {self} must be a JSON object, not a {type(values).__name__}"
            )
        return values

    def _fetch(self, filename: str) -> Path | None:
        """The path of a file in the cache, downloaded first if need be; None where the repository has no such file."""
        import huggingface_hub as hub

        # Later files come from the commit of the first; what the cache knows of it costs no request.
        revision = self.commit or self.revision
        cached = hub.try_to_load_from_cache(self.name, filename, cache_dir=self._cache_dir, revision=revision)
        if cached is not None and not isinstance(cached, str) and (self.commit or self._offline):
            return None  # known not to exist
        answers = Answers(f"the download of {filename} of {self}")
        path = self._download(filename, revision, answers)
        if path is None:
            return None
        if self.commit is None:
            self.commit = _commit_of(path)
        if not isinstance(cached, str):
            self._verify(path, filename, answers.etag)
        return path

    def _download(self, filename: str, revision: str, answers: Answers) -> Path | None:
        """Ask the Hub's client for a file, and raise Python's own errors instead of the client's."""
        from huggingface_hub import errors

        refusal: errors.RepositoryNotFoundError | errors.LocalEntryNotFoundError | None = None
        for name in self._names:
            # what cannot be asked for under one name need not be asked for under another
            only_cached = self._local_files_only or isinstance(refusal, errors.LocalEntryNotFoundError)
            try:
                path = self._ask(name, filename, revision, only_cached, answers)
            except errors.GatedRepoError as error:
                raise self._no_access(error) from None
            except (errors.RepositoryNotFoundError, errors.LocalEntryNotFoundError) as error:
                refusal = refusal or error
            except errors.RevisionNotFoundError as error:
                raise self._no_access(error) from None
            except errors.EntryNotFoundError as error:
                self.name, self.commit = name, self.commit or _commit_in(error)
                return None
            except UnreachableError:  # the other name may be in the cache
                refusal = refusal or errors.LocalEntryNotFoundError("it does not answer")
            except AnswerError:
                raise
            except broken_connections() as error:
                self._raise_broken(filename, error)
            except JUNK as error:
                raise ConnectionError(
                    f"the download of {filename} of {self} must be answered as by a Hub; {_endpoint()} answers "
                    f"something else ({first_line(error)}): check the address (HF_ENDPOINT)"
                ) from error
            else:
                self.name = name
                return path
        if isinstance(refusal, errors.LocalEntryNotFoundError):
            self._refuse_unless_offline(filename, refusal)
            return None
        raise self._no_access(refusal) from None

    @property
    def _names(self) -> tuple[str, ...]:
        """What the repository may be called on the Hub; one name as soon as a file was found."""
        return (self.name,) if "/" in self.name or self.commit else (self.name, f"{OWNER}/{self.name}")

    def _ask(self, name: str, filename: str, revision: str, only_cached: bool, answers: Answers) -> Path:
        import huggingface_hub as hub

        with checked(answers):
            return Path(
                hub.hf_hub_download(
                    name,
                    filename,
                    revision=revision,
                    cache_dir=self._cache_dir,
                    token=self._token,
                    local_files_only=only_cached,
                )
            )

    def _no_access(self, error: Exception | None) -> OSError:
        """The error for a repository or revision that does not exist or is not accessible."""
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            return PermissionError(
                f"{self.name} is gated and must be opened to you; accept its terms on its page on the Hub, "
                "then pass token= or set HF_TOKEN"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            nor = "".join(f", and there is no {name!r}" for name in self._names[1:])
            return FileNotFoundError(
                f"{self.name!r} must be a local folder or a repository of the Hub that you may read; "
                f"it is neither{nor}: check the name, and pass token= or set HF_TOKEN if it is private"
            )
        return FileNotFoundError(
            f"revision ({self.revision}) of {self.name} must be one of its branches, tags or commits; "
            "leave revision out for the newest"
        )

    def _raise_broken(self, filename: str, error: Exception) -> NoReturn:
        """Raise what a broken download means: a bad token, this machine's disk, or the network."""
        if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
            raise PermissionError(
                f"the token for {self.name} must be valid; the Hub refuses it: renew it, or pass token=False for a "
                "public repository"
            ) from None
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            raise error  # this machine's disk, not the network
        raise ConnectionError(
            f"the download of {filename} of {self} must run to its end; it broke off "
            f"({first_line(error)}): run again, files that are complete are kept"
        ) from error

    @property
    def _offline(self) -> bool:
        from huggingface_hub import constants

        return self._local_files_only or bool(constants.HF_HUB_OFFLINE)

    def _refuse_unless_offline(self, filename: str, error: Exception) -> None:
        """Offline, treat a file that is not in the cache as absent if the checkpoint is in it; else raise."""
        if self._offline and self.commit is not None:
            self.unknown.add(filename)
            return
        if self._offline:
            nor = "".join(f", nor is that of {name}" for name in self._names[1:])
            raise FileNotFoundError(
                f"{filename} of {self} must be in the cache to be loaded offline; it is not{nor}: load it once with a "
                "network, without local_files_only and HF_HUB_OFFLINE"
            ) from None
        reason = first_line(error.__cause__) if error.__cause__ else error
        raise ConnectionError(
            f"the Hub ({_endpoint()}) must be reachable to load {filename} of {self}, which is not in the cache; it "
            f"is not ({reason}): check the network, or pass a local folder"
        ) from None

    def _verify(self, path: Path, filename: str, etag: str | None) -> None:
        """Compare a new download with its digest on the Hub, which is its ETag and its name in the cache."""
        blob = path.resolve()
        name = etag or blob.name
        if re.fullmatch(r"[0-9a-f]{64}", name):  # large files: their sha256
            digest = hashlib.sha256()
        elif re.fullmatch(r"[0-9a-f]{40}", name):  # small files: the sha1 of their git blob
            digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size)
        else:  # mirrors on other stores than the Hub's
            if not self._unchecked:
                warn(
                    f"the server of {self} gives no digest of {filename} (its ETag is {name!r:.40}), so what arrived "
                    "can be compared with what was sent by its length alone; load it from the Hub itself to be sure"
                )
            self._unchecked.add(filename)
            return
        with blob.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != name:
            path.unlink()
            blob.unlink(missing_ok=True)  # they are one where the system has no symbolic links
            raise OSError(
                f"{filename} of {self} must have the digest {name}; what arrived has {digest.hexdigest()}: "
                "it was removed, run again"
            )


def _identity(path: Path | None) -> tuple[Any, ...] | None:
    """What differs between a file and another one that replaces it."""
    try:
        status = None if path is None else path.stat()
    except FileNotFoundError:  # it has been moved since it was found
        return None
    return None if status is None else (path, status.st_ino, status.st_size, status.st_mtime_ns)


# What the client raises where it takes an answer for that of a Hub, and the answer is something else: a list for an
# object, no JSON, a key or a header that is not there, a number that is none. Nothing but calls of the client is tried.
JUNK = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(AssertionError, NameError, RuntimeError),  # "etag must have been retrieved", a variable not set, RecursionError
)


def _endpoint() -> str:
    """The address of the Hub."""
    from huggingface_hub import constants

    return constants.ENDPOINT


def broken_connections() -> tuple[type[Exception], ...]:
    """What the client raises when a connection breaks: OSError, or one of its HTTP library's errors."""
    from huggingface_hub.errors import HfHubHTTPError

    base: Any = HfHubHTTPError.__bases__[0]  # requests' before version 1 of the client, httpx's since
    library = import_module(base.__module__.partition(".")[0])
    return (OSError, base, getattr(library, "InvalidURL", base))  # httpx's is no HTTPError; requests' is one


def check_inside(filename: str, repository: object) -> str:
    """The name of a file, which another file of the repository may have given, if it stays in the repository.

    Raises:
        MinibertError: it is absolute, goes up with "..", or is none that every system can have.
    """
    parts = [part for part in filename.split("/") if part not in ("", ".")]
    strange = filename.startswith("/") or "\\" in filename or ":" in filename
    strange = strange or not filename.isprintable() or len(filename) > 1_000
    if strange or any(part == ".." or len(part.encode()) > 255 for part in parts):
        raise MinibertError(
            f"the file name ({filename!r:.60}) in {repository} must lead to a file inside it, without '..' and without "
            "a drive or a slash at the beginning; use a checkpoint from a source you trust"
        )
    return "/".join(parts)


def is_name(name: str) -> bool:
    """Whether the Hub could have a repository of this name; the client refuses other names with a ValueError."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _commit_of(path: Path) -> str | None:
    """The commit in a path of the cache, `.../snapshots/<commit>/...`."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts else None


def _commit_in(error: BaseException) -> str | None:
    """The commit that the Hub answered for, in the headers of its answer."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    return headers.get("X-Repo-Commit")


def first_line(error: BaseException) -> str:
    """The type of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}"
