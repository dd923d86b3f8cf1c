"""Weights in files, and initial weights."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from fewshot_course.weights import check_layout, initial_weights, load_arrays, save_arrays

ARRAYS = {
    "a.weight": np.arange(6.0).reshape(2, 3),
    "a.bias": np.array([1, 2], dtype="float32"),
    "steps": np.array(3),
    "classes": np.array([1, 5], dtype="int64"),
    "strided": np.arange(12.0).reshape(3, 4).T[::2],
}


def test_round_trip(tmp_path):
    header = {"class": "Thing", "params": {"lr": 0.1, "bounds": [0.1, None], "n": np.int64(4)}}
    path = save_arrays(tmp_path / "w.safetensors", ARRAYS, header)
    arrays, found = load_arrays(path)
    assert set(arrays) == set(ARRAYS)
    for name, value in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], value)
        assert arrays[name].dtype == value.dtype
        assert arrays[name].shape == value.shape
    assert found == {"class": "Thing", "params": {"lr": 0.1, "bounds": [0.1, None], "n": 4}}
    assert os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, fails):
    path = save_arrays(tmp_path / "w.safetensors", ARRAYS, {"version": 1})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space left"):
        save_arrays(path, {"other": np.zeros(1)}, {"version": 2})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist"):
        save_arrays(tmp_path / "nowhere" / "w", ARRAYS, {})
    with pytest.raises(IsADirectoryError, match="is a folder"):
        save_arrays(tmp_path, ARRAYS, {})
    with pytest.raises(TypeError, match="the header cannot hold"):
        save_arrays(tmp_path / "w", ARRAYS, {"network": object()})
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_arrays(tmp_path / "absent")
    path = save_arrays(tmp_path / "w", ARRAYS, {})
    whole = path.read_bytes()
    for damaged in (b"", b"\0" * 8, whole[:20], whole[:-5], b"no weights at all" * 5):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged or no safetensors file"):
            load_arrays(path)
    save_file({"a": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="was not written by fewshot_course"):
        load_arrays(path)
    save_file({"a": np.zeros(2)}, path, metadata={"header": "{not json"})
    with pytest.raises(ValueError, match="its header is no JSON"):
        load_arrays(path)


def test_initial_weights_lie_in_their_bounds():
    shapes = {
        "conv.weight": (64, 5, 3, 3),
        "conv.bias": (64,),
        "norm.weight": (64,),
        "norm.bias": (64,),
        "norm.running_mean": (64,),
        "norm.running_var": (64,),
        "head.weight": (500, 25),
        "head.bias": (500,),
    }
    weights = initial_weights(shapes, np.random.default_rng(0))
    assert list(weights) == list(shapes)
    for layer, fan_in in (("conv", 45), ("head", 25)):
        for kind in ("weight", "bias"):
            value, bound = weights[f"{layer}.{kind}"], 1 / np.sqrt(fan_in)
            assert value.dtype == "float32"
            assert np.abs(value).max() <= bound
            assert value.max() > 0.8 * bound
            assert value.min() < -0.8 * bound
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert (weights[f"norm.{name}"] == value).all()


def test_float32_and_float64_start_from_one_point():
    shapes = {"head.weight": (4, 3), "head.bias": (4,)}
    small = initial_weights(shapes, np.random.default_rng(0), "float32")
    large = initial_weights(shapes, np.random.default_rng(0), "float64")
    for name in shapes:
        np.testing.assert_array_equal(small[name], large[name].astype("float32"))


def test_a_weight_without_a_rule_is_named():
    with pytest.raises(ValueError, match=r"no rule to initialise 'layer\.gate' of shape \(3,\)"):
        initial_weights({"layer.gate": (3,)}, np.random.default_rng(0))


def test_layouts_are_compared_by_name_and_shape():
    shapes = {"a.weight": (2, 3), "a.bias": (2,)}
    good = {name: np.zeros(shape) for name, shape in shapes.items()}
    check_layout(good, shapes)
    with pytest.raises(ValueError, match=r"missing \['a.bias'\], unexpected \['b'\]"):
        check_layout({"a.weight": good["a.weight"], "b": np.zeros(1)}, shapes)
    with pytest.raises(ValueError, match=r"'a.weight' has shape \(3, 2\).* expects \(2, 3\)"):
        check_layout({**good, "a.weight": np.zeros((3, 2))}, shapes)


def test_the_header_is_plain_json(tmp_path):
    """So that any program can read it."""
    path = save_arrays(tmp_path / "w", {"a": np.zeros(1)}, {"params": {"lr": 0.1}})
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    metadata = json.loads(raw[8 : 8 + size])["__metadata__"]
    assert json.loads(metadata["header"]) == {"params": {"lr": 0.1}}
