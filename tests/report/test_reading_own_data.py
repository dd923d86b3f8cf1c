"""What a user brings is read as it was meant, or refused by line, row or file name."""

import tracemalloc

import numpy as np
import own_data
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fewshot_course.data import resize_images
from fewshot_course.report import _read, read_examples, read_images


def test_texts_with_and_without_a_label(tmp_path):
    rows = [("Hello, you", "b"), ("x", ""), (" y ", "a"), ("z", "b"), ("w", "a")]
    e = read_examples(own_data.write_csv(tmp_path / "t.csv", ["text", "label"], rows))
    assert (e.kind, e.X) == ("texts", ["Hello, you", "x", "y", "z", "w"])
    assert e.class_names == ("a", "b")
    assert e.y.tolist() == [1, -1, 0, 1, 0]
    assert e.places[2] == "line 4"
    assert e.counts.tolist() == [2, 2]
    assert e.take([1, 0]) == ["x", "Hello, you"]


def test_numbers_of_a_csv(tmp_path):
    rows = [("1.5", "10", "7"), ("2", "9", "8"), ("0", "10", "9"), ("1e3", "9", "1"), ("3", "", 2)]
    e = read_examples(own_data.write_csv(tmp_path / "v.csv", ["a", "label", "b"], rows))
    assert (e.kind, e.columns, e.class_names) == ("vectors", ("a", "b"), ("9", "10"))
    np.testing.assert_array_equal(e.X, [[1.5, 7], [2, 8], [0, 9], [1000, 1], [3, 2]])
    assert e.y.tolist() == [1, 0, 1, 0, -1]


def test_a_column_that_is_not_used_is_told(tmp_path):
    rows = [(t, label, "7") for t, label in own_data.texts(2)]
    e = read_examples(own_data.write_csv(tmp_path / "t.csv", ["text", "label", "age"], rows))
    assert any("age" in remark for remark in e.remarks)


@pytest.mark.parametrize("labels", [[3, 3, -1, 5, 5], ["x", "x", "", "y", "y"], [3.0, 3, -1, 5, 5]])
def test_arrays(tmp_path, labels):
    X = np.arange(20.0).reshape(5, 4)
    np.savez(tmp_path / "a.npz", X=X, y=labels)
    e = read_examples(tmp_path / "a.npz")
    assert e.kind == "vectors"
    assert e.y.tolist() == [0, 0, -1, 1, 1]
    assert e.class_names == (("x", "y") if labels[0] == "x" else ("3", "5"))
    np.testing.assert_array_equal(e.X, X)


def test_images_of_an_npz_keep_their_size(tmp_path):
    X = np.random.default_rng(0).random((4, 5, 6, 3))
    np.savez(tmp_path / "a.npz", X=X, y=[0, 0, 1, 1])
    e = read_examples(tmp_path / "a.npz")
    assert (e.kind, e.X.shape) == ("images", (4, 5, 6, 3))


def test_a_folder_of_images(tmp_path):
    root = own_data.image_folder(tmp_path, n=3, unlabelled=2)
    (root / "flat" / "notes.txt").write_text("x")
    (root / ".hidden").mkdir()
    e = read_examples(root)
    assert (e.kind, e.X.shape, e.class_names) == ("images", (10, 64, 64), ("flat", "upright"))
    assert e.counts.tolist() == [3, 3]
    assert len(e.unknown) == 4
    where = e.places.index("upright/upright1.png")
    grey = np.asarray(Image.open(root / "upright" / "upright1.png"), dtype=np.float64) / 255
    expected = resize_images(grey[None], (64, 64))[0]
    np.testing.assert_allclose(e.X[where], expected, atol=1e-6)
    np.testing.assert_array_equal(
        read_images([root / e.places[where]], colour=False)[0], e.X[where]
    )
    assert any("flat/notes.txt" in remark for remark in e.remarks)
    assert any("40 × 40" in remark for remark in e.remarks)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "I;16", "1"])
def test_every_kind_of_picture_gives_the_same_colours(tmp_path, mode):
    half = np.zeros((28, 28), dtype=np.uint8)
    half[:, 14:] = 255
    picture = Image.fromarray(half)
    if mode == "I;16":
        picture = Image.fromarray(half.astype(np.uint16) * 257)
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(tmp_path / "x.png")
    found = read_images([tmp_path / "x.png"], 28)[0]
    np.testing.assert_allclose(found, np.repeat(half[..., None] / 255, 3, axis=2), atol=0.01)


def test_what_is_transparent_is_white(tmp_path):
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(tmp_path / "x.png")
    assert read_images([tmp_path / "x.png"]).min() == 1.0


def _csv(content):
    def write(folder):
        (folder / "d.csv").write_text(content)
        return folder / "d.csv"

    return write


def _npz(**arrays):
    def write(folder):
        np.savez(folder / "d.npz", **arrays)
        return folder / "d.npz"

    return write


def _file(name, content=b"x"):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def _folder(*names):
    def write(folder):
        for name in names:
            path = folder / "d" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if "broken" in name:
                path.write_bytes(b"no picture")
            else:
                Image.fromarray(np.full((8, 8), len(name), dtype=np.uint8)).save(path)
        return folder / "d"

    return write


