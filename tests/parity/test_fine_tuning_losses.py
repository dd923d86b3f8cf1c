"""The loss of a step of the tuning: one value, one gradient in both frameworks, and in fit."""

from functools import partial

import numpy as np
import pytest
import tiny_bert

pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("torch", reason="torch is not installed")
import torch

pytest.importorskip("tensorflow", reason="tensorflow is not installed")
import tensorflow as tf

from fewshot_course.both.fine_tuning import draw_weights, head_shapes
from fewshot_course.tf import encoder as tf_encoder
from fewshot_course.tf import fine_tuning as tf_tuning
from fewshot_course.tf import networks as tf_networks
from fewshot_course.torch import encoder as torch_encoder
from fewshot_course.torch import fine_tuning as torch_tuning
from fewshot_course.torch import networks as torch_networks

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
CLASSES, N, LENGTH = 3, 8, 7
CONFIG = tiny_bert.CONFIG
HELD = "bert.encoder.layer.1.output.dense.weight"
CASES = {
    "classes": {},
    "classes, LSTM": {"head": "lstm"},
    "frozen encoder": {"head": "lstm", "frozen": True},
    "LoRA": {"lora_rank": 2},
    "pairs": {"objective": "contrastive"},
    "held": {"l2_sp": 0.3},
    "pairs, held": {"objective": "contrastive", "l2_sp": 0.3},
}


def batch(dtype, frozen=False):
    """Inputs, mask, labels and weights of a step: texts of unequal length."""
    rng = np.random.default_rng(0)
    mask = (np.arange(LENGTH) < rng.integers(3, LENGTH + 1, size=(N, 1))).astype(np.int64)
    mask[0] = 1
    ids = rng.integers(5, CONFIG.vocab_size, size=(N, LENGTH)) * mask
    sequence = (rng.normal(size=(N, LENGTH, CONFIG.hidden_size)) * mask[..., None]).astype(dtype)
    weights = rng.uniform(0.5, 2.0, size=N).astype(dtype)
    return sequence if frozen else ids, mask, np.arange(N) % CLASSES, weights


def arrays(head, lora_rank, dtype):
    """Weights with which no part of the network is silent, by canonical name."""
    rng = np.random.default_rng(1)
    shapes = {f"bert.{name}": shape for name, shape in CONFIG.shapes(lora_rank).items()}
    shapes |= head_shapes(head, CONFIG.hidden_size, CLASSES)
    start = draw_weights(shapes, rng)
    return {n: (a + 0.2 * rng.normal(size=a.shape)).astype(dtype) for n, a in start.items()}


def dropout_of(module, head, dtype, objective="cross_entropy", frozen=False):
    """The factors of one step, drawn as fit draws them."""
    rng = np.random.default_rng(2)
    place = (0.2, rng, "cpu", dtype)
    factors = [] if frozen else module.dropout_masks(CONFIG, (N, LENGTH), *place)
    if objective == "contrastive":
        return factors
    width = CONFIG.hidden_size if head == "linear" else torch_tuning.LSTM_UNITS
    return [*factors, module.keep_mask((N, width), *place)]


def by_torch(dtype, head="linear", lora_rank=0, l2_sp=0.0, **how):
    normalize = how.get("objective") == "contrastive"
    network = torch_tuning.TextNetwork(CONFIG, CLASSES, head, lora_rank, 16.0, normalize)
    network.to(getattr(torch, dtype))
    torch_networks.from_numpy(network, arrays(head, lora_rank, dtype))
    held = [dict(network.named_parameters())[HELD]] if l2_sp else []
    loss = torch_tuning.tuning_loss(
        network, *map(torch.as_tensor, batch(dtype, how.get("frozen", False))),
        dropout_of(torch_encoder, head, dtype, **how),
        held=held, anchors=[0.5 * w.detach() for w in held], l2_sp=l2_sp, **how,
    )  # fmt: skip
    loss.backward()
    found = {name: p.grad for name, p in network.named_parameters()}
    return loss.item(), {name: g.numpy() for name, g in found.items() if g is not None}


