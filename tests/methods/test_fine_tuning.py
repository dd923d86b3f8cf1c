"""Fine-tuning on few texts: the maths, what is trained, files, resuming, and bad input."""

import json
import shutil

import numpy as np
import pytest
import tiny_bert
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

from fewshot_course._streams import Streams
from fewshot_course.both import training as _loop
from fewshot_course.both.batches import PairBatches
from fewshot_course.both.bert import find_bert, read_weights
from fewshot_course.both.fine_tuning import (
    LSTM_UNITS,
    draw_weights,
    example_weights,
    head_shapes,
    hold_out,
)
from fewshot_course.both.optim import Schedule
from fewshot_course.both.probe import cross_entropy_of, fit_probe
from fewshot_course.data._files import CACHE_VARIABLE

pytest.importorskip("tokenizers", reason="tokenizers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

TEXTS, LABELS = tiny_bert.texts_and_labels(18, classes=3)
SETTINGS = {
    "max_length": 24, "dtype": "float64", "random_state": 0, "epochs": 2, "batch_size": 6,
    "lr": 1e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(autouse=True)
def _own_cache(request, monkeypatch, tmp_path):
    """Features go into a cache of one's own, except where minilm is fetched from the user's."""
    if "minilm" not in request.node.name:
        monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def classifier(framework, tiny, **settings):
    return framework.estimator("TextClassifier", model=tiny, **(SETTINGS | settings))


def softmax(z):
    odds = np.exp(z - z.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


# ---------------------------------------------------------------- the maths


def test_cross_entropy_is_minus_the_log_likelihood(framework, rng):
    module = framework.module("fine_tuning")
    logits, labels = rng.normal(size=(7, 4)), rng.integers(4, size=7)
    weights = rng.uniform(size=7)
    each = -np.log(softmax(logits)[np.arange(7), labels])
    z, y, w = framework.tensor(logits), framework.tensor(labels), framework.tensor(weights)
    plain = framework.array(module.softmax_cross_entropy(z, y))
    weighted = framework.array(module.softmax_cross_entropy(z, y, w))
    assert plain == pytest.approx(each.mean(), rel=1e-12)
    assert weighted == pytest.approx((weights * each).mean(), rel=1e-12)
    assert cross_entropy_of(logits, labels, weights) == pytest.approx(weighted, rel=1e-12)


def test_cross_entropy_stands_large_logits(framework):
    loss = framework.module("fine_tuning").softmax_cross_entropy
    logits = framework.tensor(np.array([[1e4, 0.0], [0.0, 1e4]]))
    assert framework.array(loss(logits, framework.tensor([0, 0]))) == pytest.approx(5e3)


def test_the_gradient_of_softmax_is_p_minus_y(framework, rng):
    module = framework.module("fine_tuning")
    logits, labels = rng.normal(size=(5, 3)), rng.integers(3, size=5)
    y = framework.tensor(labels)
    _, (by_tape,) = framework.gradients(lambda z: module.softmax_cross_entropy(z, y), logits)
    stated = framework.array(module.softmax_gradient(framework.tensor(logits), y))
    np.testing.assert_allclose(stated, (softmax(logits) - np.eye(3)[labels]) / 5, rtol=1e-12)
    np.testing.assert_allclose(by_tape, stated, rtol=1e-10, atol=1e-16)


def test_l2_sp_is_half_the_squared_distance(framework, rng):
    module = framework.module("fine_tuning")
    now, start = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    more = rng.normal(size=5)

    def penalty(w):
        ends = [framework.tensor(start), framework.tensor(more - 1)]
        return module.l2_sp_penalty([w, framework.tensor(more)], ends)

    value, (gradient,) = framework.gradients(penalty, now)
    assert value == pytest.approx(0.5 * ((now - start) ** 2).sum() + 2.5, rel=1e-12)
    np.testing.assert_allclose(gradient, now - start, rtol=1e-12)


def pair_loss(features, labels):
    """By definition, pair after pair."""
    kinds = {True: [], False: []}
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            a, b = features[i], features[j]
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            same = bool(labels[i] == labels[j])
            kinds[same].append((cosine - same) ** 2)
    return sum(np.mean(errors) for errors in kinds.values() if errors) / 2


@pytest.mark.parametrize("labels", [[0, 0, 1, 1, 2], [0, 1, 2, 3, 4], [1, 1, 1, 1, 1]])
def test_the_pair_loss_is_the_mean_over_both_kinds_of_pairs(framework, rng, differences, labels):
    module, y = framework.module("fine_tuning"), framework.tensor(labels)
    features = rng.normal(size=(5, 4))
    value, (gradient,) = framework.gradients(lambda f: module.contrastive_pair_loss(f, y), features)
    assert value == pytest.approx(pair_loss(features, labels), rel=1e-12)
    expected = differences(lambda f: pair_loss(f, labels), features)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)
    longer = framework.tensor(3 * features)
    assert framework.array(module.contrastive_pair_loss(longer, y)) == pytest.approx(value)


def test_the_pair_loss_is_0_where_classes_are_orthogonal(framework):
    features = framework.tensor(np.array([[2.0, 0], [5.0, 0], [0, 1.0], [0, 3.0]]))
    loss = framework.module("fine_tuning").contrastive_pair_loss
    assert framework.array(loss(features, framework.tensor([0, 0, 1, 1]))) == pytest.approx(0)
    assert framework.array(loss(features, framework.tensor([0, 1, 0, 1]))) == pytest.approx(0.75)


def test_the_low_rank_update_is_that_of_its_product(framework, rng):
    update = framework.module("encoder").low_rank_update
    x, A, B = rng.normal(size=(6, 5)), rng.normal(size=(2, 5)), rng.normal(size=(3, 2))
    found = framework.array(update(*map(framework.tensor, (x, A, B)), 8.0))
    np.testing.assert_allclose(found, x @ (8.0 / 2 * B @ A).T, rtol=1e-12)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, arrays):
    """The last state of one text ``(L, d)``, written out (Hochreiter & Schmidhuber 1997)."""
    hidden = cell = np.zeros(LSTM_UNITS)
    bias = arrays["lstm.bias_ih_l0"] + arrays["lstm.bias_hh_l0"]
    for token in x:
        gates = arrays["lstm.weight_ih_l0"] @ token + arrays["lstm.weight_hh_l0"] @ hidden + bias
        enter, forget, new, leave = np.split(gates, 4)
        cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
        hidden = sigmoid(leave) * np.tanh(cell)
    return hidden


def test_the_lstm_reads_the_tokens_and_no_padding(framework, tiny, rng):
    model = classifier(framework, tiny, head="lstm", epochs=1).fit(TEXTS, LABELS)
    network, arrays = model.network_, model._weights()
    assert not arrays["lstm.bias_hh_l0"].any()
    sequence, mask = rng.normal(size=(2, 7, 16)), np.array([[1] * 7, [1] * 3 + [0] * 4])
    pooled = framework.array(network.pool(framework.tensor(sequence), framework.tensor(mask)))
    np.testing.assert_allclose(pooled[0], lstm(sequence[0], arrays), rtol=1e-9)
    np.testing.assert_allclose(pooled[1], lstm(sequence[1, :3], arrays), rtol=1e-9)


# ---------------------------------------------------------------- the probe


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("width", [8, 40])
def test_a_probe_stands_at_the_optimum(rng, classes, width):
    features, labels = rng.normal(size=(30, width)), np.arange(30) % classes
    weights, C = rng.uniform(0.5, 2, size=30), 3.0
    head = fit_probe(features, labels, weights, C)
    W, b = head["head.weight"], head["head.bias"]
    error = weights[:, None] * (softmax(features @ W.T + b) - np.eye(classes)[labels])
    # For two classes scikit-learn penalises the one row z = 2W, of which W is ∓ half.
    penalty = W / C * (2 if classes == 2 else 1)
    assert np.abs(error.sum(0)).max() < 1e-3
    assert np.abs(error.T @ features + penalty).max() < 1e-3
    assert np.abs(penalty).max() > 0.1


def test_a_probe_is_logistic_regression_on_the_features(framework, tiny):
    features = framework.module("encoder").encode(
        TEXTS, tiny, normalize=True, max_length=24, dtype="float64"
    )
    expected = LogisticRegression(C=5.0, tol=1e-8, max_iter=5000).fit(features, LABELS)
    model = classifier(framework, tiny, C=5.0).fit(TEXTS, LABELS)
    np.testing.assert_allclose(
        model.predict_proba(TEXTS), expected.predict_proba(features), atol=1e-4
    )
    assert model.history_ == {}


def test_a_second_fit_of_a_probe_needs_no_encoder(framework, tiny, monkeypatch):
    model = classifier(framework, tiny).fit(TEXTS, LABELS)
    before = model.predict_proba(TEXTS)

    def no_encoder(*_):
        raise AssertionError("the encoder was loaded although every text is known")

    monkeypatch.setattr(framework.module("encoder"), "_pooler", no_encoder)
    again = clone(model).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(again.predict_proba(TEXTS), before)


def test_scikit_learn_can_search_and_cross_validate(framework, tiny):
    model = classifier(framework, tiny)
    scores = cross_val_score(model, TEXTS, LABELS, cv=3)
    assert scores.shape == (3,)
    search = GridSearchCV(model, {"C": [0.1, 10.0]}, cv=3).fit(TEXTS, LABELS)
    assert search.best_estimator_.predict(TEXTS).shape == (18,)
    assert clone(model).get_params() == model.get_params()


# ---------------------------------------------------------------- what is trained


def weights_before_and_after(framework, tiny, **settings):
    """Weights at the start of a fit and at its end, by canonical name."""
    model = classifier(framework, tiny, **settings)
    seen = {}
    build = model._build

    def spy(config, arrays):
        seen.update(arrays)
        build(config, arrays)

    model._build = spy
    model.fit(TEXTS, LABELS)
    after = model._weights()
    assert set(seen) == set(after)
    return seen, after


def moved(before, after):
    return {name for name, array in before.items() if not np.array_equal(array, after[name])}


ENCODER = {f"bert.{name}" for name in tiny_bert.CONFIG.shapes()}
LAST = {name for name in ENCODER if "layer.1." in name}
HEAD = {"head.weight", "head.bias"}
LSTM = set(head_shapes("lstm", 16, 3)) - {"lstm.bias_hh_l0"}
LORA = {
    f"bert.encoder.layer.{i}.attention.self.{kind}.lora_{which}"
    for i in range(2) for kind in ("query", "value") for which in "AB"
}  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"head": "lstm"}, LSTM),
        ({"tune": "full"}, ENCODER | HEAD),
        ({"tune": "top", "top_layers": 1, "reinit_layers": 1}, LAST | HEAD),
        ({"tune": "lora", "lora_rank": 2}, LORA | HEAD),
        ({"tune": "lora", "lora_rank": 2, "objective": "contrastive"}, LORA | HEAD),
    ],
    ids=["probe", "full", "top", "lora", "contrastive"],
)
def test_exactly_what_was_asked_for_is_trained(framework, tiny, settings, expected):
    before, after = weights_before_and_after(framework, tiny, **settings)
    assert moved(before, after) == expected
    pretrained = read_weights(find_bert(tiny), "float64")
    fresh = {n for n in pretrained if not np.array_equal(before[f"bert.{n}"], pretrained[n])}
    assert {f"bert.{n}" for n in fresh} == (LAST if settings.get("reinit_layers") else set())


