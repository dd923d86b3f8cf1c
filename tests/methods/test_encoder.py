"""The text encoder: the model card's numbers, features found again, and bad input refused."""

import json
import shutil
import sqlite3

import numpy as np
import pytest
import tiny_bert
from safetensors.numpy import load_file, save_file

from fewshot_course.both.batches import LengthBatches, batches_by_length
from fewshot_course.both.bert import find_bert, read_weights
from fewshot_course.both.encoder import FeatureCache
from fewshot_course.both.texts import tokenise
from fewshot_course.data._files import CACHE_VARIABLE
from fewshot_course.data.minilm import minilm_folder

pytest.importorskip("tokenizers", reason="tokenizers is not installed")

SENTENCES = [
    "My card was stolen yesterday.",
    "Why?",
    "How do I top up my account from another bank, and is there a fee for doing so abroad?",
    "Ça ne marche pas — 这张卡坏了!",
]
TEXTS, _ = tiny_bert.texts_and_labels(12)
TINY = {"max_length": 24, "dtype": "float64"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_bert.make(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """An empty cache of one's own; minilm is never looked for in it."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# ---------------------------------------------------------------- the right numbers


@pytest.fixture(scope="module")
def by_the_model_card():
    """What the model card's code returns for SENTENCES, (n, 384)."""
    torch = pytest.importorskip("torch", reason="the model card's code is written for torch")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    folder = minilm_folder()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    encoded = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        tokens = model(**encoded)[0]
    mask = encoded["attention_mask"].unsqueeze(-1).expand(tokens.size()).float()
    pooled = torch.sum(tokens * mask, 1) / torch.clamp(mask.sum(1), min=1e-9)
    return torch.nn.functional.normalize(pooled, p=2, dim=1).numpy()


def test_minilm_gives_the_numbers_of_its_model_card(framework, by_the_model_card):
    encode = framework.module("encoder").encode
    features = encode(SENTENCES, normalize=True, cache=False)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, by_the_model_card, atol=1e-6)
    raw = encode(SENTENCES, cache=False)
    lengths = np.linalg.norm(raw, axis=1)
    assert (lengths > 2).all()
    np.testing.assert_allclose(raw / lengths[:, None], by_the_model_card, atol=1e-6)


def test_neither_order_nor_company_changes_a_text(framework, tiny):
    encode = framework.module("encoder").encode
    together = encode(TEXTS, tiny, cache=False, **TINY)
    alone = encode(TEXTS, tiny, cache=False, batch_size=1, **TINY)
    backwards = encode(TEXTS[::-1], tiny, cache=False, batch_size=5, **TINY)[::-1]
    np.testing.assert_allclose(alone, together, rtol=1e-12)
    np.testing.assert_allclose(backwards, together, rtol=1e-12)


def test_the_pool_is_the_mean_over_a_texts_own_tokens(framework, tiny):
    module = framework.module("encoder")
    encoder = module.load_encoder(tiny, "float64")
    tokens = tokenise(TEXTS[:3], tiny, max_length=24)
    features = module.encode(TEXTS[:3], tiny, cache=False, **TINY)
    for index in range(3):
        ids, mask = (framework.tensor(array) for array in tokens.pad(np.array([index])))
        sequence = encoder(ids, mask)
        assert tuple(sequence.shape) == (1, tokens.lengths[index], 16)
        np.testing.assert_allclose(
            features[index], framework.array(sequence)[0].mean(0), rtol=1e-12
        )


def test_weights_have_the_canonical_names_and_come_back(framework, tiny):
    networks = framework.module("networks")
    encoder = framework.module("encoder").load_encoder(tiny, "float64")
    arrays = networks.to_numpy(encoder)
    assert {name: array.shape for name, array in arrays.items()} == tiny_bert.CONFIG.shapes()
    stored = load_file(tiny / "model.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, stored[name])


def test_heads_and_old_names_in_the_file_are_read_past(framework, tiny, tmp_path):
    encode = framework.module("encoder").encode
    folder = tiny_bert.make(tmp_path / "classifier", prefix="bert.")
    arrays = load_file(folder / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): array
        for name, array in arrays.items()
    }
    renamed |= {"classifier.weight": np.ones((2, 16)), "bert.pooler.dense.weight": np.eye(16)}
    renamed["bert.embeddings.position_ids"] = np.arange(24)[None]
    save_file(renamed, folder / "model.safetensors")
    expected = encode(TEXTS, tiny, cache=False, **TINY)
    np.testing.assert_array_equal(encode(TEXTS, folder, cache=False, **TINY), expected)


def test_a_folder_with_a_word_list_only_is_enough(framework, tiny, copy):
    (copy / "tokenizer.json").unlink()
    encode = framework.module("encoder").encode
    expected = encode(TEXTS, tiny, cache=False, **TINY)
    np.testing.assert_array_equal(encode(TEXTS, copy, cache=False, **TINY), expected)


# ---------------------------------------------------------------- dropout


def test_dropout_keeps_the_mean_and_drops_as_often_as_asked(framework):
    module = framework.module("encoder")
    rng = np.random.default_rng(0)
    masks = module.dropout_masks(tiny_bert.CONFIG, (40, 20), 0.3, rng, "cpu", "float64")
    arrays = [framework.array(mask) for mask in masks]
    assert [a.shape for a in arrays] == [(40, 20, 16)] + 2 * [
        (40, 4, 20, 20), (40, 20, 16), (40, 20, 16)
    ]  # fmt: skip
    for array in arrays:
        assert set(np.round(np.unique(array), 9)) == {0, round(1 / 0.7, 9)}
        assert array.mean() == pytest.approx(1, abs=0.03)


def test_every_dropout_mask_is_used(framework, tiny):
    """A mask of ones changes nothing; a single zero in any of them changes the output."""
    module = framework.module("encoder")
    encoder = module.load_encoder(tiny, "float64")
    ids, mask = (
        framework.tensor(a) for a in tokenise(TEXTS[:1], tiny, max_length=24).pad(np.array([0]))
    )
    shape = tuple(ids.shape)
    rng = np.random.default_rng(0)
    ones = [
        framework.array(m)
        for m in module.dropout_masks(tiny_bert.CONFIG, shape, 0.0, rng, "cpu", "float64")
    ]
    plain = framework.array(encoder(ids, mask))
    same = encoder(ids, mask, [framework.tensor(one) for one in ones])
    np.testing.assert_array_equal(framework.array(same), plain)
    for index in range(len(ones)):
        changed = [one.copy() for one in ones]
        changed[index].flat[0] = 0
        out = framework.array(encoder(ids, mask, [framework.tensor(one) for one in changed]))
        assert np.abs(out - plain).max() > 1e-6, index
    np.testing.assert_array_equal(framework.array(encoder(ids, mask)), plain)


def test_dropout_hits_the_text_and_the_token_it_was_drawn_for(framework, tiny):
    """Texts together, with padding, give what each gives alone with its part of the masks."""
    module = framework.module("encoder")
    encoder = module.load_encoder(tiny, "float64")
    tokens = tokenise(TEXTS[:4], tiny, max_length=24)
    ids, mask = tokens.pad(np.arange(4))
    assert (mask == 0).any(), "no padding to pass over"
    drawn = [
        framework.array(m)
        for m in module.dropout_masks(
            tiny_bert.CONFIG, ids.shape, 0.3, np.random.default_rng(0), "cpu", "float64"
        )
    ]

    def run(ids, mask, factors):
        factors = [framework.tensor(np.ascontiguousarray(factor)) for factor in factors]
        arguments = framework.tensor(ids), framework.tensor(mask), factors
        out = encoder(*arguments)
        return framework.array(out.detach() if framework.name == "torch" else out)

    together = run(ids, mask, drawn)
    assert (together[mask == 0] == 0).all(), "padding is not 0"
    for i, n in enumerate(tokens.lengths):
        own = [f[i : i + 1, :n] if f.ndim == 3 else f[i : i + 1, :, :n, :n] for f in drawn]
        alone = run(ids[i : i + 1, :n], mask[i : i + 1, :n], own)
        np.testing.assert_allclose(together[i, :n], alone[0], rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- the cache


def no_encoder(*_):
    raise AssertionError("the encoder was loaded although every text is known")


def test_known_texts_need_no_encoder(framework, tiny, own_cache, monkeypatch):
    module = framework.module("encoder")
    first = module.encode(TEXTS, tiny, **TINY)
    monkeypatch.setattr(module, "_pooler", no_encoder)
    again = module.encode(TEXTS[::-1], tiny, **TINY)
    np.testing.assert_array_equal(again, first[::-1])
    unit = module.encode(TEXTS, tiny, normalize=True, **TINY)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1)
    with pytest.raises(AssertionError, match="although"):
        module.encode([*TEXTS, "a new text"], tiny, **TINY)


def test_what_decides_the_features_is_part_of_the_key(
    framework, tiny, own_cache, tmp_path, monkeypatch
):
    module = framework.module("encoder")
    other = tiny_bert.make(tmp_path / "other", seed=1)
    one = module.encode(TEXTS, tiny, **TINY)
    assert np.abs(module.encode(TEXTS, other, **TINY) - one).max() > 0.1
    with pytest.warns(UserWarning, match="longer than 4 tokens"):
        short = module.encode(TEXTS, tiny, max_length=4, dtype="float64")
    assert np.abs(short - one).max() > 0.1
    assert module.encode(TEXTS, tiny, max_length=24, dtype="float32").dtype == np.float32
    np.testing.assert_array_equal(module.encode(TEXTS, tiny, **TINY), one)


def test_neither_framework_is_given_the_others_features(both, tiny, own_cache, monkeypatch):
    one, two = (framework.module("encoder") for framework in both)
    one.encode(TEXTS, tiny, **TINY)
    monkeypatch.setattr(two, "_pooler", no_encoder)
    with pytest.raises(AssertionError, match="although"):
        two.encode(TEXTS, tiny, **TINY)


def test_no_device_is_given_what_another_kind_computed(framework, tiny, own_cache, monkeypatch):
    """A GPU rounds otherwise than a CPU; two GPUs round alike."""
    module = framework.module("encoder")
    gpu = {"torch": "cuda", "tensorflow": "gpu"}[framework.name]
    asked = []

    def encoder_on(files, dtype, device):
        asked.append(device)
        return lambda ids, mask: np.full((len(ids), 16), 1.0 + len(asked))

    monkeypatch.setattr(module, "_pooler", encoder_on)
    monkeypatch.setattr(module, "resolve_device", lambda device: device)
    found = {
        device: module.encode(TEXTS, tiny, device=device, **TINY)[0, 0]
        for device in ("cpu", f"{gpu}:0", f"{gpu}:1", gpu)
    }
    assert asked == ["cpu", f"{gpu}:0"]
    assert list(found.values()) == [2, 3, 3, 3]


def test_a_damaged_cache_is_announced_and_costs_only_time(framework, tiny, own_cache):
    module = framework.module("encoder")
    first = module.encode(TEXTS, tiny, **TINY)
    FeatureCache({}, "float64").path.write_bytes(b"no database at all" * 100)
    with pytest.warns(UserWarning, match="cannot be used"):
        again = module.encode(TEXTS, tiny, **TINY)
    np.testing.assert_array_equal(again, first)


def test_a_damaged_entry_is_computed_anew(framework, tiny, own_cache):
    module = framework.module("encoder")
    first = module.encode(TEXTS, tiny, **TINY)
    with sqlite3.connect(FeatureCache({}, "float64").path) as file:
        file.execute("UPDATE features SET value = substr(value, 1, 20)")
    np.testing.assert_array_equal(module.encode(TEXTS, tiny, **TINY), first)


def test_a_text_without_valid_utf8_has_a_key(own_cache):
    store = FeatureCache({}, "float64")
    store.put(["\ud800"], np.ones((1, 3)))
    np.testing.assert_array_equal(store.get(["\ud800"])[0], np.ones(3))


# ---------------------------------------------------------------- batches


def test_batches_by_length_hold_every_text_once():
    lengths = np.random.default_rng(0).integers(3, 60, size=50)
    batches = batches_by_length(lengths, 16)
    assert sorted(np.concatenate(batches)) == list(range(50))
    assert all(a.max() <= b.min() for a, b in zip(*(map(lengths.__getitem__, b) for b in (
        batches[:-1], batches[1:])), strict=True))  # fmt: skip


@pytest.mark.parametrize("n", [1, 15, 16, 17, 130, 300])
def test_an_epoch_of_training_batches_holds_every_text_once(n):
    lengths = np.random.default_rng(0).integers(3, 60, size=n)
    batches = LengthBatches(lengths, 16, np.random.default_rng(1))
    for _ in range(2):
        epoch = [batches.next() for _ in range(batches.batches_per_epoch)]
        assert sorted(np.concatenate(epoch)) == list(range(n))
        assert max(map(len, epoch)) <= 16
        assert max(map(len, epoch)) - min(map(len, epoch)) <= 1


def test_training_batches_save_padding_and_go_on_where_they_stopped():
    lengths = np.random.default_rng(0).integers(3, 60, size=200)
    batches = LengthBatches(lengths, 16, np.random.default_rng(1))
    padded = sum(len(b) * lengths[b].max() for b in (batches.next() for _ in range(13)))
    shuffled = np.random.default_rng(2).permutation(200)
    random = sum(len(b) * lengths[b].max() for b in np.array_split(shuffled, 13))
    assert padded < 1.25 * lengths.sum() < random
    for _ in range(7):
        batches.next()
    twin = LengthBatches(lengths, 16, np.random.default_rng(5))
    twin.restore(json.loads(json.dumps(batches.state())))
    for _ in range(20):
        np.testing.assert_array_equal(batches.next(), twin.next())


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        ("one text", TypeError, "list of str, got str"),
        (7, TypeError, "list of str, got int"),
        (["good", 7], TypeError, r"texts\[1\] must be a str"),
        (["good", None], TypeError, r"texts\[1\] must be a str"),
        (["good", ""], ValueError, r"texts\[1\] is an empty text"),
        ([" \n", "good"], ValueError, r"texts\[0\] is an empty text"),
        ([], ValueError, "no texts"),
    ],
)
def test_bad_texts_are_named(framework, tiny, texts, error, message):
    with pytest.raises(error, match=message):
        framework.module("encoder").encode(texts, tiny, **TINY)


