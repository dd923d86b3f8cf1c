"""The interactive figure of the confidence threshold: its counts are NumPy's."""

from __future__ import annotations

import re
from typing import Any

import figure_data
import numpy as np
import pytest
from figures import stored

pytestmark = pytest.mark.browser

TOPIC = "chapters/pseudo_labels/index.html"
FIGURE = "confidence-threshold"
NAMES = ["mixture", "logistic regression"]
TYPED = [0.0, 0.3, 0.517, 0.85, 0.9, 0.97, 0.99, 0.999, 0.999999]


def counted(name: str, threshold: float) -> tuple[int, int, int]:
    """All pseudo-labels, those that a threshold keeps, and the right ones among these."""
    data = stored("confidence-threshold")[name]
    confidence = figure_data.unpacked(data["confidence"], "f8")
    right = np.array(list(data["right"])) == "1"
    kept = confidence >= threshold
    return len(kept), int(kept.sum()), int((kept & right).sum())


def check(figure: Any, name: str) -> float:
    """Compare the text with NumPy's counts at the threshold that it names, and return that."""
    text = figure.locator(".fig-result").inner_text()
    threshold = float(re.findall(r"at least (\S+),", text)[0])
    total, kept, right = counted(name, threshold)
    assert f"the {name} keeps" in text
    if kept:
        share, correct = f"{100 * kept / total:.1f} %", f"{100 * right / kept:.1f} %"
        assert f"keeps {kept} of {total} pseudo-labels ({share})" in text
        assert f"{right} are right ({correct}) and {kept - right} wrong." in text
    else:
        assert f"none of {total} pseudo-labels" in text
    assert text in figure.locator("svg.fig-picture").get_attribute("aria-label")
    slider = figure.locator('input[name="stop"]')
    assert float(slider.get_attribute("aria-valuetext")) == threshold
    return threshold


@pytest.mark.parametrize("name", NAMES)
def test_it_counts_as_numpy_does(figure: Any, name: str) -> None:
    figure.locator("select").select_option(name)
    for threshold in TYPED:
        figure.locator('input[name="typed"]').fill(str(threshold))
        assert check(figure, name) == threshold


@pytest.mark.parametrize("name", NAMES)
def test_every_stop_of_the_slider_counts_right_and_stops_rise(figure: Any, name: str) -> None:
    figure.locator("select").select_option(name)
    slider = figure.locator('input[name="stop"]')
    slider.press("Home")
    thresholds = [check(figure, name)]
    for _ in range(int(slider.get_attribute("max"))):
        slider.press("ArrowRight")
        thresholds.append(check(figure, name))
        typed = figure.locator('input[name="typed"]').input_value()
        assert float(typed) == thresholds[-1]
    assert thresholds[0] == 0
    assert (np.diff(thresholds) > 0).all()
    assert {0.5, 0.9, 0.99, 0.999, 0.999999} <= set(thresholds)


def test_the_line_can_be_dragged_to_the_place_of_a_threshold(figure: Any) -> None:
    figure.scroll_into_view_if_needed()
    assert check(figure, "mixture") == 0.9
    picture = figure.locator("svg.fig-picture").bounding_box()
    ticks = figure.locator("svg text", has_text=re.compile(r"^0\.(5|99)$")).all()
    places = [tick.bounding_box()["x"] + tick.bounding_box()["width"] / 2 for tick in ticks]
    mouse, middle = figure.page.mouse, picture["y"] + 100
    mouse.move(places[0], middle)
    mouse.down()
    assert check(figure, "mixture") == 0.5
    mouse.move(places[1], middle, steps=4)
    mouse.up()
    assert check(figure, "mixture") == 0.99
    mouse.move(places[0], middle)  # the button is up again
    assert check(figure, "mixture") == 0.99


def test_what_stands_in_the_field_outside_of_the_range_is_mended(figure: Any) -> None:
    typed = figure.locator('input[name="typed"]')
    for given, kept in (("1.5", 0.999999), ("-1", 0.0)):
        typed.fill(given)
        assert check(figure, "mixture") == kept
        typed.blur()
        assert float(typed.input_value()) == kept


def test_the_page_says_what_the_numbers_say() -> None:
    """Higher: fewer kept, more of them right.  The other model is right about as often."""
    share = {name: [counted(name, t) for t in (0.0, 0.8, 0.999999)] for name in NAMES}
    total, kept, right = zip(*share["mixture"], strict=True)
    assert kept[0] == total[0] > kept[2]
    assert right[2] / kept[2] > right[0] / kept[0]
    logistic = share["logistic regression"]
    assert logistic[1][2] / logistic[1][1] > logistic[0][2] / logistic[0][1]
    assert logistic[0][2] == pytest.approx(right[0], rel=0.05)
    assert logistic[1][1] < 0.2 * kept[1]
