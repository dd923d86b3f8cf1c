"""Text augmentation: draw new labelled texts from a few; NumPy only.

Every augmenter has one method, ``augment(texts, labels, rng) -> texts, labels``, which draws one
new text for each text; see :mod:`fewshot_course.data.augment.interface`.
"""

from fewshot_course.data.augment.generators import HMMGenerator, MarkovGenerator
from fewshot_course.data.augment.hmm import HiddenMarkovModel
from fewshot_course.data.augment.interface import Augmenter, Compose, Identity, OneOf, extend
from fewshot_course.data.augment.markov import MarkovChain
from fewshot_course.data.augment.operators import (
    RandomDeletion,
    RandomInsertion,
    RandomSwap,
    SegmentRecombination,
    SynonymReplacement,
)
from fewshot_course.data.augment.synonyms import default_synonyms, synonym_table
from fewshot_course.data.augment.translation import BackTranslation, MarianTranslator, Translator

__all__ = [
    "Augmenter",
    "BackTranslation",
    "Compose",
    "HMMGenerator",
    "HiddenMarkovModel",
    "Identity",
    "MarianTranslator",
    "MarkovChain",
    "MarkovGenerator",
    "OneOf",
    "RandomDeletion",
    "RandomInsertion",
    "RandomSwap",
    "SegmentRecombination",
    "SynonymReplacement",
    "Translator",
    "default_synonyms",
    "extend",
    "synonym_table",
]
