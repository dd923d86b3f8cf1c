"""The methods of the course in PyTorch; the twin of :mod:`fewshot_course.tf`."""

try:
    import torch as _torch  # noqa: F401  (only to see whether it is there)
except ModuleNotFoundError as error:
    raise ImportError(
        f"fewshot_course.torch needs PyTorch ({error}); "
        "install it with: pip install 'fewshot-course[torch]'"
    ) from error

from fewshot_course.torch.alignment import CORALAdapter, DANNAdapter
from fewshot_course.torch.fine_tuning import TextClassifier
from fewshot_course.torch.gan import GANPseudoLabeler
from fewshot_course.torch.gmm import GMMPseudoLabeler
from fewshot_course.torch.image_transfer import ImageClassifier
from fewshot_course.torch.kl_adaptation import KLAdapter
from fewshot_course.torch.kliep import KLIEP
from fewshot_course.torch.maml import ANIL, FOMAML, MAML, Reptile
from fewshot_course.torch.protonet import ProtoNet
from fewshot_course.torch.pseudo_labels import SelfTraining
from fewshot_course.torch.vae import VAEPseudoLabeler

__all__ = [
    "ANIL",
    "FOMAML",
    "KLIEP",
    "MAML",
    "CORALAdapter",
    "DANNAdapter",
    "GANPseudoLabeler",
    "GMMPseudoLabeler",
    "ImageClassifier",
    "KLAdapter",
    "ProtoNet",
    "Reptile",
    "SelfTraining",
    "TextClassifier",
    "VAEPseudoLabeler",
]
