"""Figures: what they show, that everyone can read them, and what they refuse."""

import io
import itertools

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb, to_rgba
from matplotlib.text import Text
from PIL import Image

from fewshot_course.evaluation import mean_interval, plots
from fewshot_course.evaluation.calibration import reliability_bins

RNG = np.random.default_rng(0)
SHOTS = [1, 2, 4, 8, 16]
CURVES = {
    name: [0.4 + 0.08 * i + RNG.normal(0, 0.03, 10) for i in range(5)]
    for name in ("source only", "KL", "CORAL", "KLIEP", "target only")
}
IMAGES = RNG.uniform(size=(23, 8, 8)).astype(np.float32)
POINTS, CLASSES = RNG.normal(size=(300, 2)), np.arange(300) % 10
BINS = reliability_bins(RNG.uniform(size=200), RNG.uniform(size=200) < 0.5)

FIGURES = {
    "learning_curve": lambda **k: plots.learning_curve(SHOTS, CURVES, chance=0.1, **k),
    "comparison": lambda **k: plots.comparison(
        {name: rows[2] for name, rows in CURVES.items()}, reference=0.6, **k
    ),
    "image_grid": lambda **k: plots.image_grid(IMAGES, [f"class {i}" for i in range(23)], **k),
    "latent_scatter": lambda **k: plots.latent_scatter(
        POINTS, np.where(CLASSES > 8, -1, CLASSES), np.arange(300) % 2, **k
    ),
    "reliability_diagram": lambda **k: plots.reliability_diagram({"a": BINS, "b": BINS}, **k),
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def contrast_with_white(colour):
    """WCAG 2.2, relative luminance and contrast ratio."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)


@pytest.mark.parametrize("name", FIGURES)
def test_every_text_has_9_points_or_more_and_is_dark_on_white(name):
    figure = FIGURES[name]().figure
    figure.canvas.draw()
    texts = [t for t in figure.findobj(Text) if t.get_text().strip() and t.get_visible()]
    assert texts
    for text in texts:
        assert text.get_fontsize() >= 9, text.get_text()
        assert contrast_with_white(text.get_color()) >= 4.5, text.get_text()
    assert to_rgba(figure.get_facecolor()) == (1, 1, 1, 1)


@pytest.mark.parametrize("name", FIGURES)
def test_given_axes_are_used_and_settings_are_left_alone(name):
    before = dict(mpl.rcParams)
    _, (left, right) = plt.subplots(1, 2)
    assert FIGURES[name](ax=right) is right
    assert not left.has_data()
    assert dict(mpl.rcParams) == before
    with pytest.raises(TypeError, match="ax must be a matplotlib Axes"):
        FIGURES[name](ax=3)


@pytest.mark.parametrize("name", FIGURES)
def test_saved_picture_is_small_opaque_and_the_same_again(name, tmp_path):
    ax = FIGURES[name]()
    first = plots.save(ax, tmp_path / "a.png")
    assert first.stat().st_size <= 80_000
    picture = Image.open(first)
    assert picture.convert("RGBA").getextrema()[3] == (255, 255)
    assert picture.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert plots.save(FIGURES[name](), tmp_path / "b.png").read_bytes() == first.read_bytes()
    one, two = (plots.save(FIGURES[name](), tmp_path / f"{i}.svg").read_bytes() for i in "ab")
    assert one == two
    assert b"<svg" in one


def test_compressed_picture_looks_the_same():
    buffer = io.BytesIO()
    FIGURES["learning_curve"]().figure.savefig(buffer, dpi=150)
    small = plots.compress_png(buffer.getvalue())
    assert len(small) < 0.6 * len(buffer.getvalue())
    before = np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert("RGB"), dtype=float)
    after = np.asarray(Image.open(io.BytesIO(small)).convert("RGB"), dtype=float)
    assert np.abs(before - after).mean() < 1.0
    with pytest.raises(OSError, match="cannot identify"):
        plots.compress_png(b"no picture")


def test_first_colours_stand_out_and_no_two_series_look_alike_without_colour():
    assert all(contrast_with_white(colour) >= 3 for colour in plots.COLOURS[:3])
    lines = plots.learning_curve(SHOTS, CURVES).get_lines()
    for a, b in itertools.combinations(lines, 2):
        assert a.get_marker() != b.get_marker()
        assert a.get_color() != b.get_color()
    assert (
        len({(line.get_linestyle(), line._unscaled_dash_pattern[1] is None) for line in lines}) > 3
    )


def test_classes_and_domains_differ_by_more_than_colour():
    ax = plots.latent_scatter(POINTS, CLASSES, np.arange(300) // 150)
    seen = [(line.get_marker(), line.get_markerfacecolor() == "none") for line in ax.get_lines()]
    assert len(seen) == len(set(seen)) == 20
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [*map(str, range(10)), "source", "target"]
    drawn = sum(len(line.get_xdata()) for line in ax.get_lines())
    assert drawn == 300


def test_learning_curve_shows_means_and_intervals():
    ax = plots.learning_curve(SHOTS, {"KL": CURVES["KL"]})
    intervals = [mean_interval(row) for row in CURVES["KL"]]
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), SHOTS)
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [i.mean for i in intervals])
    corners = ax.collections[0].get_paths()[0].vertices[:, 1]
    for interval in intervals:
        assert np.isclose(corners, interval.low).any()
        assert np.isclose(corners, interval.high).any()
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "2", "4", "8", "16"]


def test_one_draw_gives_a_point_without_interval():
    ax = plots.learning_curve([1, 2], {"KL": [[0.5], [0.6]]})
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), [0.5, 0.6])
    ax = plots.comparison({"KL": [0.5], "CORAL": [0.5, 0.6]})
    assert len(ax.containers[0].lines[2]) == 0
    assert len(ax.containers[1].lines[2]) == 1


def test_comparison_shows_intervals_and_draws():
    ax = plots.comparison({"KL": CURVES["KL"][0]})
    interval = mean_interval(CURVES["KL"][0])
    (segment,) = ax.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(segment[:, 0], [interval.low, interval.high])
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), CURVES["KL"][0])


def test_image_grid_shows_every_picture_once_upright():
    ax = plots.image_grid(IMAGES, columns=5)
    assert len(ax.images) == 23
    np.testing.assert_allclose(ax.images[7].get_array()[..., 0], IMAGES[7])
    corners = {tuple(image.get_extent()) for image in ax.images}
    assert len(corners) == 23
    left, right, bottom, top = ax.images[0].get_extent()
    assert left < right
    assert top < bottom
    assert ax.yaxis_inverted()


BAD = [
    (lambda: plots.learning_curve([1, 2], {}), ValueError, "scores is empty"),
    (lambda: plots.learning_curve([1, 2], [1, 2]), TypeError, "scores must be a dict"),  # type: ignore[arg-type]
    (lambda: plots.learning_curve([1, 2], {"a": [[1]]}), ValueError, "has 1 rows for 2 shots"),
    (lambda: plots.learning_curve([2, 1], {"a": [[1], [1]]}), ValueError, "shots must increase"),
    (lambda: plots.learning_curve([0, 1], {"a": [[1], [1]]}), ValueError, "shots must be posit"),
    (lambda: plots.learning_curve([], {"a": []}), ValueError, "shots must be positive"),
    (lambda: plots.learning_curve([1], {"a": [[np.nan]]}), ValueError, "NaN"),
    (lambda: plots.comparison({}), ValueError, "scores is empty"),
    (lambda: plots.comparison({"a": []}), ValueError, "scores is empty"),
    (lambda: plots.image_grid(np.ones((3, 4))), ValueError, "X must hold images"),
    (lambda: plots.image_grid(np.ones((3, 4, 4, 2))), ValueError, "1 or 3 channels"),
    (lambda: plots.image_grid(np.full((1, 2, 2), np.nan)), ValueError, "X has NaN"),
    (lambda: plots.image_grid(IMAGES, ["a"]), ValueError, "titles has 1 entries for 23"),
    (lambda: plots.image_grid(IMAGES, columns=0), ValueError, "columns must lie in"),
    (lambda: plots.latent_scatter(np.ones((3, 3)), [0, 1, 2]), ValueError, r"shape \(n, 2\)"),
    (lambda: plots.latent_scatter(POINTS, [0]), ValueError, "y has 1 labels for 300"),
    (lambda: plots.latent_scatter(POINTS[:1], [12]), ValueError, "at most 10"),
    (lambda: plots.latent_scatter(POINTS[:1], [0], [2]), ValueError, "domain must hold 0 and 1"),
    (
        lambda: plots.latent_scatter(POINTS[:1], [1], class_names=["a"]),
        ValueError,
        "class_names has 1",
    ),
    (lambda: plots.reliability_diagram({}), ValueError, "bins is empty"),
    (lambda: plots.reliability_diagram({"a": 1}), TypeError, "must be ReliabilityBins"),  # type: ignore[dict-item]
    (lambda: plots.reliability_diagram(3), TypeError, "bins must be a dict"),  # type: ignore[arg-type]
    (lambda: plots.save(FIGURES["comparison"](), "a.jpg"), ValueError, "must end in .png or"),
    (lambda: plots.save(FIGURES["comparison"](), "no/such/a.png"), OSError, "no/such"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
