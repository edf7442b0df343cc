"""The cost of word vectors relative to sentence vectors.

    python benchmarks/words.py --model FOLDER|NAME|base --texts FILE [--rounds 5] [--save NAME]

Both use the same engine. `encode` returns one vector per text; `words` returns one per word, with position and pieces.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import measure
import subjects

import minibert

COLUMNS = {key: measure.COLUMNS[key] for key in ("subject", "seconds", "fastest", "texts_per_second")} | {
    "ratio": ("of encode's speed", ".0%")
}


def main() -> None:
    """Measure, print, write."""
    options = subjects.parser(__doc__).parse_args()
    with subjects.opened(options) as (work, texts):
        calls: dict[str, Any] = {}
        for dtype in measure.DTYPES:
            bert = minibert.load(work.model, dtype=measure.DTYPES[dtype])
            bert.max_seq_length = work.bert.max_seq_length
            calls[f"encode {dtype}"] = partial(bert.encode, texts)
            calls[f"words {dtype}"] = partial(bert.words, texts)
        with subjects.quiet():
            seconds = measure.alternate(calls, options.rounds)
        flop = measure.flops(work.lengths(texts), work.bert.config)
        title = subjects.title(options, texts, work)
    rows = []
    for name, values in seconds.items():
        speed = measure.speed(values, len(texts), flop)
        standard = measure.speed(seconds[name.replace("words", "encode")], len(texts), flop)
        rows.append({"subject": name, **speed, "ratio": standard["seconds"] / speed["seconds"]})
    print(f"{title}\n{measure.machine_line()}\n")
    print(measure.table(rows, COLUMNS))
    measure.write_json(options, rows=rows, seconds=seconds)


if __name__ == "__main__":
    main()
