"""PyPI's ``setfit`` behind ``fit`` and ``predict_proba``, to be compared with.

Only the experiment ``fine-tuning`` uses it, for its method "setfit"; the course itself does not
need the package.
"""

from __future__ import annotations

import importlib.util
import tempfile
from typing import Any, Self

import numpy as np

from fewshot_course.data import minilm

_MANY_PAIRS = 10_000


class SetFitPeer:
    """SetFit with the defaults of its package, on the course's encoder.

    Pairs are drawn by "oversampling", the default; where that would make more than 10,000 pairs
    (with 77 classes it would make 146,000), by "undersampling".

    Args:
        model: the encoder, as for ``TextClassifier``.
        batch_size: pairs in a step.
        max_length: tokens a text may have.
        random_state: seed of pairs and batches.
        device: "cpu", "cuda", ...: as PyTorch calls it; "auto" leaves it to the package.

    Raises:
        ImportError: if ``setfit`` is not installed.
    """

    def __init__(
        self, model: str, batch_size: int, max_length: int, random_state: int, device: str = "cpu"
    ) -> None:
        if importlib.util.find_spec("setfit") is None:
            raise ImportError(
                "method 'setfit' compares with the package setfit, which is not installed: "
                "pip install 'fewshot-course[peers]'"
            )
        self.model = model
        self.batch_size = batch_size
        self.max_length = max_length
        self.random_state = random_state
        self.device = None if device == "auto" else device

    def fit(self, X: list[str], y: np.ndarray, **_: Any) -> Self:
        """Tune the encoder on pairs, then fit the package's logistic regression."""
        from datasets import Dataset
        from sentence_transformers import SentenceTransformer, models
        from setfit import SetFitModel, Trainer, TrainingArguments
        from setfit.modeling import LogisticRegression
        from transformers import logging, set_seed

        logging.set_verbosity_error()
        set_seed(self.random_state)
        folder = minilm.minilm_folder() if self.model == "minilm" else self.model
        bert = models.Transformer(str(folder), max_seq_length=self.max_length)
        pool = models.Pooling(bert.get_embedding_dimension(), "mean")
        body = SentenceTransformer(modules=[bert, pool, models.Normalize()], device=self.device)
        self.network_ = SetFitModel(body, LogisticRegression(max_iter=1000))
        self.classes_ = np.unique(y)
        with tempfile.TemporaryDirectory() as scratch:
            arguments = TrainingArguments(
                output_dir=scratch,
                batch_size=self.batch_size,
                num_epochs=1,
                sampling_strategy=sampling(y),
                seed=self.random_state,
                report_to="none",
                save_strategy="no",
                logging_strategy="no",
                show_progress_bar=False,
            )
            data = Dataset.from_dict({"text": X, "label": [int(label) for label in y]})
            Trainer(self.network_, args=arguments, train_dataset=data).train()
        return self

    def predict_proba(self, X: list[str]) -> np.ndarray:
        """Return class probabilities ``(n, C)``."""
        return np.asarray(self.network_.predict_proba(X, as_numpy=True))


def sampling(y: np.ndarray) -> str:
    """Return how pairs are drawn: "oversampling" makes both kinds as many as the larger one."""
    counts = np.unique(y, return_counts=True)[1]
    within = int((counts * (counts - 1) // 2).sum())
    between = len(y) * (len(y) - 1) // 2 - within
    return "undersampling" if 2 * max(within, between) > _MANY_PAIRS else "oversampling"