TWO = np.arange(8.0).reshape(4, 2)
FAULTS = {
    "ending": (_file("d.doc"), r"d\.doc ends in '\.doc'; expected a \.csv"),
    "empty": (_file("d.csv", b""), "d.csv is empty"),
    "no rows": (_csv("text,label\n"), "no rows"),
    "no label column": (_csv("text,kind\nx,a\n"), "no column 'label'.*'text', 'kind'.*--label"),
    "two label columns": (_csv("text,label,label\nx,a,b\n"), "2 columns named 'label'"),
    "only labels": (_csv("label\na\n"), "no column beside 'label'"),
    "not utf-8": (_file("d.csv", b"text,label\n\xff,a\n"), "not UTF-8: line 2"),
    "no text": (_csv("text,label\nx,a\n,b\n"), "line 3 has no text"),
    "nothing": (_csv("a,label\n,x\n,y\n"), "no column to learn from.*without any value: 'a'"),
    "measurement": (
        _csv("a,y\n" + "".join(f"{i % 7},{i * i / 3}\n" for i in range(40))),
        "40 different numbers.*a measurement, no class",
    ),
    "many labels": (
        _csv("text,label\n" + "x,red|blue\ny,red\nz,blue\nu,red|green\nv,green|blue\n" * 2),
        "several labels a row.*'red|blue'",
    ),
    "infinity": (_csv("a,label\n1,x\ninf,y\n"), "line 3, column 'a' holds inf"),
    "no labels": (_csv("text,label\nx,\ny,\n"), "no labelled example"),
    "one class": (_csv("text,label\nx,a\ny,a\n"), "single class 'a'"),
    "one example": (_csv("text,label\nx,a\ny,a\nz,b\n"), "single example of the class 'b'"),
    "no y": (_npz(X=TWO), "no array y; it holds X"),
    "length": (_npz(X=TWO, y=[0, 1]), r"y has shape \(2,\), expected \(4,\)"),
    "row with NaN": (_npz(X=[[1.0], [np.nan]], y=[0, 1]), "row 1"),
    "bytes": (_npz(X=np.full((2, 3, 3), 255), y=[0, 1]), "Divide by 255"),
    "shape": (_npz(X=np.zeros(3), y=[0, 1, 1]), r"\(n, d\)"),
    "label": (_npz(X=TWO, y=[0, 0, 1, -2]), "label -2"),
    "half a label": (_npz(X=TWO, y=[0, 0, 1, 0.5]), "whole numbers or words"),
    "objects": (_npz(X=np.array([{}, {}]), y=[0, 1]), "Python objects"),
    "no npz": (_file("d.npz"), r"d\.npz"),
    "no folders": (_folder("a.png"), "no sub-folders"),
    "broken image": (_folder("a/1.png", "a/2.png", "b/broken.png"), r"b holds no image; .*broken"),
    "no image": (_folder("a/1.png", "b/1.txt.png", "c/.x.png"), "d/c holds no image"),
    "class of one": (_folder("a/1.png", "a/2.png", "b/1.png"), "single example of the class 'b'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_used_is_refused_by_name(tmp_path, fault):
    write, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        read_examples(write(tmp_path))


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        read_examples(tmp_path / "nothing.csv")


TEXT = st.text(min_size=1).filter(lambda t: t.strip() and "\0" not in t and t.isprintable())


@settings(max_examples=30)
@given(st.lists(st.tuples(TEXT, st.sampled_from(["a", "b", ""])), min_size=1, max_size=20))
def test_any_text_comes_back(tmp_path_factory, rows):
    rows = [*rows, ("p", "a"), ("q", "a"), ("r", "b"), ("s", "b")]
    path = own_data.write_csv(tmp_path_factory.mktemp("t") / "t.csv", ["text", "label"], rows)
    e = read_examples(path)
    assert [text.strip() for text, _ in rows] == e.X
    assert [e.class_names[i] if i >= 0 else "" for i in e.y] == [label for _, label in rows]


# ---------------------------------------------------------------- small files, large data


def test_a_picture_that_announces_too_much_is_refused_unread(tmp_path):
    for size in ((20_000, 8_000), (40_000, 1)):
        path = tmp_path / "large.png"
        Image.new("L", size).save(path)
        tracemalloc.start()
        with pytest.raises(ValueError, match=rf"{size[0]} × {size[1]} pixels; at most"):
            read_images([path])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10_000_000


def test_a_format_that_is_not_offered_is_not_tried(tmp_path):
    path = tmp_path / "drawing.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(ValueError, match="cannot be read"):
        read_images([path])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA"])
def test_a_large_picture_is_read_as_its_small_copy(tmp_path, mode):
    rng = np.random.default_rng(0)
    grey = np.clip(rng.integers(-128, 384, (28, 28)), 0, 255)
    small = Image.fromarray((255 * (grey > 127) if mode == "1" else grey).astype(np.uint8))
    for name, picture in (("small", small), ("large", small.resize((2800, 2800), 0))):
        picture.convert(mode).save(tmp_path / f"{name}.png")
    one, two = read_images([tmp_path / "small.png", tmp_path / "large.png"])
    np.testing.assert_allclose(one, two, atol=0.02)


def test_an_archive_of_arrays_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_read, "MAX_BYTES", 1_000_000)
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, X=np.zeros((4, 100_000)), y=np.arange(4) % 2)
    with pytest.raises(ValueError, match=r"unpacks to [\d,]+ bytes; at most 1,000,000 are read"):
        read_examples(path)
