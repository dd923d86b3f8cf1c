"""The methods of the course in TensorFlow; the twin of :mod:`fewshot_course.torch`."""

from fewshot_course.tf import _start

# TensorFlow must be started quietly before any module below imports it: hence the E402.
_start.start()

from fewshot_course.tf.adabn import AdaBNAdapter  # noqa: E402
from fewshot_course.tf.alignment import CORALAdapter, DANNAdapter, MMDAdapter  # noqa: E402
from fewshot_course.tf.compression import (  # noqa: E402
    CompressedImageClassifier,
    CompressedTextClassifier,
)
from fewshot_course.tf.fine_tuning import TextClassifier  # noqa: E402
from fewshot_course.tf.frozen_body import FrozenBody  # noqa: E402
from fewshot_course.tf.gan import GANPseudoLabeler  # noqa: E402
from fewshot_course.tf.gmm import GMMPseudoLabeler  # noqa: E402
from fewshot_course.tf.image_transfer import ImageClassifier  # noqa: E402
from fewshot_course.tf.kl_adaptation import KLAdapter  # noqa: E402
from fewshot_course.tf.kliep import KLIEP  # noqa: E402
from fewshot_course.tf.maml import ANIL, FOMAML, MAML, Reptile  # noqa: E402
from fewshot_course.tf.matching import MatchingNet  # noqa: E402
from fewshot_course.tf.protonet import ProtoNet  # noqa: E402
from fewshot_course.tf.pseudo_labels import SelfTraining  # noqa: E402
from fewshot_course.tf.scaling import DataParallelClassifier  # noqa: E402
from fewshot_course.tf.vae import VAEPseudoLabeler  # noqa: E402

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
