"""One of several processes that fine-tune together: `torchrun finetune_worker.py MODEL TASK ROWS OUTPUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch import distributed

import minibert

SETTINGS = {"epochs": 2, "batch_size": 5, "learning_rate": 1e-3}

if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    model, task, rows, output = sys.argv[1:]
    given = json.loads(Path(rows).read_text())
    run = minibert.load(model).finetune(given, task=task, dev=given, output=output, **SETTINGS)
    Path(output, f"{distributed.get_rank()}.json").write_text(json.dumps(run.metrics))
    distributed.destroy_process_group()