def test_lora_starts_from_the_pretrained_model(framework, tiny):
    arrays = draw_weights(tiny_bert.CONFIG.shapes(lora_rank=2), np.random.default_rng(0))
    assert all(not array.any() for name, array in arrays.items() if name.endswith("lora_B"))
    assert all(array.any() for name, array in arrays.items() if name.endswith("lora_A"))


def test_l2_sp_holds_the_weights_near_their_start(framework, tiny):
    def distance(l2_sp):
        before, after = weights_before_and_after(framework, tiny, tune="full", l2_sp=l2_sp)
        return sum(
            ((after[n] - before[n]) ** 2).sum()
            for n in ENCODER
            if before[n].ndim > 1 and n != "bert.embeddings.word_embeddings.weight"
        )

    assert distance(1e4) < 0.9 * distance(0.0)


def test_training_learns_what_a_word_decides(framework, tiny):
    """The class stands in the first word, and the training texts are scored: it must fit."""
    model = classifier(
        framework, tiny, tune="full", epochs=40, lr=3e-3, head_lr=1e-2, dropout=0.0
    ).fit(TEXTS, LABELS)
    assert model.score(TEXTS, LABELS) == 1.0
    assert model.history_["loss"][-1] < 0.1 < model.history_["loss"][0]
    proba = model.predict_proba(TEXTS)
    np.testing.assert_allclose(proba.sum(1), 1)


