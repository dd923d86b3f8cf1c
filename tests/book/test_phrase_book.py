"""The facts of the phrase book, each looked up in both frameworks as they are installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from building import ROOT

import fewshot_course.tf  # noqa: F401  quiets TensorFlow's start

import keras  # isort: skip
import torch  # isort: skip

TORCH_PARAMETER = torch.zeros(1, requires_grad=True)


def built(layer: Any, shape: tuple[int | None, ...]) -> Any:
    layer.build(shape)
    return layer


def remembered_variance() -> tuple[float, float]:
    """The running variance after one batch with variance 4 (n - 1) or 8/3 (n)."""
    x = np.array([[0.0], [2.0], [4.0]], dtype="float32")
    ours = torch.nn.BatchNorm1d(1, momentum=1.0)
    ours(torch.from_numpy(x))
    theirs = keras.layers.BatchNormalization(momentum=0.0)
    theirs(x, training=True)
    assert ours.running_var is not None
    return float(ours.running_var), float(theirs.moving_variance.numpy()[0])


FACTS: dict[str, tuple[Callable[[], Any], Any]] = {
    "weight of a linear layer": (
        lambda: (
            tuple(torch.nn.Linear(3, 5).weight.shape),
            tuple(built(keras.layers.Dense(5), (None, 3)).kernel.shape),
        ),
        ((5, 3), (3, 5)),
    ),
    "kernel of a 2-D convolution": (
        lambda: (
            tuple(torch.nn.Conv2d(4, 8, (2, 3)).weight.shape),
            tuple(built(keras.layers.Conv2D(8, (2, 3)), (None, 9, 9, 4)).kernel.shape),
        ),
        ((8, 4, 2, 3), (2, 3, 4, 8)),
    ),
    "images in a batch": (
        lambda: (
            tuple(torch.nn.Conv2d(4, 8, 1)(torch.zeros(2, 4, 5, 6)).shape),
            keras.layers.Conv2D(8, 1)(np.zeros((2, 5, 6, 4), "float32")).shape,
        ),
        ((2, 8, 5, 6), (2, 5, 6, 8)),
    ),
    "batch norm's momentum": (
        lambda: (torch.nn.BatchNorm1d(1).momentum, keras.layers.BatchNormalization().momentum),
        (0.1, 0.99),
    ),
    "batch norm's ε": (
        lambda: (torch.nn.BatchNorm1d(1).eps, keras.layers.BatchNormalization().epsilon),
        (1e-5, 1e-3),
    ),
    "variance that batch norm remembers": (remembered_variance, (4.0, 8 / 3)),
    "layer norm's ε": (
        lambda: (torch.nn.LayerNorm(1).eps, keras.layers.LayerNormalization().epsilon),
        (1e-5, 1e-3),
    ),
    "Adam's ε": (
        lambda: (
            torch.optim.Adam([TORCH_PARAMETER]).defaults["eps"],
            keras.optimizers.Adam().epsilon,
        ),
        (1e-8, 1e-7),
    ),
    "AdamW's weight decay": (
        lambda: (
            torch.optim.AdamW([TORCH_PARAMETER]).defaults["weight_decay"],
            keras.optimizers.AdamW().weight_decay,
        ),
        (0.01, 0.004),
    ),
    "biases of an LSTM layer": (
        lambda: (
            sum(name.startswith("bias") for name, _ in torch.nn.LSTM(3, 4).named_parameters()),
            sum(w.name == "bias" for w in built(keras.layers.LSTM(4), (None, 5, 3)).weights),
        ),
        (2, 1),
    ),
    "cross-entropy expects": (
        lambda: (
            torch.nn.functional.cross_entropy(torch.tensor([[2.0, 0]]), torch.tensor([0])).item(),
            float(
                keras.losses.SparseCategoricalCrossentropy()(np.array([0]), np.array([[0.8, 0.2]]))
            ),
        ),
        (np.log1p(np.exp(-2)), -np.log(0.8)),
    ),
}


@pytest.mark.parametrize("item", FACTS)
def test_a_fact_holds_in_both_frameworks(item: str) -> None:
    look, expected = FACTS[item]
    for found, fact in zip(look(), expected, strict=True):
        assert found == pytest.approx(fact, rel=1e-5)


def test_strided_same_padding() -> None:
    x = np.arange(1, 7, dtype="float32")
    kernel = np.array([1, 2, 3], dtype="float32")
    layer = built(
        keras.layers.Conv1D(1, 3, strides=2, padding="same", use_bias=False), (None, 6, 1)
    )
    layer.set_weights([kernel.reshape(3, 1, 1)])
    padded_at_the_end = [kernel @ np.append(x, 0)[i : i + 3] for i in (0, 2, 4)]
    np.testing.assert_allclose(np.ravel(layer(x.reshape(1, 6, 1))), padded_at_the_end)
    with pytest.raises(ValueError, match="strided"):
        torch.nn.Conv1d(1, 1, 3, stride=2, padding="same")


def test_first_weights_of_a_linear_layer() -> None:
    ours = torch.nn.Linear(100, 300).weight.abs().max().item()
    theirs = np.abs(built(keras.layers.Dense(300), (None, 100)).kernel.numpy()).max()
    assert ours == pytest.approx(100**-0.5, rel=0.01)
    assert theirs == pytest.approx((6 / 400) ** 0.5, rel=0.01)


def test_gradients_add_up_in_torch_only() -> None:
    import tensorflow as tf

    parameter = torch.ones(1, requires_grad=True)
    for _ in range(2):
        (2 * parameter).sum().backward()
    assert parameter.grad is not None
    assert parameter.grad.item() == 4
    variable = tf.Variable([1.0])
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(2 * variable)
        assert tape.gradient(loss, variable).numpy() == [2]


def test_every_row_of_the_second_table_is_tested() -> None:
    text = (Path(ROOT) / "book/phrase_book.md").read_text(encoding="utf-8")
    rows = text.split("| item | PyTorch | Keras |")[1].split("\n\n")[0].splitlines()[2:]
    elsewhere = {'"same" padding with stride 2', "first weights of a linear layer"}
    assert {row.split("|")[1].strip() for row in rows} == set(FACTS) | elsewhere
