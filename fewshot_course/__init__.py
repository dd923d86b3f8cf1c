"""Few-shot learning in PyTorch and TensorFlow: the package behind the course.

Importing it loads neither framework; take :mod:`fewshot_course.torch` or
:mod:`fewshot_course.tf`.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