def test_truncation_is_announced_with_the_number_of_texts(framework, tiny):
    module = framework.module("encoder")
    texts = ["good " * 50, "bad", "very " * 30]
    with pytest.warns(UserWarning, match=r"2 of 3 texts are longer than 24 tokens .* has 52"):
        features = module.encode(texts, tiny, cache=False, **TINY)
    cut = module.encode(["good " * 22, "bad", "very " * 22], tiny, cache=False, **TINY)
    np.testing.assert_allclose(features, cut, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 25}, r"max_length must lie in \[3, 24\]"),
        ({"max_length": 2}, r"max_length must lie in \[3, 24\]"),
        ({"batch_size": 0}, "batch_size"),
        ({"dtype": "float16"}, "dtype"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_bad_settings_are_named(framework, tiny, settings, message):
    with pytest.raises((ValueError, TypeError), match=message):
        framework.module("encoder").encode(TEXTS, tiny, **({"max_length": 24} | settings))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_an_absent_file_is_named(framework, copy, name):
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {name}"):
        framework.module("encoder").load_encoder(copy)


def test_absent_models_and_pickles_are_named(framework, copy, tmp_path):
    load = framework.module("encoder").load_encoder
    with pytest.raises(FileNotFoundError, match="is no folder"):
        load(tmp_path / "nothing")
    with pytest.raises(ValueError, match="Did you mean 'minilm'"):
        load("minlm")
    with pytest.raises(TypeError, match="must be 'minilm' or a folder"):
        load(3)
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="is a pickle, which is not read"):
        load(copy)
    for name in ("tokenizer.json", "vocab.txt"):
        (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load(copy)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_named(framework, copy, name):
    path = copy / name
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        framework.module("encoder").encode(TEXTS, copy, cache=False, **TINY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta', expected 'bert'"),
        ({"hidden_act": "gelu_new"}, "hidden_act"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"num_attention_heads": 3}, "no multiple"),
        ({"intermediate_size": 64}, "has shape"),
        ({"num_hidden_layers": 3}, "has no weights for encoder.layer.2"),
    ],
)
def test_a_model_of_another_kind_is_refused(framework, copy, changes, message):
    edit_config(copy, **changes)
    with pytest.raises(ValueError, match=message):
        framework.module("encoder").load_encoder(copy)


def test_weights_are_read_as_asked(tiny):
    files = find_bert(str(tiny))
    for dtype in ("float32", "float64"):
        assert {array.dtype for array in read_weights(files, dtype).values()} == {np.dtype(dtype)}
