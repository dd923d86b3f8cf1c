"""Both frameworks by name, for ``parametrize``; one that is not installed is a listed skip."""

import importlib.util

import pytest

FRAMEWORKS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(name) is None, reason=f"{name} is not installed"
        ),
    )
    for name in ("torch", "tensorflow")
]
