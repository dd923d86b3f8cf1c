"""The methods of the course in PyTorch; the twin of :mod:`fewshot_course.tf`."""

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise ImportError(
        f"fewshot_course.torch needs PyTorch ({error}); "
        "install it with: pip install 'fewshot-course[torch]'"
    ) from error

from fewshot_course.torch.alignment import CORALAdapter, DANNAdapter
from fewshot_course.torch.kl_adaptation import KLAdapter
from fewshot_course.torch.kliep import KLIEP

__all__ = ["KLIEP", "CORALAdapter", "DANNAdapter", "KLAdapter"]
