"""The methods of the course in PyTorch; the twin of :mod:`fewshot_course.tf`."""

import logging as _logging

try:
    import torch as _torch  # noqa: F401  (only to see whether it is there)
except ModuleNotFoundError as error:
    raise ImportError(
        f"fewshot_course.torch needs PyTorch ({error}); "
        "install it with: pip install 'fewshot-course[torch]'"
    ) from error

# transformers imports torchao where it is installed, which then warns of kernels for other devices.
for _name in ("torchao", "torch.utils._pytree"):
    _logging.getLogger(_name).setLevel(_logging.ERROR)

from fewshot_course.torch.adabn import AdaBNAdapter  # noqa: E402
from fewshot_course.torch.alignment import CORALAdapter, DANNAdapter, MMDAdapter  # noqa: E402
from fewshot_course.torch.compression import CompressedImageClassifier, CompressedTextClassifier  # noqa: E402
from fewshot_course.torch.fine_tuning import TextClassifier  # noqa: E402
from fewshot_course.torch.frozen_body import FrozenBody  # noqa: E402
from fewshot_course.torch.gan import GANPseudoLabeler  # noqa: E402
from fewshot_course.torch.gmm import GMMPseudoLabeler  # noqa: E402
from fewshot_course.torch.image_transfer import ImageClassifier  # noqa: E402
from fewshot_course.torch.kl_adaptation import KLAdapter  # noqa: E402
from fewshot_course.torch.kliep import KLIEP  # noqa: E402
from fewshot_course.torch.maml import ANIL, FOMAML, MAML, Reptile  # noqa: E402
from fewshot_course.torch.matching import MatchingNet  # noqa: E402
from fewshot_course.torch.protonet import ProtoNet  # noqa: E402
from fewshot_course.torch.pseudo_labels import SelfTraining  # noqa: E402
from fewshot_course.torch.scaling import DataParallelClassifier  # noqa: E402
from fewshot_course.torch.vae import VAEPseudoLabeler  # noqa: E402

__all__ = [
    "ANIL",
    "FOMAML",
    "KLIEP",
    "MAML",
    "AdaBNAdapter",
    "CORALAdapter",
    "CompressedImageClassifier",
    "CompressedTextClassifier",
    "DANNAdapter",
    "DataParallelClassifier",
    "FrozenBody",
    "GANPseudoLabeler",
    "GMMPseudoLabeler",
    "ImageClassifier",
    "KLAdapter",
    "MMDAdapter",
    "MatchingNet",
    "ProtoNet",
    "Reptile",
    "SelfTraining",
    "TextClassifier",
    "VAEPseudoLabeler",
]
