"""Looking inside a model: minibert beside transformers, TransformerLens and nnsight.

    python benchmarks/study.py [--model FOLDER] [--texts FILE] [--rounds 7] [--save NAME]

The subjects get the same text and tokenize it within the measured time; they run in turn. Without `--model`, a
checkpoint of bert-base's shape with random weights is used: the time does not depend on the weights. The peers need
`pip install transformer-lens nnsight`; one that is not installed is left out. With `--texts`, the growth of resident
memory during `head_statistics` over all lines of the file is measured as well.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import torch

import minibert

SENTENCE = "The animal did not cross the wide street because it was far too tired to walk on ."
COLUMNS = {
    "work": ("work", ""),
    "subject": ("subject", ""),
    "milliseconds": ("median (ms)", ",.1f"),
    "ratio": ("time ratio", ".2f"),
}
Subjects = dict[str, Callable[[], Any]]


def text_of(tokenizer: Any, tokens: int) -> str:
    """A text of so many tokens, special ones included."""
    words = (SENTENCE.split() * tokens)[: tokens - 2]
    text = " ".join(words)
    assert len(tokenizer.encode(text)) == tokens
    return text


class Peers:
    """The same checkpoint in every library."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer, BertForMaskedLM

        measure.hush_transformers()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

        def eager() -> Any:
            return BertForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()

        self.eager, self.sdpa = eager(), BertForMaskedLM.from_pretrained(folder).eval()
        self.lens = self.nnsight = None  # each wraps a model of its own
        if measure.version_of("transformer-lens"):
            from transformer_lens.model_bridge import TransformerBridge

            self.lens = TransformerBridge.boot_transformers(folder, hf_model=eager(), tokenizer=self.tokenizer)
        if measure.version_of("nnsight"):
            import nnsight

            self.nnsight, self.keep = nnsight.NNsight(eager()), nnsight.save

    def ids(self, text: str) -> Any:
        """The text as transformers' tokenizer gives it."""
        return self.tokenizer(text, return_tensors="pt")


def maps(bert: minibert.Bert, peers: Peers, text: str) -> Subjects:
    """All attention weights of one text."""
    layers = range(bert.config.num_hidden_layers)

    def transformers_eager() -> object:
        return torch.stack(peers.eager.bert(**peers.ids(text), output_attentions=True).attentions)

    def transformer_lens() -> object:
        ids = peers.ids(text)["input_ids"]
        _, cache = peers.lens.run_with_cache(ids, names_filter=lambda name: name.endswith("hook_pattern"))
        return torch.stack([cache[f"blocks.{layer}.attn.hook_pattern"] for layer in layers])

    def nnsight() -> object:
        with peers.nnsight.trace(**peers.ids(text)):
            saved = peers.keep([])
            for layer in layers:
                saved.append(peers.nnsight.bert.encoder.layer[layer].attention.self.output[1])
        return torch.stack(saved)

    subjects: Subjects = {"transformers eager": transformers_eager, "minibert": lambda: bert.attention(text).weights}
    subjects |= {"TransformerLens": transformer_lens} if peers.lens else {}
    subjects |= {"nnsight": nnsight} if peers.nnsight else {}
    expected = transformers_eager()
    for name, run in subjects.items():
        found = run()
        assert (found.reshape(expected.shape) - expected).abs().max() < 1e-5, name
    return subjects


def layers(bert: minibert.Bert, peers: Peers, text: str) -> Subjects:
    """The hidden states of all layers, beside a forward pass that keeps nothing."""

    def plain() -> object:
        return bert.encoder(**bert.tokenizer(text, return_tensors="pt"))

    def nnsight() -> object:
        with peers.nnsight.trace(**peers.ids(text)):
            saved = peers.keep([])
            for layer in peers.nnsight.bert.encoder.layer:
                saved.append(layer.output)
        return saved

    subjects: Subjects = {
        "minibert, a plain forward pass": plain,
        "minibert, a trace of all layers": lambda: bert.trace(text, ["encoder.layers.*"]),
        "transformers, output_hidden_states": lambda: peers.sdpa.bert(**peers.ids(text), output_hidden_states=True),
    }
    return subjects | ({"nnsight": nnsight} if peers.nnsight else {})


def sweep(bert: minibert.Bert, peers: Peers, text: str) -> Subjects:
    """What each head is worth, by leaving out each in turn."""
    subjects: Subjects = {"minibert": lambda: bert.ablation([text])}
    if peers.lens is None:
        return subjects
    config, lens = bert.config, peers.lens

    def transformer_lens() -> object:
        ids = peers.ids(text)["input_ids"]
        for layer in range(config.num_hidden_layers):
            for head in range(config.num_attention_heads):

                def zero(z: Any, hook: Any, head: int = head) -> Any:
                    z.view(*z.shape[:2], config.num_attention_heads, -1)[:, :, head] = 0
                    return z

                lens.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)])
        return None

    return {"TransformerLens, one run for each head": transformer_lens} | subjects


def rows(work: str, subjects: Subjects, rounds: int) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """The rows of the table, relative to the first subject, and the raw seconds."""
    seconds = measure.alternate(subjects, rounds)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = next(iter(medians.values()))
    return [
        {"work": work, "subject": name, "milliseconds": 1000 * median, "ratio": median / first}
        for name, median in medians.items()
    ], seconds


def masked_base(folder: Path, tokenizer: Path) -> str:
    """A masked-LM checkpoint of bert-base's shape with random weights."""
    from transformers import BertConfig, BertForMaskedLM

    measure.base_model(folder, tokenizer)  # the tokenizer's files
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig()).save_pretrained(folder)
    return str(folder)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder (default: bert-base's shape, random weights)")
    parser.add_argument("--tokenizer", type=Path, help="without --model: the folder of a tokenizer")
    parser.add_argument("--texts", type=Path, help="for head_statistics, one text per line")
    parser.add_argument("--rounds", type=int, default=7)
    measure.add_output(parser)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary, torch.inference_mode():
        if options.model is None and options.tokenizer is None:
            measure.stop("--model or --tokenizer must name a folder; the tokenizer's files are taken from it")
        folder = str(options.model or masked_base(Path(temporary), options.tokenizer))
        bert, peers = minibert.load(folder), Peers(folder)
        table: list[dict[str, Any]] = []
        raw: dict[str, Any] = {}
        for work, make, tokens, rounds in (
            ("attention weights, 32 tokens", maps, 32, options.rounds * 3),
            ("attention weights, 128 tokens", maps, 128, options.rounds),
            ("all layers, 32 tokens", layers, 32, options.rounds * 3),
            ("all layers, 128 tokens", layers, 128, options.rounds),
            ("worth of each head, 32 tokens", sweep, 32, max(3, options.rounds // 2)),
        ):
            new, raw[work] = rows(work, make(bert, peers, text_of(bert.tokenizer, tokens)), rounds)
            table += new
        parts: dict[str, Any] = {"rows": table, "seconds": raw}
        print(f"{measure.machine_line()}\n\n{measure.table(table, COLUMNS)}\n")
        print("median; the time ratio is that to the first subject of each block")
        if options.texts:
            texts = measure.read_texts(options.texts)
            minibert.head_statistics(bert, texts[:100])
            grown = measure.growth(lambda: minibert.head_statistics(bert, texts))
            parts["statistics"] = {"texts": len(texts), "growth": grown}
            print(f"head_statistics over {len(texts):,} texts: {(grown or 0) / 2**20:.0f} MB above the model")
    measure.write_json(options, **parts)


if __name__ == "__main__":
    main()
