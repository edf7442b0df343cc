"""Changes to files: values of JSON, lines and fields of text, bytes, with what vouches for them put right or not."""

import fnmatch
import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

CASE, OUTSIDE = "case", "outside"  # folders beside one another; a case may touch the first alone
Changed = tuple[bytes, str]  # the content, and what was done, in words

NASTY = (
    *("null", "true", "false", "-1", "0", "1", "3", "0.5", "1e400", "-1e400", "NaN", "1e9", "1099511627776"),
    *("1" + "0" * 400, "1" * 5_000, '""', '" "', "[]", "{}", "[null]", '[["a"]]', '{"a": 1}', '{"content": {}}'),
    *("[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000, '"' + "x" * 100_000 + '"'),
    *(r'"\ud800"', r'"\u0000"', r'"\n# \u001b[31m\u202e"', '"nan"', '"__class__"', "[1, 2, 3]", '"1"', "[", "\ufeff1"),
)
NAMES = ("", "content", "type", "id", "__class__", "\x1b[31m", "0", "-1", "x" * 10_000, "\n")
FIELDS = ("", '"', '""', "\0", "\r", "\n", "\t", "=1+1", "\ufeff", "\x1b[31m", "x" * 200_000, '"a\nb"', "nan", "-10")
ATTACK = b"cposix\nsystem\n(Vtrue\ntR."  # a pickle that runs a program


def changed_json(random: Random, content: bytes) -> Changed:
    """One value of a JSON document replaced, deleted, duplicated or renamed; the rest as it was."""
    try:
        tree = {"": json.loads(content)}
    except (ValueError, RecursionError):  # an earlier change has broken it
        return changed_bytes(random, content)
    parent, key, node, path = tree, "", tree[""], []
    while isinstance(node, (dict, list)) and node and random.random() < 0.85:
        parent, key = node, random.choice(list(node)) if isinstance(node, dict) else random.randrange(len(node))
        node = parent[key]
        path.append(str(key))
    raw, mark = _nasty(random, node, tree[""]), "\ue000"  # what JSON libraries would not write, in place of a mark
    how = random.choice((*["replace"] * 7, "delete", "duplicate", "rename"))
    if how == "replace" or not path:
        parent[key] = mark
    elif how == "delete":
        del parent[key]
    elif isinstance(parent, list):
        parent[key:key] = [node] * random.choice((1, 1_000))
    elif how == "duplicate":
        parent[key], raw = mark, f"{json.dumps(node)}, {json.dumps(key)}: {raw}"
    else:
        new = random.choice((*NAMES, *parent))
        items = [(new if name == key else name, value) for name, value in parent.items()]
        parent.clear()
        parent.update(items)
    text = json.dumps(tree[""], ensure_ascii=False).replace(f'"{mark}"', raw, 1)
    return text.encode("utf-8", "surrogatepass"), f"{how} {'/'.join(path) or 'all'}: {raw:.60}"


def _nasty(random: Random, node: Any, tree: Any) -> str:
    """A value to put in the place of another one, as JSON."""
    kind = random.random()
    if kind < 0.2:  # one of another place
        while isinstance(tree, (dict, list)) and tree and random.random() < 0.85:
            tree = random.choice(list(tree.values()) if isinstance(tree, dict) else tree)
        return json.dumps(tree)
    if isinstance(node, str) and kind < 0.6:
        paths = (f"../../{OUTSIDE}/{node}", f"../../../{OUTSIDE}/{node}", f"{Path(OUTSIDE).resolve()}/{node}", "..")
        return json.dumps(random.choice((*paths, f"./{node}", node.upper(), node + "\0", node + "\n", node * 1_000)))
    if type(node) in (int, float) and abs(node) < 1e15 and kind < 0.6:
        return json.dumps(random.choice((node + 1, node - 1, -node, 2 * node, node + 0.5, str(node), 10**9 * node)))
    return random.choice(NASTY)


def changed_lines(random: Random, content: bytes) -> Changed:
    """One line of a text changed, or a field of it."""
    lines = content.splitlines(keepends=True) or [b""]
    number = random.randrange(len(lines))
    line, other = lines[number], random.choice(lines)
    how = random.choice(("json", "field", "field", "insert", "delete", "repeat", "swap", "ends", "bom", "latin-1"))
    what = ""
    if how == "json":
        line, what = changed_json(random, line.strip() or b"{}")
        lines[number] = line + b"\n"
    elif how in ("field", "insert"):
        mark = random.choice([mark for mark in (b",", b"\t", b" ", b":") if mark in line] or [b"\n"])
        fields = line.split(mark)
        place, what = random.randrange(len(fields)), random.choice(FIELDS)
        fields[place] = what.encode() + (fields[place] if how == "insert" else b"")
        lines[number] = mark.join(fields)
    elif how == "ends":
        lines = [line.rstrip(b"\n") + b"\r" for line in lines]
    else:
        new = {"delete": [], "repeat": [line] * 3, "swap": [other], "bom": [b"\xef\xbb\xbf" + line]}
        lines[number : number + 1] = new.get(how, [line.replace(b"e", b"\xe9")])
    return b"".join(lines), f"{how} line {number} {what:.60}"


def changed_bytes(random: Random, content: bytes) -> Changed:
    """A few bytes flipped, inserted, deleted, zeroed or copied, or the end cut off."""
    data = bytearray(content)
    # parts of the length: a file that is a byte longer, since it names another folder, is changed at the same place
    start = int(random.random() ** 2 * len(data))  # headers more often
    length = min(random.choice((1, 1, 4, 8, 64, 4096)), len(data) - start)
    end, there = start + length, int(random.random() * len(data))
    new = {
        "set": random.choice((b"\xff", b"\x7f", b"\x80", b"\n")) * length,
        "zero": bytes(length),
        "flip": bytes(byte ^ 1 << random.randrange(8) for byte in data[start : start + 1]) + data[start + 1 : end],
        "insert": random.randbytes(random.choice((1, 8, 300))) + data[start:end],
        "delete": b"",
        "copy": data[there : there + length],
    }
    how = random.choice(("flip", "truncate", "empty", *new))
    data[start:end] = new.get(how, b"")
    data = {"truncate": data[:start], "empty": bytearray()}.get(how, data)
    return bytes(data), f"{how} {length} bytes at {start}"


def changed_tensors(random: Random, content: bytes) -> Changed:
    """The header of a safetensors file changed as JSON, with its length put right."""
    end = 8 + int.from_bytes(content[:8], "little")
    header, what = changed_json(random, content[8:end])
    return len(header).to_bytes(8, "little") + header + content[end:], f"header, {what}"


def changed_archive(random: Random, content: bytes) -> Changed:
    """One entry of a zip archive changed, with its checksum put right."""
    new = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(new, "w") as archive:
            entries = {name: old.read(name) for name in old.namelist()}
            name = random.choice([name for name in entries if name.endswith("data.pkl")] + list(entries))
            entries[name], what = changed_bytes(random, entries[name])
            if name.endswith("data.pkl") and random.random() < 0.1:
                entries[name], what = ATTACK, "a pickle that runs a program"
            for entry, data in entries.items():
                archive.writestr(entry, data)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError):  # broken by an earlier change
        return changed_bytes(random, content)
    return new.getvalue(), f"{name}, {what}"


