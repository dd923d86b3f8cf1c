"""The sequence models: counts, all paths of a tiny model, and a likelihood that never falls."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot_course.data.augment import (
    HiddenMarkovModel,
    HMMGenerator,
    MarkovChain,
    MarkovGenerator,
)
from fewshot_course.data.augment.hmm import backward, expected_counts, forward, maximise
from fewshot_course.data.augment.words import tokens

SEQUENCES = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6), min_size=1,
                     max_size=5)  # fmt: skip
relaxed = settings(max_examples=40, derandomize=True, deadline=None)

# ---------------------------------------------------------------- Markov chain


@relaxed
@given(texts=SEQUENCES, smoothing=st.sampled_from([0.0, 0.5]))
def test_probabilities_are_counts_over_counts(texts, smoothing):
    chain = MarkovChain(smoothing).fit(texts)
    words = chain.vocabulary_
    V = len(words)
    pairs = [pair for text in texts for pair in itertools.pairwise([*text, "END"])]
    for i, a in enumerate(words):
        first = sum(text[0] == a for text in texts)
        assert chain.start_[i] == pytest.approx((first + smoothing) / (len(texts) + smoothing * V))
        follow = sum(pair[0] == a for pair in pairs)
        for j, b in enumerate([*words, "END"]):
            n = pairs.count((a, b))
            expected = (n + smoothing) / (follow + smoothing * (V + 1))
            assert chain.transitions_[i, j] == pytest.approx(expected)


def test_markov_likelihood_by_hand():
    chain = MarkovChain().fit([list("ab"), list("aa")])
    # a starts; after a come a, b, END once each; after b comes END.
    assert chain.log_likelihood([list("ab")]) == pytest.approx(np.log(1 * 1 / 3 * 1))
    assert chain.log_likelihood([list("aab")]) == pytest.approx(np.log(1 / 3 * 1 / 3))
    assert chain.log_likelihood([list("b")]) == -np.inf
    assert chain.log_likelihood([list("az")]) == -np.inf


def test_no_other_chain_makes_the_texts_likelier():
    texts = [list("abca"), list("bca"), list("ab")]
    chain = MarkovChain().fit(texts)
    best = chain.log_likelihood(texts)
    rng = np.random.default_rng(0)
    fitted = chain.transitions_
    for _ in range(20):
        other = fitted * rng.uniform(0.5, 1.5, fitted.shape)
        chain.transitions_ = other / other.sum(1, keepdims=True)
        assert chain.log_likelihood(texts) < best


def test_markov_samples_have_the_fitted_frequencies():
    chain = MarkovChain().fit([list("ab"), list("ab"), list("aab"), list("b")])
    rng = np.random.default_rng(0)
    drawn = ["".join(chain.sample(rng, 50)) for _ in range(4000)]
    for text in ("b", "ab", "aab"):
        expected = np.exp(chain.log_likelihood([list(text)]))
        assert drawn.count(text) / 4000 == pytest.approx(expected, abs=0.03)
    assert all(np.isfinite(chain.log_likelihood([list(text)])) for text in set(drawn))


def test_a_loop_is_cut():
    chain = MarkovChain().fit([list("a" * 50)])
    assert max(len(chain.sample(np.random.default_rng(s), 7)) for s in range(10)) == 7


# ---------------------------------------------------------------- HMM against all paths


def tiny(seed, n_states=2, n_words=3):
    rng = np.random.default_rng(seed)
    return (
        rng.dirichlet(np.ones(n_states)),
        rng.dirichlet(np.ones(n_states), size=n_states),
        rng.dirichlet(np.ones(n_words), size=n_states),
    )


def paths(model, sequence):
    """Every path of hidden states with its joint probability p(w, s)."""
    start, transitions, emissions = model
    for states in itertools.product(range(len(start)), repeat=len(sequence)):
        p = start[states[0]] * emissions[states[0], sequence[0]]
        for t in range(1, len(sequence)):
            p *= transitions[states[t - 1], states[t]] * emissions[states[t], sequence[t]]
        yield states, p


def padded(sequences):
    width = max(map(len, sequences))
    words = np.array([[*s, *[0] * (width - len(s))] for s in sequences])
    return words, np.arange(width) < np.array([[len(s)] for s in sequences])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n_states", [1, 2, 3])
def test_expected_counts_are_sums_over_all_paths(seed, n_states):
    model = tiny(seed, n_states)
    sequences = [[0, 1, 2, 1], [2], [1, 1, 0]]
    start, transitions, emissions = (np.zeros_like(part) for part in model)
    log_likelihood = 0.0
    for sequence in sequences:
        every = list(paths(model, sequence))
        total = sum(p for _, p in every)
        log_likelihood += np.log(total)
        for states, p in every:
            start[states[0]] += p / total
            for t, state in enumerate(states):
                emissions[state, sequence[t]] += p / total
                if t:
                    transitions[states[t - 1], state] += p / total
    found = expected_counts(*model, *padded(sequences))
    assert found.log_likelihood == pytest.approx(log_likelihood, rel=1e-12)
    np.testing.assert_allclose(found.start, start, rtol=1e-10)
    np.testing.assert_allclose(found.transitions, transitions, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(found.emissions, emissions, rtol=1e-10, atol=1e-14)


def test_forward_and_backward_give_the_posterior_of_each_state():
    model, sequence = tiny(4), [1, 0, 2, 2]
    words, mask = padded([sequence])
    likelihoods = model[2].T[words]
    alpha, scale = forward(model[0], model[1], likelihoods, mask)
    beta = backward(model[1], likelihoods, mask, scale)
    every = list(paths(model, sequence))
    total = sum(p for _, p in every)
    for t in range(4):
        expected = [sum(p for s, p in every if s[t] == k) / total for k in range(2)]
        np.testing.assert_allclose((alpha * beta)[0, t], expected, rtol=1e-12)


@relaxed
@given(texts=SEQUENCES, n_states=st.integers(1, 4), seed=st.integers(0, 1000))
def test_the_likelihood_never_falls(texts, n_states, seed):
    model = HiddenMarkovModel(n_states, 15, tolerance=0.0).fit(texts, np.random.default_rng(seed))
    climbed = model.log_likelihoods_
    assert np.isfinite(climbed).all()
    assert (np.diff(climbed) >= -1e-9 * np.abs(climbed[:-1])).all()
    assert model.log_likelihood(texts) == pytest.approx(climbed[-1])
    for rows in (model.start_[None], model.transitions_, model.emissions_):
        np.testing.assert_allclose(rows.sum(1), 1)


def test_a_wrong_m_step_is_caught_by_the_likelihood():
    """The planted fault: transitions whose rows and columns are mixed up make it fall."""
    sequences = padded([[0, 1, 0, 1, 2], [0, 1, 2], [0, 1, 0, 1, 0, 1, 2]])

    def climb(step):
        model, values = tiny(0), []
        for _ in range(10):
            found = expected_counts(*model, *sequences)
            values.append(found.log_likelihood)
            model = step(found)
        return np.diff(values)

    def transposed(found):
        start, transitions, emissions = maximise(found)
        wrong = transitions.T
        return start, wrong / wrong.sum(1, keepdims=True), emissions

    assert (climb(maximise) >= -1e-12).all()
    assert (climb(transposed) < -1e-6).any()


def test_one_state_is_the_unigram_model():
    texts = [list("aab"), list("ab"), list("b")]
    model = HiddenMarkovModel(1).fit(texts, np.random.default_rng(0))
    # 3 a, 3 b, 3 ends of 9 symbols
    np.testing.assert_allclose(model.emissions_, [[1 / 3, 1 / 3, 1 / 3]])


def test_two_states_learn_to_alternate():
    texts = [list("ab" * k) for k in (2, 3, 4)]
    fits = [HiddenMarkovModel(3, 200, 0.0).fit(texts, np.random.default_rng(s)) for s in range(5)]
    best = max(fits, key=lambda m: m.log_likelihoods_[-1])
    rng = np.random.default_rng(0)
    drawn = ["".join(best.sample(rng, 40)) for _ in range(50)]
    assert all("aa" not in text and "bb" not in text for text in drawn)


def test_hmm_likelihood_of_the_unseen_and_of_all_short_texts():
    model = HiddenMarkovModel(2, 3).fit([list("ab"), list("ba")], np.random.default_rng(1))
    assert model.log_likelihood([list("az")]) == -np.inf
    short = [list(t) for k in range(3) for t in itertools.product("ab", repeat=k)]
    p = {"".join(t): np.exp(model.log_likelihood([t])) for t in short}
    rng = np.random.default_rng(0)
    drawn = ["".join(model.sample(rng, 30)) for _ in range(4000)]
    for text, probability in p.items():
        assert drawn.count(text) / 4000 == pytest.approx(probability, abs=0.03)


@pytest.mark.parametrize(
    "fit",
    [MarkovChain().fit, lambda texts: HiddenMarkovModel().fit(texts, np.random.default_rng(0))],
)
def test_models_need_words(fit):
    with pytest.raises(ValueError, match="sequences has no words"):
        fit([[], []])


# ---------------------------------------------------------------- generators


@pytest.mark.parametrize("generator", [MarkovGenerator(), HMMGenerator(3, 5)])
def test_generated_texts_use_words_of_their_class_and_are_not_endless(generator):
    texts = ["It broke, it broke.", "The lid broke!", "Lovely lid.", ""]
    labels = [0, 0, 1, 0]
    for seed in range(10):
        new, _ = generator.augment(texts, labels, np.random.default_rng(seed))
        assert new[3] == ""
        own = set(tokens(texts[0]) + tokens(texts[1]))
        for text in new[:2]:
            assert set(tokens(text)) <= own
            assert 1 <= len(tokens(text)) <= 2 * 6
        assert set(tokens(new[2])) <= {"lovely", "lid", "."}


def test_pairs_of_a_markov_text_were_seen():
    texts = ["a b c a d", "b a c d", "d a b"]
    seen = {p for t in texts for p in itertools.pairwise(t.split())}
    new, _ = MarkovGenerator().augment(texts * 5, [0] * 15, np.random.default_rng(0))
    assert all(pair in seen for text in new for pair in itertools.pairwise(text.split()))
    assert any(text not in texts for text in new)
