"""Fine-tuning with the same seed: equal losses and predictions in both frameworks."""

import numpy as np
import pytest
import tiny_bert

pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("tensorflow", reason="tensorflow is not installed")

import fewshot_course.tf as course_tf
import fewshot_course.torch as course_torch

AFTER_TEN = {"float64": 1e-10, "float32": 1e-4}
# 20 texts in batches of 8 are three steps an epoch: twelve in all.
SETTINGS = {"epochs": 4, "batch_size": 8, "lr": 1e-3, "max_length": 24, "random_state": 3}
CASES = {
    "LSTM on frozen tokens": {"head": "lstm"},
    "full": {"tune": "full"},
    "full, LSTM": {"tune": "full", "head": "lstm", "dropout": 0.0, "schedule": "constant"},
    "top, anew": {"tune": "top", "top_layers": 2, "reinit_layers": 1, "class_weight": "balanced"},
    "L2-SP, plateau": {"tune": "full", "l2_sp": 0.1, "schedule": "plateau", "plateau_patience": 0},
    "LoRA": {"tune": "lora", "lora_rank": 2},
    "stopped early": {"tune": "full", "validation_fraction": 0.3, "patience": 2, "epochs": 6},
    "contrastive": {"tune": "full", "objective": "contrastive", "epochs": 6},
}
IN_FLOAT32 = ("LSTM on frozen tokens", "full", "contrastive")
TEXTS, LABELS = tiny_bert.texts_and_labels(20, classes=3)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny")


def apart(a, b):
    """Greatest difference, relative to the greatest value."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return np.abs(a - b).max() / np.abs(a).max()


def fit_both(texts, labels, **settings):
    return [
        package.TextClassifier(**settings).fit(texts, labels, device="cpu")
        for package in (course_torch, course_tf)
    ]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, "float64") for case in CASES] + [(case, "float32") for case in IN_FLOAT32],
)
def test_a_run_agrees_in_loss_and_predictions(tiny, case, dtype):
    one, two = fit_both(TEXTS, LABELS, model=tiny, dtype=dtype, **(SETTINGS | CASES[case]))
    assert len(one.history_["loss"]) >= 10 or case == "stopped early"
    assert list(one.history_) == list(two.history_)
    for name in one.history_:
        assert apart(one.history_[name], two.history_[name]) < AFTER_TEN[dtype], name
    assert apart(one.predict_proba(TEXTS), two.predict_proba(TEXTS)) < AFTER_TEN[dtype]


@pytest.mark.parametrize("dtype", AFTER_TEN)
def test_a_linear_probe_agrees(tiny, dtype):
    settings = {"model": tiny, "dtype": dtype, "max_length": 24, "cache": False}
    one, two = fit_both(TEXTS, LABELS, **settings)
    assert apart(one.predict_proba(TEXTS), two.predict_proba(TEXTS)) < AFTER_TEN[dtype]


def test_ten_steps_of_minilm_agree():
    texts = [
        "My card was stolen.", "Someone took my card!", "I lost the card, please block it.",
        "Where is my money?", "The transfer has not arrived.", "No payment came in today.",
    ]  # fmt: skip
    settings = {"tune": "full", "epochs": 10, "batch_size": 6, "random_state": 0}
    one, two = fit_both(texts, [0, 0, 0, 1, 1, 1], **settings)
    assert len(one.history_["loss"]) == 10
    assert apart(one.history_["loss"], two.history_["loss"]) < AFTER_TEN["float32"]
    assert apart(one.predict_proba(texts), two.predict_proba(texts)) < AFTER_TEN["float32"]
