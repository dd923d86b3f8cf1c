"""Full fine-tuning of the small BERT on 64 texts, against the usual ways, in one run.

    python benchmarks/fine_tuning.py [--data tickets] [--epochs 8] [--rounds 3] [--threads 1]

The plain loop shuffles and pads each batch to its longest text; once it takes the batches of this
package instead, and must then end at the same loss.  The Trainer is Hugging Face's: with that
padding, with every text padded once to the longest of all, and in mixed precision (left out where
``accelerate`` is not installed).  All train the same network from the same weights (mean over the
tokens, a linear head), see each text once an epoch, with AdamW at one rate, without dropout and
warm-up.  Each round has its own seed; the loss over the training texts at the end is a mean over
the rounds.  CPU time of this process is compared, loading the model and the last prediction
included, interleaved; only ratios mean anything.  On Linux the two variables that book/running.md
names for large arrays make a difference: a gradient of the table of words has 47 MB.

Mixed precision pays only on a processor with instructions for it (avx512_bf16, amx_bf16);
elsewhere it is emulated and far slower, so its rows are left out there.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  (reads the thread variables set above)

from fewshot_course.data import few_shot_split, load_dataset  # noqa: E402  (imports NumPy)
from fewshot_course.data.minilm import minilm_folder  # noqa: E402  (imports NumPy)

LR, BATCH = 5e-5, 16
Run = Callable[[int], float]
"""Trains with a seed and returns the loss over the training texts."""


def texts_and_labels(name: str = "tickets") -> tuple[list[str], np.ndarray]:
    """64 texts: 16 of each of 4 intents, or 32 of each of 2 verdicts."""
    data = load_dataset(name, "train")
    classes = min(4, len(data.class_names))
    chosen = few_shot_split(data.y, 64 // classes, np.random.default_rng(0), n_test=0).labelled
    chosen = chosen[data.y[chosen] < classes]
    return [data.X[i] for i in chosen], data.y[chosen]


def ours(texts: list[str], y: np.ndarray, epochs: int, precision: str = "float32") -> Run:
    from fewshot_course.torch import TextClassifier

    def run(seed: int) -> float:
        model = TextClassifier(
            tune="full", epochs=epochs, batch_size=BATCH, lr=LR, head_lr=LR, dropout=0.0,
            warmup=0.0, schedule="constant", precision=precision, random_state=seed,
        ).fit(texts, y, device="cpu")  # fmt: skip
        proba = model.predict_proba(texts)
        return float(-np.log(proba[np.arange(len(y)), y]).mean())

    return run


def hugging_face(texts: list[str], y: np.ndarray, seed: int) -> tuple[Any, list[dict[str, Any]]]:
    """The same network around the BERT of ``transformers``, and one row a text."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    from fewshot_course._streams import Streams
    from fewshot_course.both.fine_tuning import draw_weights, head_shapes

    folder = minilm_folder()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    tokenizer.no_padding()
    encoded = tokenizer.encode_batch(texts)
    rows = [{"ids": e.ids, "label": int(label)} for e, label in zip(encoded, y, strict=True)]

    class Classifier(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = BertConfig.from_pretrained(folder)
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
            self.bert = BertModel.from_pretrained(folder, config=config, add_pooling_layer=False)
            shapes = head_shapes("linear", config.hidden_size, int(y.max()) + 1)
            start = draw_weights(shapes, Streams.from_seed(seed).init)
            self.head = torch.nn.Linear(config.hidden_size, int(y.max()) + 1)
            self.head.load_state_dict(
                {k.removeprefix("head."): torch.tensor(v) for k, v in start.items()}
            )

        def forward(self, input_ids: Any, attention_mask: Any, labels: Any) -> dict[str, Any]:
            tokens = self.bert(input_ids, attention_mask).last_hidden_state
            mask = attention_mask[..., None].to(tokens.dtype)
            logits = self.head((mask * tokens).sum(1) / mask.sum(1))
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    return Classifier(), rows


def collate(rows: list[dict[str, Any]], length: int = 0) -> dict[str, Any]:
    """Pad a batch to its longest text, or to ``length`` if that is more."""
    import torch

    ids = [torch.tensor(row["ids"]) for row in rows]
    ids[0] = torch.nn.functional.pad(ids[0], (0, max(0, length - len(ids[0]))))
    mask = [(one > 0).long() for one in ids]  # 0 is the number of the padding
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad(ids, batch_first=True),
        "attention_mask": pad(mask, batch_first=True),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


def loss_of(model: Any, rows: list[dict[str, Any]]) -> float:
    import torch

    with torch.no_grad():
        return float(model.eval()(**collate(rows))["loss"])


def plain_loop(texts: list[str], y: np.ndarray, epochs: int, *, our_batches: bool = False) -> Run:
    import torch

    from fewshot_course._streams import Streams
    from fewshot_course.both.batches import LengthBatches

    def run(seed: int) -> float:
        torch.manual_seed(seed)
        model, rows = hugging_face(texts, y, seed)
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
        lengths = np.array([len(row["ids"]) for row in rows])
        by_length = LengthBatches(lengths, BATCH, Streams.from_seed(seed).batches)
        model.train()
        for _ in range(epochs):
            shuffled = torch.randperm(len(texts)).split(BATCH)
            for batch in [by_length.next() for _ in shuffled] if our_batches else shuffled:
                optimizer.zero_grad()
                model(**collate([rows[int(i)] for i in batch]))["loss"].backward()
                optimizer.step()
        return loss_of(model, rows)

    return run


def trainer(
    texts: list[str], y: np.ndarray, epochs: int, *, pad_once: bool = False, bf16: bool = False
) -> Run:
    import transformers
    from transformers import Trainer, TrainingArguments

    transformers.logging.set_verbosity_error()

    def run(seed: int) -> float:
        model, rows = hugging_face(texts, y, seed)
        length = max(len(row["ids"]) for row in rows) if pad_once else 0
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, num_train_epochs=epochs, per_device_train_batch_size=BATCH,
                learning_rate=LR, lr_scheduler_type="constant", weight_decay=0.01, max_grad_norm=0,
                report_to=[], save_strategy="no", logging_strategy="no", use_cpu=True,
                disable_tqdm=True, seed=seed, remove_unused_columns=False, bf16=bf16,
            )  # fmt: skip
            pad = functools.partial(collate, length=length)
            Trainer(model, arguments, train_dataset=rows, data_collator=pad).train()
        return loss_of(model, rows)

    return run


