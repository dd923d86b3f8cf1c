"""Short training."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _few_steps():
    """Train networks for a few steps only: these tests are about the report."""
    from fewshot_course.report import _methods

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_methods, "STEPS", 20)
        yield
