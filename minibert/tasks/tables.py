"""Results of tasks as a table."""

from __future__ import annotations

from typing import Any

from minibert.errors import MinibertError, optional
from minibert.tasks.answer import Answer
from minibert.tasks.classify import Label
from minibert.tasks.entities import Entity
from minibert.tasks.fill_mask import Candidate
from minibert.tasks.rank import Ranked

RESULTS = (Answer, Candidate, Entity, Label, Ranked)


def to_pandas(results: Any) -> Any:
    """Make a table with one row for each label, entity, answer, candidate or ranked document.

    Args:
        results: what `classify`, `rank`, `entities`, `answer` or `fill_mask` of a `Bert` returned. Put those of one
            question with `top_k`, and of one text with several [MASK], into a list: `to_pandas([results])`.

    Returns:
        A `pandas.DataFrame` with the columns number (the number of the text), for candidates also mask (the number of
        the [MASK] in the text), and the fields of the results. A text without results has no row.

    Raises:
        ImportError: pandas is not installed.
        MinibertError: other results than these.
    """
    pandas = optional("pandas", "to_pandas", "pandas")
    given = [results] if isinstance(results, RESULTS) else list(results)
    if given and isinstance(given[0], RESULTS) and not isinstance(given[0], Answer):  # of one text
        given = [given]
    rows: list[dict[str, Any]] = []
    for number, found in enumerate(given):
        found = [found] if isinstance(found, RESULTS) else list(found)
        for mask, group in enumerate(found if found and isinstance(found[0], list) else [found]):
            for one in group:
                if not isinstance(one, RESULTS):
                    names = ", ".join(kind.__name__ for kind in RESULTS)
                    raise MinibertError(f"results ({one!r:.40}) must be made of {names}; pass what a task returned")
                place = {"number": number, "mask": mask} if isinstance(one, Candidate) else {"number": number}
                rows.append({**place, **one._asdict()})
    return pandas.DataFrame(rows or {"number": []})