def refit_seconds(texts: list[str], y: np.ndarray) -> float:
    """Median CPU seconds of fitting a probe whose features are cached."""
    from fewshot_course.torch import TextClassifier

    times = []
    for _ in range(11):
        start = time.process_time()
        TextClassifier().fit(texts, y)
        times.append(time.process_time() - start)
    return statistics.median(times[1:])


def ways(texts: list[str], y: np.ndarray, epochs: int, mixed: bool) -> dict[str, Run]:
    """Name what is compared; ``mixed``: also in mixed precision."""
    job = (texts, y, epochs)
    runs = {
        "plain loop": plain_loop(*job),
        "its batches as ours": plain_loop(*job, our_batches=True),
    }
    if importlib.util.find_spec("accelerate") is None:
        print("(accelerate is not installed: the Trainer is left out)")
    else:
        runs["Trainer"] = trainer(*job)
        runs["Trainer, padded once"] = trainer(*job, pad_once=True)
        if mixed:
            runs["Trainer, bfloat16"] = trainer(*job, bf16=True)
    runs["this package"] = ours(*job)
    if mixed:
        runs["this package, bfloat16"] = ours(*job, "bfloat16")
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="tickets", choices=("tickets", "reviews"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    texts, y = texts_and_labels(options.data)
    refit = 1000 * refit_seconds(texts, y)
    mixed = any(torch.cpu.get_capabilities().get(name) for name in ("avx512_bf16", "amx_bf16"))
    if not mixed:
        print("(this processor has no bfloat16 instructions: mixed precision is left out)")
    for run in ways(texts, y, 1, mixed).values():  # what only the first call does
        run(0)
    runs = ways(texts, y, options.epochs, mixed)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    losses: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(options.rounds):
        for name, run in runs.items():
            start = time.process_time()
            losses[name].append(run(round_))
            seconds[name].append(time.process_time() - start)
    cost = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"{'way':22} {'s':>7} {'times the loop':>15} {'times the Trainer':>18} {'loss':>8}")
    for name, value in cost.items():
        ratio = cost["plain loop"] / value
        against = f"{cost['Trainer'] / value:.2f}" if "Trainer" in cost else "-"
        loss = statistics.mean(losses[name])
        print(f"{name:22} {value:7.2f} {ratio:15.2f} {against:>18} {loss:8.4f}")
    print(f"refit of a probe on cached features: {refit:.1f} ms")


if __name__ == "__main__":
    main()
