"""Omniglot's archives, however packed, and the two ways to divide its characters."""

import hashlib
import io
import zipfile

import numpy as np
import pytest

from fewshot_course.data import DataError, character_parts, load_dataset, omniglot, quarter_turns
from fewshot_course.data._files import CACHE_VARIABLE, DATA_VARIABLE

NAMES = [f"alphabet{i % 7}/character{i:02d}" for i in range(40)]


def png(value):
    from PIL import Image

    content = io.BytesIO()
    Image.new("L", (105, 105), value).save(content, format="PNG")
    return content.getvalue()


def pack(members, compression=zipfile.ZIP_DEFLATED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for path, member in members.items():
            archive.writestr(path, member)
    return content.getvalue()


MEMBERS = {
    f"images_background/{alphabet}/character{c:02d}/{c:04d}_{drawer:02d}.png": png(40 * c + drawer)
    for alphabet in ("Greek", "Latin")
    for c in (1, 2)
    for drawer in (1, 2)
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data folder with two small archives, and nothing else to fall back on."""
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "omniglot").mkdir()
    archives = {}
    for part in omniglot.SPLITS:
        members = {
            path.replace("background", part).replace("Latin", f"Latin_{part}"): content
            for path, content in MEMBERS.items()
        }
        members = {k: v for k, v in members.items() if part == "background" or "Greek" not in k}
        content = pack(members)
        archives[part] = omniglot._archive(part, omniglot.hash_drawings(content))
        (tmp_path / archives[part].path).write_bytes(content)
    monkeypatch.setattr(omniglot, "ARCHIVES", archives)
    return tmp_path / "omniglot"


def test_the_hash_is_that_of_the_drawings_by_path():
    digest = hashlib.sha256()
    for path in sorted(MEMBERS):
        digest.update(path.encode() + b"\0" + hashlib.sha256(MEMBERS[path]).digest())
    assert omniglot.hash_drawings(pack(MEMBERS)) == digest.hexdigest()


def test_how_an_archive_was_packed_does_not_matter():
    one = pack(MEMBERS)
    other = pack({"images_background/": "", **dict(reversed(MEMBERS.items()))}, zipfile.ZIP_STORED)
    assert one != other
    assert omniglot.hash_drawings(one) == omniglot.hash_drawings(other)


@pytest.mark.parametrize("fault", ["pixel", "name", "missing", "swapped"])
def test_another_drawing_changes_the_hash(fault):
    members = dict(MEMBERS)
    first, second = sorted(members)[:2]
    if fault == "pixel":
        members[first] = png(39)
    elif fault == "name":
        members[first.replace("_01", "_09")] = members.pop(first)
    elif fault == "missing":
        del members[first]
    else:
        members[first], members[second] = members[second], members[first]
    assert omniglot.hash_drawings(pack(members)) != omniglot.hash_drawings(pack(MEMBERS))


def test_both_archives_are_read_one_after_the_other(folder):
    whole = omniglot.load_omniglot("all")
    assert whole.class_names == (
        "Greek/character01", "Greek/character02",
        "Latin_background/character01", "Latin_background/character02",
        "Latin_evaluation/character01", "Latin_evaluation/character02",
    )  # fmt: skip
    assert whole.class_groups[-1] == "Latin_evaluation"
    assert whole.y.tolist() == np.repeat(np.arange(6), 2).tolist()
    assert whole.X.shape == (12, 28, 28)
    np.testing.assert_allclose(whole.X[:3, 0, 0], 1 - np.array([41, 42, 81]) / 255, atol=1e-6)
    background = omniglot.load_omniglot("background")
    assert np.array_equal(background.X, whole.X[:8])
    assert background.class_names == whole.class_names[:4]
    assert omniglot.load_omniglot("evaluation").class_names == whole.class_names[4:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pack({**MEMBERS, sorted(MEMBERS)[0]: png(7)}), "another file: SHA-256"),
        (pack(MEMBERS)[:-30], "cannot be unpacked"),
        (b"<html>please log in</html>", "cannot be unpacked"),
    ],
)
def test_a_wrong_or_damaged_archive_is_named(folder, content, message):
    path = folder / "images_background.zip"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        omniglot.load_omniglot("background")
    assert str(path) in str(caught.value)


def test_parts_are_disjoint_whole_and_of_the_size_asked_for():
    parts = character_parts(NAMES, n_train=30, n_validation=5, seed=0)
    assert [len(part) for part in parts.values()] == [25, 5, 10]
    assert sorted(sum(parts.values(), ())) == sorted(NAMES)


def test_parts_do_not_depend_on_the_order_of_names_nor_the_test_on_the_validation():
    parts = character_parts(NAMES, n_train=30, n_validation=5)
    assert character_parts(NAMES[::-1], n_train=30, n_validation=5) == parts
    assert character_parts(NAMES, n_train=30)["test"] == parts["test"]
    assert character_parts(NAMES, n_train=30, seed=1)["test"] != parts["test"]


def test_the_parts_of_the_whole_omniglot_stay_what_they_are():
    """The published networks were trained on them: another draw would mix test and training."""
    names = [f"a/{i:04d}" for i in range(1623)]
    parts = character_parts(names, n_validation=100)
    assert [len(part) for part in parts.values()] == [1100, 100, 423]
    text = "\n".join(parts["test"]).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == "12181ef66c7a43fd"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_train": 41}, r"n_train must lie in \[1, 40\]"),
        ({"n_train": 10, "n_validation": 10}, r"n_validation must lie in \[0, 9\]"),
        ({"class_names": [*NAMES, NAMES[0]], "n_train": 10}, "a name twice"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        character_parts(**{"class_names": NAMES, "n_train": 30, **changes})


@pytest.mark.parametrize("channels", [(), (2,)])
def test_quarter_turns_are_new_classes(channels):
    X = np.random.default_rng(0).random((6, 5, 5, *channels)).astype(np.float32)
    y = np.array([0, 0, 1, 1, 2, 2])
    turned, labels = quarter_turns(X, y)
    assert turned.shape == (24, 5, 5, *channels)
    assert turned.dtype == np.float32
    assert labels.tolist() == [label + 3 * quarters for quarters in range(4) for label in y]
    for quarters in range(4):
        for row in range(6):
            assert np.array_equal(turned[6 * quarters + row], np.rot90(X[row], quarters))


def test_images_that_cannot_be_turned_are_refused():
    with pytest.raises(ValueError, match="square images"):
        quarter_turns(np.zeros((2, 4, 5)), np.arange(2))
    with pytest.raises(ValueError, match="square images"):
        quarter_turns(np.zeros((2, 4)), np.arange(2))


@pytest.mark.real_data
def test_lakes_parts_share_no_alphabet():
    groups = {split: set(load_dataset("omniglot", split).class_groups) for split in omniglot.SPLITS}
    assert not groups["background"] & groups["evaluation"]