def by_tensorflow(dtype, head="linear", lora_rank=0, l2_sp=0.0, **how):
    normalize = how.get("objective") == "contrastive"
    with tf_networks.layer_dtype(dtype):
        network = tf_tuning.TextNetwork(CONFIG, CLASSES, head, lora_rank, 16.0, normalize)
    tf_networks.from_numpy(network, arrays(head, lora_rank, dtype))
    state = tf_networks._state(network)
    held = [state[HELD][0].value] if l2_sp else []
    anchors = [0.5 * tf.convert_to_tensor(w) for w in held]  # constants: not seen by the tape
    with tf.GradientTape() as tape:
        loss = tf_tuning.tuning_loss(
            network, *map(tf.constant, batch(dtype, how.get("frozen", False))),
            dropout_of(tf_encoder, head, dtype, **how),
            held=held, anchors=anchors, l2_sp=l2_sp, **how,
        )  # fmt: skip
    gradients = tape.gradient(loss, [variable.value for variable, _ in state.values()])
    named = {
        name: np.transpose(tf.convert_to_tensor(gradient).numpy(), axes)
        for (name, (_, axes)), gradient in zip(state.items(), gradients, strict=True)
        if gradient is not None
    }
    return float(loss), named


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("case", CASES)
def test_tuning_loss_and_its_gradient_agree(case, dtype):
    one, gradients = by_torch(dtype, **CASES[case])
    two, gradients_two = by_tensorflow(dtype, **CASES[case])
    assert abs(one - two) < TOLERANCE[dtype] * abs(one)
    assert set(gradients) == set(gradients_two)
    # The gradient of a key's bias is 0 by mathematics: measure against the largest gradient.
    largest = max(np.abs(gradient).max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        assert np.abs(gradient - gradients_two[name]).max() < TOLERANCE[dtype] * largest, name


@pytest.mark.parametrize("objective", ["cross_entropy", "contrastive"])
def test_the_pull_is_added_with_its_strength(objective):
    """½ ‖w - w⁰‖² with w⁰ = w/2, counted once."""
    free, _ = by_torch("float64", objective=objective)
    held, _ = by_torch("float64", objective=objective, l2_sp=0.3)
    weight = arrays("linear", 0, "float64")[HELD]
    assert held - free == pytest.approx(0.3 * 0.5 * np.square(weight / 2).sum(), rel=1e-10)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.mark.parametrize("module", [torch_tuning, tf_tuning])
@pytest.mark.parametrize(
    "how", [{"tune": "full", "l2_sp": 0.1}, {"head": "lstm"},
            {"tune": "lora", "objective": "contrastive"}],
)  # fmt: skip
def test_fit_runs_the_function_that_is_shown(tiny, module, how, monkeypatch):
    calls = []
    shown = module.tuning_loss

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return shown(*args, **kwargs)

    monkeypatch.setattr(module, "tuning_loss", counted)
    texts, labels = tiny_bert.texts_and_labels(12, classes=CLASSES)
    model = module.TextClassifier(
        tiny, epochs=2, batch_size=6, max_length=24, random_state=0, **how
    ).fit(texts, labels, device="cpu")
    # TensorFlow calls it while it traces, once; torch in every step.
    assert len(calls) == (len(model.history_["loss"]) if module is torch_tuning else 1)
    assert len(model.history_["loss"]) >= 4
    assert all(call["frozen"] == ("tune" not in how) for call in calls)
    assert all(bool(call["held"]) == ("l2_sp" in how) for call in calls)


@pytest.mark.parametrize("objective", ["cross_entropy", "contrastive"])
def test_no_adversary_gets_the_loss_below_zero(objective):
    """Adam lowers it by every weight and by free sequences of tokens: it comes near 0, no lower."""
    network = torch_tuning.TextNetwork(CONFIG, CLASSES).double()
    torch_networks.from_numpy(network, arrays("linear", 0, "float64"))
    sequence, mask, labels, weights = map(torch.as_tensor, batch("float64", frozen=True))
    sequence.requires_grad_(True)
    if objective == "contrastive":  # the pairs are of pooled tokens: let the tokens be free
        network.bert.forward = lambda *_: sequence
    held = list(network.head.parameters())
    anchors = [part.detach().clone() for part in held]
    loss_of = partial(
        torch_tuning.tuning_loss, network, sequence, mask, labels, weights,
        objective=objective, frozen=objective == "cross_entropy", held=held, anchors=anchors,
        l2_sp=1e-4,
    )  # fmt: skip
    optimizer = torch.optim.Adam([sequence, *held], lr=0.3)
    found = []
    for _ in range(200):
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    assert 0 <= min(found) < 0.01 < found[0]
