"""The interactive figure of the KL topic: its numbers are the package's, and keys move it."""

from __future__ import annotations

import re
from typing import Any

import pytest

pytestmark = pytest.mark.browser

TOPIC = "chapters/kl_adaptation/index.html"
FIGURE = "gaussian-kl"


def closed_form(mean_p: float, scale_p: float, mean_q: float, scale_q: float) -> float:
    """The package's own divergence, in either framework that is there."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from fewshot_course.torch.divergences import gaussian_kl

    means = [torch.tensor([mean], dtype=torch.float64) for mean in (mean_p, mean_q)]
    scales = [torch.tensor([scale], dtype=torch.float64) for scale in (scale_p, scale_q)]
    log_vars = [2 * torch.log(scale) for scale in scales]
    return float(gaussian_kl(means[0], log_vars[0], means[1], log_vars[1]))


def shown(figure: Any) -> tuple[list[float], float, float]:
    names = ("meanP", "scaleP", "meanQ", "scaleQ")
    values = [float(figure.locator(f'input[name="{name}"]').input_value()) for name in names]
    outputs = [figure.locator(f'output[name="{name}"]') for name in ("forward", "backward")]
    forward, backward = (float(output.inner_text()) for output in outputs)
    return values, forward, backward


def check(figure: Any) -> list[float]:
    values, forward, backward = shown(figure)
    assert forward == pytest.approx(closed_form(*values), abs=6e-4)
    assert backward == pytest.approx(closed_form(*values[2:], *values[:2]), abs=6e-4)
    return values


def test_it_shows_the_numbers_of_the_package_wherever_the_sliders_stand(figure: Any) -> None:
    check(figure)
    for setting in ({"meanP": -3.5, "scaleQ": 0.3}, {"scaleP": 3.0, "meanQ": 4.0}):
        for name, value in setting.items():
            figure.locator(f'input[name="{name}"]').fill(str(value))
        values = check(figure)
        assert set(setting.values()) <= {round(value, 2) for value in values}


def test_arrow_keys_move_a_gaussian_and_the_text_says_so(figure: Any) -> None:
    before = check(figure)
    slider = figure.locator('input[name="meanQ"]')
    slider.focus()
    slider.press("ArrowRight")
    after = check(figure)
    assert after[2] == pytest.approx(before[2] + 0.05)
    label = figure.locator("svg").get_attribute("aria-label")
    assert f"q has mean {after[2]:.2f}" in label


def test_a_handle_can_be_dragged(figure: Any) -> None:
    figure.scroll_into_view_if_needed()
    handle = figure.locator('circle[data-key="meanP"]').bounding_box()
    page = figure.page
    page.mouse.move(handle["x"] + 8, handle["y"] + 8)
    page.mouse.down()
    page.mouse.move(handle["x"] + 90, handle["y"] + 8, steps=4)
    page.mouse.up()
    values = check(figure)
    assert values[0] > 0.5
    assert re.search("p has mean [1-3]", figure.locator("svg").get_attribute("aria-label"))
