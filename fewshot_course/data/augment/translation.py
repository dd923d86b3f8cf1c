"""Back-translation: into another language and back, x → z → x'.

Any translator serves that has ``translate(texts, rng)``.  Drawing z ~ p(z | x) and x' ~ p(x' | z)
makes q(x' | x) = Σ_z p(z | x) p(x' | z): a paraphrase whose meaning went through z (Sennrich et al.
2016, "Improving neural machine translation models with monolingual data", for the name).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from fewshot_course._checks import check_number
from fewshot_course.data.augment.interface import check_pairs

__all__ = ["BackTranslation", "MarianTranslator", "Translator"]


class Translator(Protocol):
    """Anything that translates texts."""

    def translate(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Return one translation for each text; ``rng`` decides where there is a choice."""
        ...


class BackTranslation:
    """Translate there and back.

    Args:
        there: from the texts' language into another one.
        back: from that one.
    """

    def __init__(self, there: Translator, back: Translator) -> None:
        self.there, self.back = there, back

    def augment(
        self, texts: Sequence[str], labels: Any, rng: np.random.Generator
    ) -> tuple[list[str], np.ndarray]:
        """Return each text after both translations, and the labels, which are kept.

        Texts without words are not handed to a translator.  Where a translation comes back
        without words, the original stays.

        Raises:
            ValueError: if a translator returns another number of texts than it got.
        """
        listed, y = check_pairs(texts, labels)
        asked = [i for i, text in enumerate(listed) if text.strip()]
        first, second = rng.spawn(2)
        abroad = _translate("there", self.there, [listed[i] for i in asked], first)
        # A translation without words cannot be translated; the original takes its place below.
        alive = [(i, text) for i, text in zip(asked, abroad, strict=True) if text.strip()]
        home = _translate("back", self.back, [text for _, text in alive], second)
        new = list(listed)
        for (i, _), text in zip(alive, home, strict=True):
            new[i] = text if text.strip() else listed[i]
        return new, y.copy()


def _translate(
    name: str, translator: Translator, texts: list[str], rng: np.random.Generator
) -> list[str]:
    if not texts:
        return []
    found = list(translator.translate(texts, rng))
    if len(found) != len(texts):
        raise ValueError(f"{name} returned {len(found)} texts for {len(texts)}; expected as many.")
    return found


class MarianTranslator:
    """A Marian model of the ``transformers`` library (Junczys-Dowmunt et al. 2018), in PyTorch.

    Nothing is loaded before the first text is translated.

    Args:
        model: a name on the Hugging Face hub, such as "Helsinki-NLP/opus-mt-en-de" and
            "Helsinki-NLP/opus-mt-de-en" for the way back, or a folder in the same format.
        device: "auto" (a GPU if there is one), "cpu", "cuda", …
        batch_size: texts at once; texts of like length come together.
        max_length: tokens of a text and of its translation, at most; what is longer is cut.
        temperature: 0 takes the likeliest token each time, always the same; above 0 tokens are
            drawn, and a higher temperature makes rarer ones likelier.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        device: str = "auto",
        batch_size: int = 16,
        max_length: int = 128,
        temperature: float = 0.7,
    ) -> None:
        self.model = model
        self.device = device
        self.batch_size = int(check_number("batch_size", batch_size, low=1, integer=True))
        self.max_length = int(check_number("max_length", max_length, low=2, integer=True))
        self.temperature = float(check_number("temperature", temperature, low=0))

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any]:
        """Tokenizer, network in evaluation mode, and device."""
        try:
            import sentencepiece  # noqa: F401  (Marian's tokenizer; its own error says less)
            import torch
            from transformers import MarianMTModel, MarianTokenizer
        except ImportError as error:
            raise ImportError(
                f"MarianTranslator needs torch, transformers and sentencepiece ({error}); install "
                "them with: pip install 'fewshot-course[torch,text]'"
            ) from error
        wanted = self.device
        if wanted == "auto":
            wanted = "cuda" if torch.cuda.is_available() else "cpu"
        tokenizer = MarianTokenizer.from_pretrained(self.model)
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
            network: Any = MarianMTModel.from_pretrained(self.model, use_safetensors=True)
        return tokenizer, network.to(wanted).eval(), torch.device(wanted)

    def translate(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        """Return one translation for each text, in order.

        Args:
            texts: list of str.
            rng: seeds the draws; without a temperature nothing is drawn.

        Raises:
            ImportError: if torch, transformers or sentencepiece is not installed.
            OSError: if the model cannot be found.
        """
        listed, _ = check_pairs(texts, np.zeros(len(list(texts)), dtype=np.int64))
        tokenizer, network, device = self._loaded
        import torch

        order = np.argsort([len(text) for text in listed], kind="stable")
        found = [""] * len(listed)
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), torch.inference_mode():
            torch.manual_seed(int(rng.integers(2**63)))
            for start in range(0, len(listed), self.batch_size):
                index = order[start : start + self.batch_size]
                batch = tokenizer(
                    [listed[i] for i in index], return_tensors="pt", padding=True,
                    truncation=True, max_length=self.max_length,
                ).to(device)  # fmt: skip
                drawing = (
                    {"do_sample": True, "temperature": self.temperature, "top_k": 0}
                    if self.temperature
                    else {"do_sample": False}
                )
                out = network.generate(
                    **batch, num_beams=1, max_new_tokens=self.max_length, **drawing
                )
                for i, text in zip(
                    index, tokenizer.batch_decode(out, skip_special_tokens=True), strict=True
                ):
                    found[i] = text
        return found
