import numpy as np
import pytest

from fewshot_course.data import glyphs, load_dataset
from fewshot_course.data._files import CACHE_VARIABLE


@pytest.fixture(scope="module")
def characters():
    return glyphs.distinct_characters()


def test_look_alikes_are_kept_once(characters):
    for alike in ("AΑА", "OОΟoо", "CcСсϹ", "HНΗ", "Xx×ХΧ"):
        assert sum(letter in characters for letter in alike) == 1, alike
        assert alike[0] in characters  # the Latin one


def test_accented_letters_are_dropped_and_other_scripts_are_there(characters):
    assert not set("éÄñйё") & set(characters)
    assert set("AΩЖԱბאبⵣສߐᚁᐁ") <= set(characters)


def test_kept_shapes_differ(characters):
    shapes = np.stack([glyphs._blurred_shape(character) for character in characters])
    similarity = shapes @ shapes.T
    np.fill_diagonal(similarity, 0)
    assert similarity.max() < 0.94
    in_train = np.array([glyphs.script_of(c) in glyphs.TRAIN_SCRIPTS for c in characters])
    assert similarity[in_train][:, ~in_train].max() < 0.9


def test_the_split_holds_latin_greek_and_cyrillic_on_one_side():
    whole = load_dataset("glyphs")
    train, test = load_dataset("glyphs", "train"), load_dataset("glyphs", "test")
    assert {"LATIN", "GREEK", "CYRILLIC"} <= set(train.class_groups)
    assert not set(train.class_groups) & set(test.class_groups)
    assert not set(train.class_names) & set(test.class_names)
    assert set(whole.class_names) == set(train.class_names) | set(test.class_names)
    assert len(set(whole.class_groups)) == 15
    assert len(whole.class_names) >= 1000
    assert set(np.bincount(whole.y)) == {20}
    where_test = np.flatnonzero(whole.y == whole.class_names.index(test.class_names[5]))
    assert np.array_equal(whole.X[where_test], test.X[test.y == 5])


def test_drawing_again_gives_the_same_and_the_cache_gives_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "distinct_characters", lambda: ["A", "Ж", "ⵣ"])
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    drawn = glyphs._glyphs.__wrapped__()
    assert np.array_equal(drawn.X, glyphs._draw_glyphs().X)
    (path,) = tmp_path.rglob("*.npz")
    monkeypatch.setattr(glyphs, "_draw_glyphs", lambda: pytest.fail("drawn twice"))
    cached = glyphs._glyphs.__wrapped__()
    assert np.array_equal(cached.X, drawn.X)
    assert cached.characters == drawn.characters
    whole = load_dataset("glyphs")
    index = whole.class_names.index("CYRILLIC CAPITAL LETTER ZHE")
    np.testing.assert_allclose(whole.X[whole.y == index] * 255, drawn.X[20:40], atol=1e-4)

    for damage in (path.read_bytes()[:-200], b"no archive", flip(path.read_bytes())):
        path.write_bytes(damage)
        assert glyphs._read_drawn(path) is None


def flip(content):
    """Change one grey level deep inside the file."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


def test_a_cache_that_cannot_be_written_only_costs_time(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    monkeypatch.setattr(glyphs, "distinct_characters", lambda: ["A"])
    assert glyphs._glyphs.__wrapped__().X.shape == (20, 28, 28)


def test_examples_of_a_character_differ_and_none_is_empty():
    for name in ("glyphs", "printed_digits"):
        X = load_dataset(name).X
        assert len({image.tobytes() for image in X}) == len(X)
        assert X.reshape(len(X), -1).sum(axis=1).min() > 10


def test_characters_stay_themselves():
    """One half's mean image is nearest to the other half's: labels and drawings agree.

    Not for every one of a thousand classes, since characters that differ by a dot are classes too.
    """
    data = load_dataset("glyphs")
    X = data.X.reshape(-1, 20, 784)
    even, odd = X[:, 0::2].mean(axis=1), X[:, 1::2].mean(axis=1)
    even, odd = (half - half.mean(axis=1, keepdims=True) for half in (even, odd))
    even, odd = (half / np.linalg.norm(half, axis=1, keepdims=True) for half in (even, odd))
    assert np.mean((even @ odd.T).argmax(axis=1) == np.arange(len(X))) > 0.9


def test_printed_digits_are_balanced_over_fonts_that_exist():
    data = load_dataset("printed_digits")
    assert np.bincount(data.y).tolist() == [16 * len(glyphs.PRINTED_FONTS)] * 10
    for font in glyphs.PRINTED_FONTS + glyphs.GLYPH_FONTS:
        assert glyphs.font_path(font).is_file()


def test_no_shipped_font_with_upright_digits_is_forgotten():
    from matplotlib.ft2font import FT2Font

    slanted = ("Oblique", "Italic", "BolIta", "cmti10")
    symbols = ("cmsy10", "cmex10", "LastResort")  # other signs under the codes of the digits
    have = {
        path.stem
        for path in glyphs.font_path("x").parent.glob("*.ttf")
        if set(map(ord, "0123456789")) <= set(FT2Font(str(path)).get_charmap())
        and not any(word in path.stem for word in slanted + symbols)
    }
    assert have == set(glyphs.PRINTED_FONTS)
