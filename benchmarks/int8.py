"""8-bit matrix products: torch's dynamic quantisation of the encoder, beside minibert in float32 and bfloat16.

    python benchmarks/int8.py --model FOLDER|NAME|base --texts FILE [--rounds 5] [--save NAME]

Weights are quantised once, with one scale per matrix; inputs at each product, with one scale per pass. Everything else,
including attention, stays float32. Cosines are to minibert in float32.
"""

from __future__ import annotations

import copy
from functools import partial

import measure
import subjects
import torch

STANDARD = "minibert float32"
COLUMNS = {key: column for key, column in measure.COLUMNS.items() if key != "share"}


def quantised(work: subjects.Work) -> subjects.Encode:
    """minibert with int8 products: `encode` runs whatever layers the encoder has."""
    bert = copy.deepcopy(work.bert)
    with subjects.quiet():  # torch recommends torchao
        bert.model = torch.ao.quantization.quantize_dynamic(bert.encoder, {torch.nn.Linear})
    return bert.encode


def main() -> None:
    """Measure, print, write."""
    options = subjects.parser(__doc__).parse_args()
    with subjects.opened(options) as (work, texts):
        encoders = {f"minibert {dtype}": subjects.ours(work, dtype) for dtype in measure.DTYPES}
        encoders["dynamic int8"] = quantised(work)
        flop = measure.flops(work.lengths(texts), work.bert.config)
        seconds = measure.alternate({name: partial(encode, texts) for name, encode in encoders.items()}, options.rounds)
        vectors = {name: encode(texts) for name, encode in encoders.items()}
        title = subjects.title(options, texts, work)

    speeds = {name: measure.speed(values, len(texts), flop) for name, values in seconds.items()}
    rows = [
        {
            "subject": name,
            **speed,
            "ratio": speeds[STANDARD]["seconds"] / speed["seconds"],
            **measure.agreement(vectors[name], vectors[STANDARD]),
        }
        for name, speed in speeds.items()
    ]
    print(f"{title}\n{measure.machine_line()}; kernels: {torch.backends.quantized.engine}\n")
    print(measure.table(rows, COLUMNS))
    print(f"\nmedian of {options.rounds} rounds; the speed ratio is that to {STANDARD}")
    measure.write_json(options, rows=rows, seconds=seconds)


if __name__ == "__main__":
    main()
