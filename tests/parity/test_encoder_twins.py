"""The encoder in both frameworks: equal outputs and equal gradients of every weight."""

import numpy as np
import pytest
import tiny_bert

pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("torch", reason="torch is not installed")
import torch

pytest.importorskip("tensorflow", reason="tensorflow is not installed")
import tensorflow as tf

pytest.importorskip("transformers", reason="transformers is not installed")
import transformers

from fewshot_course.both.bert import find_bert
from fewshot_course.both.texts import tokenise
from fewshot_course.tf import encoder as tf_encoder
from fewshot_course.tf import networks as tf_networks
from fewshot_course.torch import encoder as torch_encoder

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
TEXTS = {
    "tiny": tiny_bert.texts_and_labels(6)[0],
    "minilm": ["My card was stolen.", "Where is my money? It should have arrived by now.", "No."],
}
CASES = [("tiny", "float64"), ("tiny", "float32"), ("minilm", "float32")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return {
        "tiny": tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny"),
        "minilm": "minilm",
    }


def inputs(model, dtype, texts):
    """Token numbers, mask, and weights of a scalar loss: the same arrays for all."""
    files = find_bert(model)
    ids, mask = tokenise(texts, files.folder, max_length=24).pad(np.arange(len(texts)))
    direction = np.random.default_rng(0).standard_normal((*ids.shape, files.config.hidden_size))
    return ids, mask, (direction * mask[..., None]).astype(dtype)


def by_torch(model, dtype, texts, p):
    ids, mask, direction = inputs(model, dtype, texts)
    encoder = torch_encoder.load_encoder(model, dtype)
    masks = torch_encoder.dropout_masks(
        encoder.config, ids.shape, p, np.random.default_rng(1), "cpu", dtype
    )
    sequence = encoder(torch.as_tensor(ids), torch.as_tensor(mask), masks)
    (sequence * torch.as_tensor(direction)).sum().backward()
    return sequence.detach().numpy(), {n: q.grad.numpy() for n, q in encoder.named_parameters()}


def by_tensorflow(model, dtype, texts, p):
    ids, mask, direction = inputs(model, dtype, texts)
    encoder = tf_encoder.load_encoder(model, dtype)
    masks = tf_encoder.dropout_masks(
        encoder.config, ids.shape, p, np.random.default_rng(1), "cpu", dtype
    )
    with tf.GradientTape() as tape:
        sequence = encoder(tf.constant(ids), tf.constant(mask), masks)
        loss = tf.reduce_sum(sequence * direction)
    state = tf_networks._state(encoder)
    gradients = tape.gradient(loss, [variable.value for variable, _ in state.values()])
    named = {
        name: np.transpose(tf.convert_to_tensor(gradient).numpy(), axes)
        for (name, (_, axes)), gradient in zip(state.items(), gradients, strict=True)
    }
    return sequence.numpy(), named


@pytest.mark.parametrize(("model", "dtype"), CASES)
@pytest.mark.parametrize("p", [0.0, 0.2])
def test_outputs_and_gradients_are_equal(models, model, dtype, p):
    one, gradients_one = by_torch(models[model], dtype, TEXTS[model], p)
    two, gradients_two = by_tensorflow(models[model], dtype, TEXTS[model], p)
    scale = np.abs(one).max()
    assert np.abs(one - two).max() / scale < TOLERANCE[dtype]
    assert list(gradients_one) == list(gradients_two)
    # The gradient of a key's bias is 0 by mathematics: measure against the largest gradient.
    largest = max(np.abs(gradient).max() for gradient in gradients_one.values())
    for name, gradient in gradients_one.items():
        apart = np.abs(gradient - gradients_two[name]).max()
        assert apart / largest < TOLERANCE[dtype], name


@pytest.mark.parametrize("model", ["tiny", "minilm"])
def test_the_torch_encoder_is_that_of_transformers(models, model):
    """The whole of ``BertModel``, masks and attention included, on its own."""
    folder = find_bert(models[model]).folder
    ids, mask, _ = inputs(models[model], "float32", TEXTS[model])
    theirs = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ours = torch_encoder.load_encoder(models[model])
    with torch.no_grad():
        expected = theirs.float()(torch.as_tensor(ids), torch.as_tensor(mask)).last_hidden_state
        found = ours(torch.as_tensor(ids), torch.as_tensor(mask))
    kept = mask.astype(bool)
    np.testing.assert_allclose(found.numpy()[kept], expected.numpy()[kept], atol=2e-5)


@pytest.mark.parametrize(("model", "dtype"), CASES)
def test_features_are_equal(models, model, dtype):
    one, two = (
        module.encode(TEXTS[model], models[model], dtype=dtype, max_length=24, cache=False)
        for module in (torch_encoder, tf_encoder)
    )
    assert np.abs(one - two).max() / np.abs(one).max() < TOLERANCE[dtype]
