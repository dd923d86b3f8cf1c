"""Back-translation with translators one can see through, and with a tiny Marian model."""

import importlib.util
import json

import numpy as np
import pytest

from fewshot_course.data.augment import BackTranslation, MarianTranslator

NEEDED = ("torch", "transformers", "sentencepiece")
needs_marian = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason=f"one of {', '.join(NEEDED)} is not installed",
)


class Dictionary:
    """Word by word; remembers what it was asked."""

    def __init__(self, words):
        self.words, self.asked = words, []

    def translate(self, texts, rng):
        self.asked.append(list(texts))
        return [" ".join(self.words.get(w, "") for w in t.split()).strip() for t in texts]


def test_there_and_back_in_one_call_each():
    there = Dictionary({"big": "groß", "large": "groß", "house": "Haus"})
    back = Dictionary({"groß": "large", "Haus": "house"})
    new, y = BackTranslation(there, back).augment(
        ["big house", "", "house"], [1, 0, 1], np.random.default_rng(0)
    )
    assert new == ["large house", "", "house"]
    assert y.tolist() == [1, 0, 1]
    assert there.asked == [["big house", "house"]]
    assert back.asked == [["groß Haus", "Haus"]]


def test_a_text_that_gets_lost_stays_as_it_was():
    there, back = Dictionary({"a": "A", "b": "B"}), Dictionary({"A": "aa"})
    new, _ = BackTranslation(there, back).augment(
        ["a", "b", "unknown"], [0, 0, 0], np.random.default_rng(0)
    )
    assert new == ["aa", "b", "unknown"]
    assert back.asked == [["A", "B"]]


def test_a_translator_that_loses_texts_is_refused():
    class Lossy:
        def translate(self, texts, rng):
            return list(texts)[:-1]

    fine = Dictionary({"a": "a"})
    with pytest.raises(ValueError, match="there returned 1 texts for 2"):
        BackTranslation(Lossy(), fine).augment(["a", "a"], [0, 0], np.random.default_rng(0))
    with pytest.raises(ValueError, match="back returned 1 texts for 2"):
        BackTranslation(fine, Lossy()).augment(["a", "a"], [0, 0], np.random.default_rng(0))


def test_settings_are_checked_before_anything_is_loaded():
    with pytest.raises(ValueError, match="batch_size"):
        MarianTranslator("nowhere", batch_size=0)
    with pytest.raises(ValueError, match="temperature"):
        MarianTranslator("nowhere", temperature=-1.0)


SENTENCES = ["the film was good", "a good film", "the house is big", "is the film big",
             "the film is a good house and the house is a big film"]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A Marian model of two layers with random weights, and its sentencepiece tokenizers."""
    import sentencepiece
    import torch
    from transformers import MarianConfig, MarianMTModel

    folder = tmp_path_factory.mktemp("marian")
    text = folder / "text.txt"
    text.write_text("\n".join(SENTENCES * 5))
    for name in ("source", "target"):
        sentencepiece.SentencePieceTrainer.train(
            input=str(text), model_prefix=str(folder / name), vocab_size=40, model_type="unigram",
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    words = [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())]
    ordinary = [word for word in words if word not in ("<s>", "</s>", "<unk>")]
    vocabulary = ["</s>", "<unk>", *ordinary, "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(vocabulary)}))
    pad = len(vocabulary) - 1
    config = MarianConfig(
        vocab_size=len(vocabulary), d_model=16, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_position_embeddings=64, pad_token_id=pad, eos_token_id=0,
        decoder_start_token_id=pad, forced_eos_token_id=0, init_std=1.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        MarianMTModel(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"source_lang": "x", "target_lang": "y", "tokenizer_class": "MarianTokenizer"})
    )
    return folder


@needs_marian
@pytest.mark.filterwarnings("ignore")
def test_a_tiny_marian_model_is_deterministic_and_batches_do_not_matter(tiny):
    together = MarianTranslator(tiny, device="cpu", temperature=0.0, max_length=12)
    alone = MarianTranslator(tiny, device="cpu", temperature=0.0, max_length=12, batch_size=1)
    first = together.translate(SENTENCES, np.random.default_rng(0))
    assert first == together.translate(SENTENCES, np.random.default_rng(1))
    assert first == alone.translate(SENTENCES, np.random.default_rng(0))
    # Order does not matter either: each text has its own translation.
    assert first[::-1] == together.translate(SENTENCES[::-1], np.random.default_rng(0))
    assert len(set(first)) > 1
    assert together.translate([], np.random.default_rng(0)) == []


@needs_marian
@pytest.mark.filterwarnings("ignore")
def test_a_tiny_marian_model_draws_by_the_seed_and_leaves_torch_alone(tiny):
    import torch

    drawing = MarianTranslator(tiny, device="cpu", temperature=1.0, max_length=12, batch_size=2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = drawing.translate(SENTENCES, np.random.default_rng(0))
    assert torch.equal(torch.rand(3), expected)
    assert one == drawing.translate(SENTENCES, np.random.default_rng(0))
    assert one != drawing.translate(SENTENCES, np.random.default_rng(1))


@needs_marian
@pytest.mark.filterwarnings("ignore")
def test_back_translation_through_two_marian_models(tiny):
    there, back = (MarianTranslator(tiny, device="cpu", max_length=12) for _ in range(2))
    new, y = BackTranslation(there, back).augment(
        [*SENTENCES, ""], [0, 1, 0, 1, 0, 1], np.random.default_rng(0)
    )
    assert len(new) == 6
    assert new[5] == ""
    assert all(text.strip() for text in new[:5])
    assert y.tolist() == [0, 1, 0, 1, 0, 1]


@needs_marian
def test_a_missing_model_is_an_error_with_its_name(tmp_path):
    with pytest.raises(OSError, match="nothing_here"):
        MarianTranslator(tmp_path / "nothing_here").translate(["a"], np.random.default_rng(0))