def test_labels_may_be_any_numbers_and_keep_their_order(framework, tiny):
    names = np.array([30, 7, 12])
    one = classifier(framework, tiny).fit(TEXTS, LABELS)
    two = classifier(framework, tiny).fit(TEXTS, names[LABELS])
    np.testing.assert_array_equal(two.classes_, [7, 12, 30])
    np.testing.assert_allclose(
        two.predict_proba(TEXTS), one.predict_proba(TEXTS)[:, [1, 2, 0]], atol=1e-3
    )


def test_a_heavier_class_is_predicted_more_often(framework, tiny):
    def share(weight):
        model = classifier(framework, tiny, class_weight={0: weight, 1: 1.0, 2: 1.0})
        return model.fit(TEXTS, LABELS).predict_proba(TEXTS)[:, 0].mean()

    assert share(0.1) < share(1.0) < share(10.0)


# ---------------------------------------------------------------- stopping, schedules, batches


def test_the_weights_of_the_best_epoch_are_kept(framework, tiny, tmp_path):
    settings = {"tune": "full", "validation_fraction": 0.3, "patience": 2, "epochs": 30}
    model = classifier(framework, tiny, lr=0.02, schedule="constant", **settings)
    model.fit(TEXTS, LABELS, checkpoint_dir=tmp_path)
    losses = model.history_["validation_loss"]
    assert model.best_epoch_ == losses.argmin() + 1
    assert len(losses) == model.best_epoch_ + 2 < 30  # stopped after two epochs without gain
    assert len(model.history_["loss"]) == 2 * len(losses)  # twelve texts in batches of six
    _, aside = hold_out(LABELS, 0.3, Streams.from_seed(0).batches)
    proba = model.predict_proba([TEXTS[i] for i in aside])
    found = -np.log(proba[np.arange(len(aside)), LABELS[aside]]).mean()
    assert found == pytest.approx(losses.min(), rel=1e-9)
    # Called again on its checkpoints, a run that stopped early is over at once.
    again = clone(model).fit(TEXTS, LABELS, checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(again.history_["loss"], model.history_["loss"])
    np.testing.assert_array_equal(again.predict_proba(TEXTS), model.predict_proba(TEXTS))


def never():
    raise AssertionError("nothing is to be kept")


def test_warm_up_rises_and_the_rate_then_falls_or_stays():
    linear = Schedule("linear", 20, 5, 0.25, 0.5, 0, 3)
    constant = Schedule("constant", 20, 5, 0.25, 0.5, 0, 3)
    rates = [linear.factor(step) for step in range(20)]
    assert np.all(np.diff(rates[:5]) > 0)
    assert np.all(np.diff(rates[6:]) < 0)
    assert 0 < min(rates) <= max(rates) == 1
    assert [constant.factor(step) for step in (0, 5, 19)] == [rates[0], 1, 1]


def test_a_plateau_of_the_training_loss_cuts_the_rate():
    schedule = Schedule("plateau", 40, 2, 0.0, 0.5, 1, 3)
    losses = [3, 3, 2, 2, 2, 2, 2, 2, 1, 1]  # epochs of 3, 2, 2, 2, 1
    rates = []
    for step, loss in enumerate(losses):
        rates.append(schedule.factor(step))
        assert schedule.after(step, loss, None, never) == {}
    # Two epochs of 2 bring no improvement: the rate is cut before the ninth step.
    assert rates == [1.0] * 8 + [0.5] * 2
    assert not schedule.stopped


def test_a_schedule_goes_on_where_it_stopped():
    values = iter([1.0, 0.5, 0.7, 0.6, 0.9])
    kept = []
    schedule = Schedule("plateau", 40, 2, 0.0, 0.5, 0, 2)
    for step in range(4):
        schedule.after(step, 0.0, lambda: next(values), lambda: kept.append(1))
    twin = Schedule("plateau", 40, 2, 0.0, 0.5, 0, 2)
    twin.restore(json.loads(json.dumps(schedule.state())))
    for step in range(4, 8):
        seen = twin.after(step, 0.0, lambda: next(values), never)
    assert seen == {"validation_loss": 0.6}
    assert twin.stopped
    assert (twin.best, twin.best_epoch, len(kept)) == (0.5, 2, 2)
    assert twin.factor(8) == 0.25


@given(
    counts=st.lists(st.integers(2, 9), min_size=2, max_size=5),
    fraction=st.floats(0.05, 0.5),
    seed=st.integers(0, 99),
)
def test_a_part_set_aside_has_every_class_and_leaves_every_class(counts, fraction, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    train, aside = hold_out(labels, fraction, np.random.default_rng(seed))
    assert sorted([*train, *aside]) == list(range(len(labels)))
    for part in (train, aside):
        assert set(labels[part]) == set(range(len(counts)))


@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=12),
    batch_size=st.integers(4, 20),
    seed=st.integers(0, 99),
)
def test_pairs_of_both_kinds_come_in_every_batch(counts, batch_size, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    batches = PairBatches(labels, batch_size, np.random.default_rng(seed))
    for _ in range(5):
        batch = batches.next()
        assert len(set(batch.tolist())) == len(batch) <= batch_size
        found = labels[batch]
        assert len(set(found)) >= 2
        for label in set(found):
            assert (found == label).sum() >= min(2, counts[label])
    twin = PairBatches(labels, batch_size, np.random.default_rng(0))
    twin.restore(json.loads(json.dumps(batches.state())))
    np.testing.assert_array_equal(batches.next(), twin.next())


def test_balanced_weights_make_every_class_count_the_same():
    y = np.array([0, 0, 0, 5, 5, 9])
    weights = example_weights("balanced", y, np.unique(y))
    assert weights.mean() == pytest.approx(1)
    assert len({round(weights[y == label].sum(), 9) for label in (0, 5, 9)}) == 1
    np.testing.assert_array_equal(example_weights({0: 2, 5: 1, 9: 0.5}, y, np.unique(y)),
                                  [2, 2, 2, 1, 1, 0.5])  # fmt: skip


# ---------------------------------------------------------------- files


@pytest.mark.parametrize(
    "settings",
    [{"class_weight": {0: 1.0, 1: 2.0, 2: 1.0}}, {"tune": "lora", "lora_rank": 2}],
    ids=["probe", "lora"],
)
def test_the_other_framework_reads_what_one_has_saved(both, tiny, tmp_path, settings):
    for one, two in (both, both[::-1]):
        model = classifier(one, tiny, **settings).fit(TEXTS, LABELS)
        path = model.save(tmp_path / "model.safetensors")
        assert path.stat().st_size < 20_000  # what is trained, not the encoder
        loaded = type(classifier(two, tiny)).load(path)
        np.testing.assert_allclose(
            loaded.predict_proba(TEXTS), model.predict_proba(TEXTS), rtol=1e-9
        )


def test_a_saved_classifier_refuses_another_encoder(framework, tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "mine")
    model = classifier(framework, folder).fit(TEXTS, LABELS)
    path = model.save(tmp_path / "model.safetensors")
    tiny_bert.make(folder, seed=1)
    with pytest.raises(ValueError, match="is another one than when this classifier was fitted"):
        type(model).load(path)
    with pytest.raises(ValueError, match="is another one"):
        model.predict(TEXTS)
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        type(model).load(path)


class Interrupted(Exception):
    """What stops a run half-way."""


def test_an_interrupted_fit_resumes_and_ends_the_same(framework, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(_loop, "CHECKPOINT_EVERY", 3)
    settings = {"tune": "lora", "lora_rank": 2, "validation_fraction": 0.3, "epochs": 5}
    whole = classifier(framework, tiny, **settings).fit(TEXTS, LABELS)
    after, left = Schedule.after, [7]

    def interrupt(self, *args):
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted
        return after(self, *args)

    monkeypatch.setattr(Schedule, "after", interrupt)
    broken = classifier(framework, tiny, **settings)
    with pytest.raises(Interrupted):
        broken.fit(TEXTS, LABELS, checkpoint_dir=tmp_path)
    monkeypatch.setattr(Schedule, "after", after)
    broken.fit(TEXTS, LABELS, checkpoint_dir=tmp_path)
    for name in whole.history_:
        np.testing.assert_array_equal(broken.history_[name], whole.history_[name])
    for name, array in whole._weights().items():
        np.testing.assert_array_equal(broken._weights()[name], array)


# ---------------------------------------------------------------- the real encoder


def test_minilm_is_fitted_by_name(framework):
    texts = ["My card was stolen.", "I lost my card.", "Where is my money?", "The transfer failed."]
    for settings in ({}, {"tune": "top", "epochs": 2}):
        model = framework.estimator("TextClassifier", cache=False, random_state=0, **settings)
        model.fit(texts, [0, 0, 1, 1])
        proba = model.predict_proba(["Somebody took my card!"])
        assert proba.shape == (1, 2)
        assert proba.sum() == pytest.approx(1)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("texts", "labels", "error", "message"),
    [
        (["good", ""], [0, 1], ValueError, r"X\[1\] is an empty text"),
        (["good", 3.0], [0, 1], TypeError, r"X\[1\] must be a str"),
        ("good bad", [0, 1], TypeError, "X must be a list of str"),
        (["good", "bad"], [0], ValueError, "1 labels for 2 examples"),
        (["good", "bad"], [1, 1], ValueError, "single class 1"),
        (["good", "bad", "new"], [0, 1, -1], ValueError, "1 of 3 labels of -1"),
        (["good", "bad"], [0, None], TypeError, "whole numbers"),
        (["good", "bad"], [0, float("nan")], TypeError, "whole numbers"),
        (["good", "bad"], ["a", "b"], TypeError, "LabelEncoder"),
    ],
)
def test_bad_data_is_named(framework, tiny, texts, labels, error, message):
    with pytest.raises(error, match=message):
        classifier(framework, tiny).fit(texts, labels)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune": "ful"}, "Did you mean 'full'"),
        ({"head": "cnn"}, "head='cnn'"),
        ({"objective": "triplet"}, "objective"),
        ({"schedule": "cosine"}, "schedule"),
        ({"epochs": 0}, "epochs"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\)"),
        ({"validation_fraction": -0.1}, "validation_fraction"),
        ({"lr": 0.0}, "lr must lie in"),
        ({"C": 0.0}, "C must lie in"),
        ({"tune": "top", "top_layers": 3}, r"top_layers must lie in \[0, 2\]"),
        ({"max_length": 100}, r"max_length must lie in \[3, 24\]"),
        ({"reinit_layers": 1}, "trains no pretrained layer"),
        ({"tune": "top", "top_layers": 1, "reinit_layers": 2}, "more than the top_layers=1"),
        ({"tune": "lora", "l2_sp": 0.1}, "leaves the pretrained weights where they are"),
        ({"validation_fraction": 0.5}, "solved to its optimum"),
        ({"objective": "contrastive"}, "tune='probe' does not"),
        ({"tune": "full", "objective": "contrastive", "head": "lstm"}, "linear head"),
        ({"tune": "full", "validation_fraction": 0.95}, "would leave none"),
        ({"class_weight": "even"}, "class_weight"),
        ({"class_weight": {0: 1.0}}, r"no weight for the classes \[1, 2\]"),
        ({"random_state": -1, "tune": "full"}, "random_state"),
    ],
)
def test_bad_settings_are_named(framework, tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        classifier(framework, tiny, **settings).fit(TEXTS, LABELS)


def test_wrong_types_of_settings_are_named(framework, tiny):
    with pytest.raises(TypeError, match="class_weight must be None"):
        classifier(framework, tiny, class_weight=2.0).fit(TEXTS, LABELS)
    with pytest.raises(TypeError, match="must be 'minilm' or a folder"):
        framework.estimator("TextClassifier", model=None).fit(TEXTS, LABELS)
    with pytest.raises(TypeError, match="epochs"):
        classifier(framework, tiny, epochs=2.5).fit(TEXTS, LABELS)


def test_long_texts_are_cut_and_announced_at_fit_and_prediction(framework, tiny):
    texts = ["good " * 50, "bad", "very good", "too bad"]
    for settings in ({}, {"head": "lstm", "epochs": 1}):
        model = classifier(framework, tiny, **settings)
        with pytest.warns(UserWarning, match="1 of 4 texts are longer than 24 tokens"):
            model.fit(texts, [0, 1, 0, 1])
        with pytest.warns(UserWarning, match="1 of 1 texts are longer than 24 tokens"):
            model.predict(["bad " * 30])


def test_absent_and_damaged_model_files_are_named(framework, tiny, tmp_path):
    folder = shutil.copytree(tiny, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        classifier(framework, folder).fit(TEXTS, LABELS)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        classifier(framework, folder).fit(TEXTS, LABELS)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        classifier(framework, tmp_path / "nothing").fit(TEXTS, LABELS)


def test_predicting_before_fitting_is_refused(framework, tiny):
    from sklearn.exceptions import NotFittedError

    with pytest.raises(NotFittedError):
        classifier(framework, tiny).predict(TEXTS)
