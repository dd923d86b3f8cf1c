"""What every augmenter keeps, and what each of the small operators may change."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course.data import augment
from fewshot_course.data.augment.words import join_tokens, segments, strip_punctuation, tokens

WORD = st.text("abcdé'’,.!-", min_size=1, max_size=6)
TEXT = st.lists(WORD, max_size=12).map(" ".join)
BATCH = st.lists(st.tuples(TEXT, st.integers(0, 2)), max_size=6)
STRENGTH = st.floats(0, 1)
SEED = st.integers(0, 2**32)
relaxed = settings(max_examples=60, derandomize=True, deadline=None)

SYNONYMS = augment.synonym_table([["a", "b"], ["ab", "ba", "cd"]])


class Upper:
    """A translator that one can see."""

    def translate(self, texts, rng):
        return [text.upper() for text in texts]


AUGMENTERS = {
    "identity": augment.Identity(),
    "insert": augment.RandomInsertion(0.3),
    "swap": augment.RandomSwap(0.3),
    "delete": augment.RandomDeletion(0.3),
    "synonym": augment.SynonymReplacement(0.3, SYNONYMS),
    "recombine": augment.SegmentRecombination(),
    "markov": augment.MarkovGenerator(),
    "hmm": augment.HMMGenerator(2, 3),
    "translation": augment.BackTranslation(Upper(), Upper()),
    "compose": augment.Compose(augment.RandomSwap(), augment.RandomDeletion(0.5)),
    "one of": augment.OneOf(augment.RandomSwap(), augment.MarkovGenerator()),
}
every = pytest.mark.parametrize("name", AUGMENTERS)


def one(augmenter, text, seed=0):
    (new,), _ = augmenter.augment([text], [0], np.random.default_rng(seed))
    return new


# ---------------------------------------------------------------- what all have in common


@every
@relaxed
@given(batch=BATCH, seed=SEED)
def test_one_text_each_labels_kept_same_seed_same_output(name, batch, seed):
    texts, labels = [t for t, _ in batch], [c for _, c in batch]
    before = list(texts)
    new, y = AUGMENTERS[name].augment(texts, labels, np.random.default_rng(seed))
    again, _ = AUGMENTERS[name].augment(texts, labels, np.random.default_rng(seed))
    assert texts == before
    assert new == again
    assert y.tolist() == labels
    assert y.dtype == np.int64
    # A text with words stays one, and an empty one stays empty: an encoder refuses empty texts.
    assert [bool(t.strip()) for t in new] == [bool(t.strip()) for t in texts]


@every
def test_no_texts_give_no_texts(name):
    new, y = AUGMENTERS[name].augment([], [], np.random.default_rng(0))
    assert new == []
    assert y.shape == (0,)


@every
def test_seeds_matter_where_there_is_a_choice(name):
    texts = ["a b c d, ab cd dd dc, ca da bb", "dd a c d b, b a d c, cc cb"]
    drawn = {
        tuple(AUGMENTERS[name].augment(texts, [0, 0], np.random.default_rng(seed))[0])
        for seed in range(8)
    }
    assert (len(drawn) > 1) is (name not in ("identity", "translation"))


@every
@pytest.mark.parametrize(
    ("texts", "labels", "error", "words"),
    [
        ("one text", [0], TypeError, "texts must be a list of str"),
        (["fine", 3], [0, 0], TypeError, r"texts\[1\] must be a str, got 3"),
        (["fine"], [0, 1], ValueError, "labels has 2 labels for 1 texts"),
        (["fine"], [-1], ValueError, "labels holds the label -1"),
        (["fine"], ["good"], TypeError, "labels must hold whole numbers"),
    ],
)
def test_bad_input_is_named(name, texts, labels, error, words):
    with pytest.raises(error, match=words):
        AUGMENTERS[name].augment(texts, labels, np.random.default_rng(0))


@pytest.mark.parametrize(
    "make",
    [augment.RandomSwap, augment.RandomInsertion, augment.RandomDeletion,
     augment.SynonymReplacement, augment.SegmentRecombination],
)  # fmt: skip
@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_is_a_share(make, strength):
    with pytest.raises(ValueError, match="strength must lie in"):
        make(strength)


# ---------------------------------------------------------------- the small operators


@relaxed
@given(text=TEXT, strength=STRENGTH, seed=SEED)
def test_swap_keeps_the_multiset_of_words(text, strength, seed):
    new = one(augment.RandomSwap(strength), text, seed)
    assert Counter(new.split()) == Counter(text.split())


def test_swap_moves_exactly_two_words_at_the_smallest_strength():
    words = [f"w{i}" for i in range(9)]
    for seed in range(20):
        new = one(augment.RandomSwap(0.0), " ".join(words), seed).split()
        assert sum(a != b for a, b in zip(words, new, strict=True)) == 2


@relaxed
@given(text=TEXT, strength=STRENGTH, seed=SEED)
def test_deletion_leaves_words_in_order_and_never_none(text, strength, seed):
    new = one(augment.RandomDeletion(strength), text, seed).split()
    left = iter(text.split())
    assert all(word in left for word in new)  # a subsequence
    assert bool(new) is bool(text.split())


def test_deletion_rate():
    words = [str(i) for i in range(10_000)]
    kept = len(one(augment.RandomDeletion(0.3), " ".join(words)).split())
    assert kept / 10_000 == pytest.approx(0.7, abs=0.02)  # five standard errors are 0.023


@relaxed
@given(text=TEXT, strength=STRENGTH, seed=SEED)
def test_insertion_adds_so_many_words_and_keeps_the_rest_in_order(text, strength, seed):
    old, new = text.split(), one(augment.RandomInsertion(strength), text, seed).split()
    pool = {strip_punctuation(word)[1].lower() for word in old} - {""}
    added = max(1, round(strength * len(old))) if pool else 0
    assert len(new) == len(old) + added
    rest = iter(new)
    assert all(word in rest for word in old)
    assert set((Counter(new) - Counter(old)).keys()) <= pool


def test_insertion_draws_from_the_own_class_only():
    texts, labels = ["good", "fine", "bad"], [1, 1, 0]
    for seed in range(20):
        new, _ = augment.RandomInsertion(1.0).augment(texts, labels, np.random.default_rng(seed))
        assert set(new[2].split()) == {"bad"}
        assert set(new[0].split()) <= {"good", "fine"}


@relaxed
@given(text=TEXT, strength=STRENGTH, seed=SEED)
def test_synonyms_replace_only_known_words_by_their_own(text, strength, seed):
    old = text.split()
    new = one(augment.SynonymReplacement(strength, SYNONYMS), text, seed).split()
    assert len(new) == len(old)
    changed = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    for a, b in changed:
        (left, core, right), (left2, core2, right2) = strip_punctuation(a), strip_punctuation(b)
        assert (left, right) == (left2, right2)
        assert core2.lower() in SYNONYMS[core.lower()]
    known = sum(strip_punctuation(word)[1].lower() in SYNONYMS for word in old)
    assert len(changed) == min(known, max(1, round(strength * len(old))))


def test_synonyms_keep_capitals_and_punctuation():
    table = augment.synonym_table([["film", "movie"]])
    replace = augment.SynonymReplacement(1.0, table)
    assert one(replace, 'Film? "film," FILM!') == 'Movie? "movie," MOVIE!'


def test_the_table_of_the_course_goes_both_ways_and_cannot_be_changed():
    table = augment.default_synonyms()
    assert len(table) > 500
    for word, others in table.items():
        assert word == word.lower()
        assert word not in others
        assert all(word in table[other] for other in others)
    with pytest.raises(TypeError):
        table["good"] = ("bad",)


def test_the_table_joins_no_opposites():
    table = augment.default_synonyms()
    opposites = [("good", "bad"), ("love", "hate"), ("best", "worst"), ("cold", "warm"),
                 ("slow", "fast"), ("new", "old"), ("always", "never"), ("loud", "quiet"),
                 ("buy", "return"), ("enjoyable", "boring"), ("funny", "dull")]  # fmt: skip
    for one_word, other in opposites:
        assert one_word in table or other in table
        assert other not in table.get(one_word, ())
        # Nor by one step more, which a composition of two replacements could take.
        assert not any(other in table[middle] for middle in table.get(one_word, ()))


def test_a_group_of_one_word_is_refused():
    with pytest.raises(ValueError, match=r"groups holds \['film'\]"):
        augment.synonym_table([["film", "Film"]])


# ---------------------------------------------------------------- segments


@relaxed
@given(text=TEXT)
def test_segments_are_the_text(text):
    assert [word for segment in segments(text) for word in segment] == text.split()


def test_segments_end_at_punctuation():
    text = 'It broke, sadly. "Never again!" I said'
    assert [" ".join(s) for s in segments(text)] == [
        "It broke,", "sadly.", '"Never again!"', "I said",
    ]  # fmt: skip


def is_made_of(words, parts, n):
    """Whether the words are n of the parts, one after the other."""
    if n == 0:
        return not words
    return any(
        words[: len(part)] == part and is_made_of(words[len(part) :], parts, n - 1)
        for part in parts
    )


@relaxed
@given(batch=BATCH, strength=STRENGTH, seed=SEED)
def test_recombined_texts_are_made_of_segments_of_their_class(batch, strength, seed):
    texts, labels = [t for t, _ in batch], [c for _, c in batch]
    augmenter = augment.SegmentRecombination(strength)
    new, _ = augmenter.augment(texts, labels, np.random.default_rng(seed))
    for text, made, label in zip(texts, new, labels, strict=True):
        own = [s for t, c in batch if c == label for s in segments(t)]
        assert is_made_of(made.split(), own, len(segments(text)))
        if strength == 0:
            assert made.split() == text.split()


def test_recombination_keeps_openings_in_front_and_closings_at_the_end():
    texts = ["open one, middle one, close one.", "open two, middle two, close two."]
    new = set()
    for seed in range(40):
        drawn, _ = augment.SegmentRecombination(1.0).augment(
            texts, [0, 0], np.random.default_rng(seed)
        )
        new.update(drawn)
    assert len(new) == 8
    assert all([w for w in t.split() if w.isalpha()][::2] for t in new)
    assert all(t.startswith("open") and " middle " in t and t.split()[4] == "close" for t in new)


# ---------------------------------------------------------------- putting together


def test_a_composition_is_one_after_the_other():
    table = augment.synonym_table([["film", "movie"]])
    delete, replace = augment.RandomDeletion(0.5), augment.SynonymReplacement(1.0, table)
    texts, labels = ["the film was a fine film"] * 3, [0, 1, 2]
    made, y = augment.Compose(delete, replace).augment(texts, labels, np.random.default_rng(3))
    first, second = np.random.default_rng(3).spawn(2)
    middle, labels_between = delete.augment(texts, labels, first)
    expected, _ = replace.augment(middle, labels_between, second)
    assert made == expected
    assert y.tolist() == labels
    assert not any("film" in text for text in made)


def test_a_mixture_takes_each_text_from_one_of_its_parts():
    texts = [f"x{i} y{i}" for i in range(40)]
    mixture = augment.OneOf(augment.Identity(), augment.RandomSwap())
    new, _ = mixture.augment(texts, [0] * 40, np.random.default_rng(0))
    same = sum(a == b for a, b in zip(texts, new, strict=True))
    assert 5 < same < 35
    with pytest.raises(ValueError, match="parts has no augmenter"):
        augment.OneOf()


def test_extend_puts_originals_first_and_shares_the_weight():
    texts, labels = ["one two three", "four five six"], [1, 0]
    new, y, weights = augment.extend(
        texts, labels, augment.RandomSwap(), 3, np.random.default_rng(0)
    )
    assert new[:2] == texts
    assert y.tolist() == [1, 0] * 4
    assert weights.tolist() == [0.25] * 8
    for i, text in enumerate(new):
        assert Counter(text.split()) == Counter(texts[i % 2].split())
    assert augment.extend(texts, labels, augment.RandomSwap(), 0, np.random.default_rng(0))[0] == (
        texts
    )
    with pytest.raises(ValueError, match="copies must lie in"):
        augment.extend(texts, labels, augment.RandomSwap(), -1, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["swap", "delete", "synonym", "compose"])
def test_a_copy_does_not_depend_on_the_texts_that_follow(name):
    texts = ["a b c, ab cd", "b d ab cd a", "c d a, ba"]
    few, _, _ = augment.extend(texts[:2], [0, 1], AUGMENTERS[name], 2, np.random.default_rng(5))
    more, _, _ = augment.extend(texts, [0, 1, 0], AUGMENTERS[name], 2, np.random.default_rng(5))
    assert few == [more[i] for i in (0, 1, 3, 4, 6, 7)]


# ---------------------------------------------------------------- words


def test_tokens_and_back():
    text = "I can't (really) say: it's 5 o'clock, \"fine\"!"
    found = tokens(text)
    assert found[:6] == ["i", "can't", "(", "really", ")", "say"]
    assert tokens(join_tokens(found)) == found
    assert join_tokens(["it", "'s", "fine", ",", "(", "so", ")", "."]) == "it's fine, (so)."


@relaxed
@given(text=TEXT)
def test_a_word_is_the_sum_of_its_parts(text):
    for word in text.split():
        before, core, after = strip_punctuation(word)
        assert before + core + after == word