Change = Callable[[Random, bytes], Changed]
CHANGES: dict[str, tuple[Change, ...]] = {
    "*.json": (changed_json, changed_json, changed_json, changed_bytes),
    "*.safetensors": (changed_tensors, changed_bytes),
    "*pytorch_model*.bin": (changed_archive, changed_bytes),
    "*.parquet": (changed_bytes,),
    "*/vectors": (changed_bytes,),
    "*tokens.bin": (changed_bytes,),
    "*": (changed_lines, changed_lines, changed_lines, changed_bytes),
}


def change(random: Random, path: Path) -> str:
    """Change a file; says how."""
    if not path.is_file():
        return "no more"
    if random.random() < 0.03:
        path.unlink()
        if random.random() < 0.5:
            path.mkdir()
            return "a folder in its place"
        return "deleted"
    choices = next(these for pattern, these in CHANGES.items() if fnmatch.fnmatch(path.as_posix(), pattern))
    content, what = random.choice(choices)(random, path.read_bytes())
    path.write_bytes(content)
    return what


def digests_of(folder: Path) -> dict[Path, str]:
    """The sha256 of each file in a folder."""
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def put_digests_right(folder: Path, before: dict[Path, str]) -> None:
    """Write the digests of changed files where there were those of before, as somebody would who means harm."""
    after = digests_of(folder)
    changed = {old.encode(): after[path].encode() for path, old in before.items() if after.get(path, old) != old}
    for path in after:
        if path.suffix == ".json" or path.name == "journal":
            content = path.read_bytes()
            for old, new in changed.items():
                content = content.replace(old, new)
            with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no longer of that form
                content = SEALS.get(path.name, bytes)(content)
            path.write_bytes(content)


def _sealed_state(content: bytes) -> bytes:
    """The state of a training run with its digest of itself."""
    state = json.loads(content)["state"]
    text = json.dumps(state, ensure_ascii=False)
    return json.dumps({"state": state, "digest": hashlib.sha256(text.encode()).hexdigest()}).encode()


def _sealed_journal(content: bytes) -> bytes:
    """A journal, each of whose lines has a digest of those before it."""
    seal, lines = "", []
    for line in content.splitlines():
        entry = {name: value for name, value in json.loads(line).items() if name != "seal"}
        seal = hashlib.sha256((seal + json.dumps(entry, sort_keys=True)).encode()).hexdigest()
        lines.append(json.dumps({**entry, "seal": seal}, sort_keys=True) + "\n")
    return "".join(lines).encode()


SEALS = {"state.json": _sealed_state, "journal": _sealed_journal}
