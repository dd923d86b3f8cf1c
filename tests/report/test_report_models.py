"""A saved model predicts as before, holds no code, and refuses what it cannot take."""

import numpy as np
import own_data
import pytest
import tiny_bert

from fewshot_course.report import load_model, read_examples
from fewshot_course.report._methods import methods_for
from fewshot_course.report._model import Logistic, Model, NearestMean, Neighbours, Words
from fewshot_course.weights import save_arrays


def check_all(examples, methods, folder):
    for number, method in enumerate(methods):
        index = np.arange(len(examples.y)) if method.unlabelled else examples.known
        model = method.model(examples, 0).fit(examples.take(index), examples.y[index])
        path = model.save(folder / f"{number}.safetensors")
        again = load_model(path)
        queries = examples.take(np.arange(len(examples.y)))
        assert again.predict(queries) == model.predict(queries), method.name
        proba = again.predict_proba(queries)
        np.testing.assert_allclose(proba, model.predict_proba(queries), atol=1e-6)
        np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-6)
        # The class is the most probable one, wherever one is clearly so.
        clear = proba.max(axis=1) > np.sort(proba, axis=1)[:, -2] + 1e-6
        named = again.classes_[proba.argmax(axis=1)]
        assert (named[clear] == np.array(again.predict(queries))[clear]).all(), method.name
        assert set(again.predict(queries)) <= set(examples.class_names)
        assert (again.kind, again.title) == (examples.kind, method.name)


@pytest.mark.parametrize(("kind", "n"), [("vector_npz", 8), ("image_folder", 10)])
def test_every_model_of_arrays_comes_back(tmp_path, kind, n):
    examples = read_examples(getattr(own_data, kind)(tmp_path, unlabelled=4))
    methods, left_out = methods_for(examples, "torch", "off")
    assert len(methods) == n
    assert not left_out
    check_all(examples, methods, tmp_path)


def test_the_network_for_characters_comes_back(tmp_path):
    """Strokes, upright and flat, dark on bright: what looks like writing meets the network."""
    X = np.full((16, 30, 30), 0.9)
    for i in range(16):
        at = 3 + i
        X[i, at : at + 3, 4:26] = 0.05
        if i % 2:
            X[i] = X[i].T.copy()
    np.savez(tmp_path / "ink.npz", X=X, y=np.arange(16) % 2)
    examples = read_examples(tmp_path / "ink.npz")
    methods, _ = methods_for(examples, "torch", "off")
    (network,) = (m for m in methods if m.name == "prototypical network (characters)")
    check_all(examples, [network], tmp_path)
    model = network.model(examples, 0).fit(examples.X[:8], examples.y[:8])
    assert (model.predict_index(examples.X[8:]) == examples.y[8:]).mean() > 0.7
    # It sees bright strokes on dark ground, whatever the file has.
    np.testing.assert_allclose(
        model.features(examples.X), model.features(1 - examples.X), atol=1e-5
    )


def test_every_model_of_texts_comes_back(tmp_path):
    encoder = tiny_bert.make(tmp_path / "bert")
    examples = read_examples(own_data.text_csv(tmp_path, 4, unlabelled=2))
    methods, left_out = methods_for(examples, "torch", str(encoder))
    assert not left_out
    assert len(methods) == 12
    check_all(examples, methods[:-2], tmp_path)


@pytest.fixture
def rows_model(tmp_path):
    examples = read_examples(own_data.vector_npz(tmp_path))
    method = methods_for(examples, "torch", "off")[0][1]
    return method.model(examples, 0).fit(examples.X, examples.y).save(tmp_path / "m.safetensors")


def test_one_example_and_lists_will_do(rows_model):
    assert len(load_model(rows_model).predict([[0] * 9])) == 1


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([[1.0, 2.0]], r"shape \(2,\), expected \(9,\)"),
        ([[np.nan] * 9], "NaN"),
        ([1.0] * 9, "X must have shape"),
    ],
)
def test_wrong_queries_are_refused(rows_model, X, message):
    with pytest.raises(ValueError, match=message):
        load_model(rows_model).predict(X)


def test_texts_must_be_a_list(tmp_path):
    examples = read_examples(own_data.text_csv(tmp_path))
    method = methods_for(examples, "torch", "off")[0][1]
    model = method.model(examples, 0).fit(examples.X, examples.y)
    with pytest.raises(TypeError, match="X must be"):
        model.predict("one text")
    assert model.predict([" refund payment "]) == ["money"]
    assert len(model.predict(["words it has never seen"])) == 1


def test_damaged_and_foreign_files_are_refused(rows_model, tmp_path):
    content = rows_model.read_bytes()
    rows_model.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_model(rows_model)
    foreign = save_arrays(tmp_path / "f.safetensors", {"a": np.zeros(2)}, {"format": "another"})
    with pytest.raises(ValueError, match="holds 'another'"):
        load_model(foreign)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "nothing.safetensors")


def test_columns_that_never_change_do_no_harm(tmp_path):
    X, y = own_data.vectors(6)
    X[:, 4] = 0.1
    np.savez(tmp_path / "a.npz", X=X, y=y)
    examples = read_examples(tmp_path / "a.npz")
    model = methods_for(examples, "torch", "off")[0][1].model(examples, 0).fit(X, y)
    moved = X.copy()
    moved[:, 4] += 1e-9
    assert model.predict(moved) == model.predict(X)


def test_many_texts_need_little_memory(tmp_path):
    """TF-IDF weights stay sparse: dense, these 2,000 texts of 200 new words each took 6 GB."""
    rng = np.random.default_rng(0)
    y = np.arange(2000) % 2
    words = rng.integers(10**6, 10**7, size=(2000, 200))
    texts = [
        " ".join(["good" if c else "bad", *map(str, row)]) for c, row in zip(y, words, strict=True)
    ]
    model = Model("texts", ["a", "b"], Words(), Logistic(10.0)).fit(texts, y)
    assert model.predict_index(texts[:100]).tolist() == y[:100].tolist()
    features = model.features(texts)
    assert features.shape[1] > 5 * 10**5
    assert features.data.nbytes < 20e6


def texts_of_two_classes():
    rng = np.random.default_rng(0)
    y = np.arange(30) % 2
    words = np.array(["good", "fine", "warm", "bad", "cold", "grey", "the", "a", "of"])
    share = np.array([[3, 3, 3, 1, 1, 1, 4, 4, 4], [1, 1, 1, 3, 3, 3, 4, 4, 4]]) / 24
    return [" ".join(rng.choice(words, 12, p=share[c])) for c in y], y


@pytest.mark.parametrize("head", [Neighbours, NearestMean, lambda: Logistic(1.0)])
def test_sparse_rows_are_treated_as_dense_ones(head, tmp_path):
    texts, y = texts_of_two_classes()
    model = Model("texts", ["a", "b"], Words(), head()).fit(texts, y)
    rows = model.features(texts)
    dense = head().fit(rows.toarray(), y)
    assert model.predict_index(texts).tolist() == dense.predict(rows.toarray()).tolist()
    again = load_model(model.save(tmp_path / "m.safetensors"))
    assert again.predict(texts) == model.predict(texts)
