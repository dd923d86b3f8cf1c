"""One right call of every public function: what tests change one argument of.

``shared(folder)`` and ``of_framework(framework, bert)`` return name → keyword arguments.  A public
function is one that its module names in ``__all__``; the few without a call stand in
``LEFT_OUT``, with the reason.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import every_estimator
import numpy as np
from matplotlib.figure import Figure

import fewshot_course
from fewshot_course.both.bert import BertConfig
from fewshot_course.frameworks import framework_module

ROOT = Path(__file__).parents[2]
Calls = dict[str, dict[str, Any]]


class Adapter:
    """The least that a check of an adapter needs."""

    def fit(self, X: Any, y: Any, target: Any) -> Adapter:
        self.label = int(np.asarray(y)[0])
        return self

    def predict(self, X: Any) -> np.ndarray:
        return np.arange(len(X)) % 2


LEFT_OUT = {
    "cli.main": "takes no arguments; commands have a table of their own",
    "data.minilm.locate_minilm": "takes no arguments",
    "data.minilm.minilm_folder": "takes no arguments",
    "exercises.available": "takes no arguments",
    "experiments.doctor.advice": "takes no arguments",
    "experiments.doctor.devices": "takes no arguments",
    "experiments.doctor.packages": "takes no arguments",
    "experiments.networks.train_networks": "trains; its plans are checked by load_plans",
    "experiments.networks.try_settings": "trains; its plans are checked by load_plans",
    "experiments.characters.train": "trains; its settings are checked by load_plans",
    "experiments.characters.count_correct": "takes a trained network",
    "experiments.domains.answers": "takes a trained network",
    "experiments.domains.train": "trains; its settings are checked by load_plans",
    "experiments.characters.sampler": "a helper of the two above",
    "experiments.characters.score_part": "a helper of the two above",
    "experiments.leaderboard.run": "called by the runner with checked cells",
    "experiments.leaderboard.draw": "called by the runner with checked cells",
    "experiments.runner.place_cells": "called by the runner with checked cells",
    "experiments.runner.run_cell": "called by the runner with checked cells",
    "experiments.runner.run_cells": "called by the runner with checked cells",
    "experiments.sweep.cells_of": "a part of load_sweep",
    "experiments.estimate.estimate_costs": "times trainings; the command has its own tests",
    "experiments.registry.setting": "declares a field of a class while a module is loaded",
    "experiments.registry.field_type": "declares a field of a class while a module is loaded",
    "pseudo_label_loop.pseudo_label_loop": "fits classifiers: among the estimators",
    "torch.encoder.load_encoder": "checked with crafted folders in test_encoder",
    "tf.encoder.load_encoder": "checked with crafted folders in test_encoder",
}


def public_functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield the public functions by name, without the package's own: ``torch.vae.elbo``."""
    for module in pkgutil.walk_packages(fewshot_course.__path__, "fewshot_course."):
        short = module.name.partition(".")[2]
        if any(part.startswith("_") for part in short.split(".")):
            continue
        loaded = importlib.import_module(module.name)
        for name in getattr(loaded, "__all__", ()):
            function = getattr(loaded, name)
            if inspect.isfunction(function) and function.__module__ == module.name:
                yield f"{short}.{name}", function


def shared(folder: Path) -> Calls:
    """Return the calls of functions that need no framework."""
    from fewshot_course.cold_start import Prior, Ratings
    from fewshot_course.data.augment import SynonymReplacement, hmm
    from fewshot_course.experiments.results import append_result, read_results
    from fewshot_course.experiments.standings import standings
    from fewshot_course.weights import save_arrays

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 3)), np.arange(12) % 2
    images = rng.uniform(size=(4, 6, 6))
    proba = np.full((12, 2), 0.5)
    start, transitions = np.full(2, 0.5), np.full((2, 2), 0.5)
    words, mask = np.zeros((3, 4), np.int64), np.ones((3, 4), bool)
    hidden = {"start": start, "transitions": transitions}
    seen = rng.uniform(0.1, 1, size=(3, 4, 2))
    ratings = Ratings(rng.normal(size=(3, 3, 2)), rng.normal(size=(3, 3)))
    prior = Prior(np.zeros(2), np.eye(2), 1.0)
    few, file = np.array([0, 1]), folder / "weights.safetensors"
    save_arrays(file, {"a": X}, {})
    (folder / "texts.csv").write_text("text,label\n" + "good,1\nbad,0\n" * 3)
    (folder / "sweep.yaml").write_text("experiment: pseudo-labels\nseeds: 2\n")
    results = read_results(ROOT / Path("results/leaderboard.jsonl"))
    results = [r for r in results if r.config["data"] == "tickets"][:40]
    rows, axes = standings(results), Figure().subplots()
    append_result(folder / "results.jsonl", results[0])

    def nearest(X_train: Any, y_train: Any, X_query: Any) -> Any:
        return np.asarray(y_train)[
            [np.abs(X_train - x).sum(1).argmin() for x in np.asarray(X_query)]
        ]

    pipeline = {"predict": nearest, "X_train": X, "y_train": y, "X_query": X[:4] + 0.01}
    selection = {
        "make_estimator": lambda: None, "X_source": X, "y_source": y, "X_target": X,
        "rng": np.random.default_rng(0), "held_out": 0.25,
    }  # fmt: skip
    return {
        "checkpoints.check_folder": {"folder": folder},
        "checkpoints.load_checkpoint": {"folder": folder, "fingerprint": {"a": 1}},
        "checkpoints.lock_folder": {"folder": folder},
        "checkpoints.save_checkpoint": {
            "folder": folder, "arrays": {"a": X}, "meta": {"step": 1}, "fingerprint": {"a": 1},
        },
        "label_shift.black_box_shares": {
            "confusion": np.array([[0.4, 0.1], [0.1, 0.4]]), "predicted_shares": start,
        },
        "label_shift.confusion_shares": {"y": y, "predicted": y, "n_classes": 2},
        **{
            f"label_shift.{name}": {
                "proba": proba, "source_shares": start, "target_shares": start,
            }
            for name in ("corrected_posteriors", "em_step", "log_likelihood")
        },
        "label_shift.em_shares": {
            "proba": proba, "source_shares": start, "tolerance": 1e-8, "max_steps": 5,
        },
        "cold_start.fit_prior": {"data": ratings, "steps": 2},
        "cold_start.log_likelihood": {"data": ratings, "prior": prior},
        "cold_start.posterior_taste": {"data": ratings, "prior": prior},
        "cold_start.recommend": {"items": X, "taste": X[0], "n": 2},
        "data.augment.hmm.backward": {
            "transitions": transitions, "likelihoods": seen, "mask": mask,
            "scale": hmm.forward(likelihoods=seen, mask=mask, **hidden)[1],
        },
        "data.augment.hmm.expected_counts": {
            **hidden, "emissions": np.full((2, 5), 0.2), "words": words, "mask": mask,
        },
        "data.augment.hmm.forward": {**hidden, "likelihoods": seen, "mask": mask},
        "data.augment.hmm.maximise": {
            "found": hmm.expected_counts(
                emissions=np.full((2, 5), 0.2), words=words, mask=mask, **hidden
            )
        },
        "data.augment.interface.check_pairs": {"texts": ["a b", "c"], "labels": [0, 1]},
        "data.augment.interface.extend": {
            "texts": ["a good film", "bad"], "labels": [0, 1], "augmenter": SynonymReplacement(),
            "copies": 1, "rng": np.random.default_rng(0),
        },
        "data.augment.synonyms.synonym_table": {"groups": [["big", "large"]]},
        "data.augment.words.join_tokens": {"sequence": ["a", ","]},
        "data.augment.words.segments": {"text": "a, b"},
        "data.augment.words.strip_punctuation": {"word": "a,"},
        "data.augment.words.tokens": {"text": "a, b"},
        "data.images.frame_digits": {"X": images, "size": (8, 8)},
        "data.images.resize_images": {"X": images, "size": (8, 8)},
        "data.images.vary_digits": {
            "X": images, "size": (8, 8), "rng": np.random.default_rng(0), "slant": 0.1,
            "stroke": 1.0, "aspect": (0.5, 0.9),
        },
        "data.images.rotate_images": {"X": images, "degrees": 30.0},
        "data.minilm.file_sha256": {"path": file},
        "data.omniglot.character_parts": {
            "class_names": [f"c{n}" for n in range(9)], "n_train": 6, "n_validation": 2, "seed": 0,
        },
        "data.omniglot.quarter_turns": {"X": images, "y": np.arange(4)},
        "data.registry.load_dataset": {"name": "tickets", "split": "all"},
        "data.registry.where": {"name": "tickets"},
        "data.splits.few_shot_split": {
            "y": y, "shots": 1, "rng": 0, "n_validation": 2, "n_test": 4,
        },
        "data.splits.mask_labels": {"y": y, "labelled": few},
        "data.text_files.load_csv": {"path": folder / "texts.csv"},
        "evaluation.embedding_quality.fit_class_gaussians": {"features": X, "labels": y},
        "evaluation.embedding_quality.label_agreement": {"probabilities": proba, "labels": y},
        "evaluation.embedding_quality.nearest_novelty": {"features": X, "originals": X},
        "evaluation.embedding_quality.shrunk_covariance": {"deviations": X},
        "evaluation.calibration.confidence_and_correct": {"y_true": y, "proba": proba},
        "evaluation.calibration.reliability_bins": {
            "confidence": proba[:, 0], "correct": y, "n_bins": 5,
        },
        "evaluation.calibration.expected_calibration_error": {
            "confidence": proba[:, 0], "correct": y, "n_bins": 5,
        },
        "evaluation.intervals.mean_interval": {"scores": X[:, 0], "confidence": 0.9},
        "evaluation.intervals.paired_difference": {
            "a": X[:, 0], "b": X[:, 1], "confidence": 0.9,
        },
        "evaluation.intervals.accuracy_interval": {
            "correct": np.eye(3), "confidence": 0.9,
        },
        "evaluation.intervals.accuracy_difference": {
            "a": np.eye(3), "b": np.ones((3, 3)), "confidence": 0.9,
        },
        "evaluation.intervals.holm": {"p_values": np.array([0.1, 0.2])},
        "evaluation.scores.accuracy": {"y_true": y, "y_pred": y},
        "evaluation.generated.active_units": {"means": X, "threshold": 0.01},
        "evaluation.generated.class_histogram": {"labels": y, "classes": [0, 1]},
        "evaluation.generated.coverage": {"samples": X, "X": X, "neighbours": 2},
        "evaluation.generated.nearest_distances": {"samples": X, "X": X},
        "evaluation.generated.variety": {"samples": X, "X": X},
        "evaluation.leaks.check_chance_level": {
            "evaluate": lambda X, y, rng: 0.5, "X": X, "y": y, "rng": 0, "chance": 0.5,
            "draws": 3, "confidence": 0.9,
        },
        "evaluation.leaks.check_disjoint": {"train": few, "test": few + 2},
        "evaluation.leaks.check_distinct_classes": {"classes": np.array([[0, 0], [1, 1], [2, 2]])},
        "evaluation.leaks.check_label_names": {**pipeline, "rng": 0},
        "evaluation.leaks.check_no_near_duplicates": {
            "X_train": X, "X_test": X + 9, "tolerance": 0.1,
        },
        "evaluation.leaks.check_one_query_at_a_time": dict(pipeline),
        "evaluation.leaks.check_query_order": {**pipeline, "rng": 0},
        "evaluation.leaks.check_test_labels_unused": {
            "run": lambda X, y, Xt, yt: np.zeros(len(Xt), int), "X_train": X, "y_train": y,
            "X_test": X, "y_test": y, "rng": 0, "repeats": 1,
        },
        "evaluation.selection.mean_entropy": {"proba": proba},
        "evaluation.selection.mutual_information": {"proba": proba},
        "evaluation.selection.soft_neighbourhood_density": {"proba": proba, "temperature": 0.05},
        "evaluation.selection.source_validation_score": {**selection, "make_estimator": Adapter},
        "evaluation.selection.reverse_validation_score": {**selection, "make_estimator": Adapter},
        "exercises.exercise": {"name": "kl.gaussian_kl"},
        "exercises.check": {
            "name": "kl.gaussian_kl", "answer": lambda *a: 0.0, "framework": "numpy",
        },
        "experiments.characters.read_parts": {"data": {"name": "glyphs", "size": 14}},
        "experiments.domains.read_parts": {
            "data": {"data": "mnist5k->uci_digits", "draw": 0, "image_size": 8, "n_source": 20,
                     "n_target": 20, "n_test": 20},
        },
        "experiments.estimate.extrapolate": {
            "few": [1.0, 1.1], "more": [2.0, 2.1], "counts": (10, 20), "steps": 100,
        },
        "experiments.estimate.price": {"seconds": 3.0, "an_hour": 2.0},
        "experiments.leaderboard.cells": {
            "data": ["tickets"], "methods": ["probe"], "frameworks": ["torch"], "preset": "quick",
        },
        "experiments.networks.load_card": {"name": "glyphs-anil-seed0"},
        "experiments.networks.load_network": {
            "name": "glyphs-anil-seed0", "framework": "torch",
        },
        "experiments.networks.load_plans": {"path": ROOT / Path("results/networks.yaml")},
        "experiments.networks.repeat_first_steps": {
            "name": "glyphs-anil-seed0", "framework": "torch",
        },
        "experiments.networks.repeat_scores": {
            "name": "glyphs-anil-seed0", "framework": "torch", "n": 2,
        },
        "experiments.estimate.total": {"costs": [], "jobs": 1},
        "experiments.results.append_result": {
            "path": folder / "results.jsonl", "result": results[0],
        },
        "experiments.results.place_answers": {
            "right": np.array([True, False]), "items": np.array([2, 0]), "n_items": 4,
        },
        "experiments.results.pack_answers": {"correct": np.array([1.0, 0.0, np.nan])},
        "experiments.results.unpack_answers": {"text": "8:AA=="},
        "experiments.results.read_results": {"path": folder / "results.jsonl"},
        "experiments.runner.limit_threads": {"threads": 1},
        "experiments.standing_plots.against_seconds": {
            "rows": rows, "data": "tickets", "shots": rows[0].shots, "ax": axes,
        },
        "experiments.standing_plots.against_shots": {
            "rows": rows, "data": "tickets", "ax": axes,
        },
        "experiments.standing_plots.best_of_families": {"rows": rows, "data": "tickets"},
        "experiments.standings.framework_gaps": {"rows": rows},
        "experiments.standings.standings": {"results": results},
        "experiments.standings.standings_table": {"rows": rows, "caption": "x"},
        "experiments.summary.is_percent": {"metric": "accuracy"},
        "experiments.summary.summarise": {"results": results},
        "experiments.tables.comparison_table": {"results": results, "caption": "x"},
        "experiments.tables.load": {"path": ROOT / Path("results/maml.jsonl")},
        "experiments.tables.matches": {"result": results[0]},
        "experiments.tables.wide_table": {
            "results": results[:1], "caption": "x", "across": "shots",
        },
        "experiments.sweep.load_sweep": {"path": folder / "sweep.yaml"},
        "small_network.dropout_mask": {
            "shape": (2, 3), "rate": 0.5, "rng": np.random.default_rng(0),
        },
        "small_network.log_softmax": {"scores": X},
        "small_network.regularised_risk": {
            "parameters": {
                "W1": rng.normal(size=(3, 4)), "b1": np.zeros(4),
                "W2": rng.normal(size=(4, 2)), "b2": np.zeros(2),
            },
            "X": X, "y": y, "weight_decay": 0.1,
        },
        "weights.check_layout": {"arrays": {"a": X}, "shapes": {"a": X.shape}},
        "weights.initial_weights": {
            "shapes": {"head.weight": (2, 3)}, "rng": np.random.default_rng(0), "dtype": "float32",
        },
        "weights.load_arrays": {"path": file},
        "weights.part_of": {"arrays": {"a.b": X}, "name": "a"},
        "weights.save_arrays": {"path": file, "arrays": {"a": X}, "header": {}},
    }  # fmt: skip


def of_framework(framework: str, bert: Any) -> Calls:
    """Return the calls of one framework's functions, on its tensors.

    Args:
        framework: "torch" or "tensorflow".
        bert: folder of a small text encoder.
    """
    package = "torch" if framework == "torch" else "tf"
    tools = {name: framework_module(framework, name) for name in MODULES}
    tensor = TENSORS[framework]()
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return tensor(rng.normal(size=shape).astype(np.float32))

    def classes(*shape: int) -> Any:
        return tensor(np.arange(np.prod(shape)).reshape(shape) % 2)

    def positive(*shape: int) -> Any:
        return tensor(rng.uniform(0.1, 1, size=shape).astype(np.float32))

    def doubles(*shape: int) -> Any:
        return tensor(rng.normal(size=shape))

    def log_shares(*shape: int) -> Any:
        return tensor(np.full(shape, -np.log(shape[-1]), np.float32))

    networks, meta = tools["networks"], tools["meta_networks"]
    network = networks.build("mlp", (4,), 2, rng)
    theta = meta.parameters_of(network)
    expanded = meta.expand(theta, 2)
    mixture = tools["gmm"].Mixture(tensor(np.full(2, 0.5)), doubles(2, 3), tensor(np.ones((2, 3))))
    held = {"X": doubles(8, 3), "mixture": mixture, "covariance_type": "diag"}
    sums = tools["gmm"].statistics(held["X"], tensor(np.full((8, 2), 0.5)), "diag")
    Codes = tools["kl_adaptation"].Codes
    codes = [Codes(draw(6, 3), draw(6, 3), draw(6, 3)) for _ in range(2)]
    episode = (draw(2, 4, 4), classes(2, 4), draw(2, 6, 4), classes(2, 6))
    kernel = {"X_source": doubles(8, 3), "centres": doubles(4, 3), "width": 1.0}
    whole = {**kernel, "X_target": doubles(6, 3), "tolerance": 0.1, "max_steps": 5}
    logits = {"logits": draw(6, 2), "labels": classes(6)}
    weights = [tensor(np.ones((2, 3), np.float32))]
    labelled = (draw(6, 4), classes(6), positive(6))
    latent = {"mean": draw(6, 3), "log_var": draw(6, 3)}
    ends = {
        "mean_p": draw(6, 3),
        "log_var_p": draw(6, 3),
        "mean_q": draw(6, 3),
        "log_var_q": draw(6, 3),
    }
    full = {
        "mean_p": doubles(3), "cov_p": tensor(np.eye(3)),
        "mean_q": doubles(3), "cov_q": tensor(2 * np.eye(3)),
    }  # fmt: skip

    fits = {name: fit for name, (fit, _) in every_estimator.fits(framework, bert).items()}
    fitted = {
        name: fits[name]()
        for name in (
            "KLAdapter",
            "GANPseudoLabeler",
            "TextClassifier",
            "ImageClassifier",
        )
    }
    vae = (
        framework_module(framework)
        .VAEPseudoLabeler(
            "m1m2", latent_dim=3, hidden=(5,), steps=2, feature_steps=2, random_state=0
        )
        .fit(rng.uniform(size=(8, 4)), np.arange(8) % 2, device="cpu")
    )
    discriminator = fitted["GANPseudoLabeler"].network_
    network_of_texts = fitted["TextClassifier"].network_
    variables = list(theta.values())
    ids = tensor(np.ones((3, 4), np.int64))

    def square(parameters: Any) -> Any:
        return (parameters["a"] * parameters["a"])[0, 0]

    one = {"a": tensor(np.ones((2, 3), np.float32))}
    if framework == "torch":
        one["a"].requires_grad_()

    calls: Calls = {
        "adabn.adapt_batch_norm": {
            "network": networks.build("conv4", (4, 4), 2, rng),
            "blocks": [positive(3, 4, 4), positive(2, 4, 4)],
        },
        "alignment.coral_loss": {"source": draw(6, 3), "target": draw(5, 3)},
        "alignment.mmd_loss": {"source": draw(6, 3), "target": draw(5, 3)},
        "alignment.domain_loss": {"logits_source": draw(6, 1), "logits_target": draw(5, 1)},
        "alignment.reverse_gradient": {"x": draw(6, 3), "factor": 1.0},
        "compression.distillation_loss": {
            "student_logits": draw(6, 2), "teacher_logits": draw(6, 2), "labels": classes(6),
            "temperature": 2.0, "alpha": 0.5,
        },
        "divergences.batch_moments": dict(latent),
        "divergences.categorical_kl": {"log_p": log_shares(6, 3), "log_q": log_shares(6, 3)},
        "divergences.full_gaussian_kl": full,
        "divergences.gaussian_kl": dict(ends),
        "divergences.gaussian_log_prob": {"x": draw(6, 3), **latent},
        "divergences.mixture_kl": {"z": draw(6, 3), **ends, "leave_one_out": True},
        "divergences.mixture_log_prob": {"z": draw(6, 3), **latent, "leave_one_out": True},
        "divergences.monte_carlo_kl": {"log_p": draw(6), "log_q": draw(6)},
        "encoder.dropout_masks": {
            "config": BertConfig(100, 8, 1, 2, 16, 20, 2), "shape": (2, 3), "p": 0.1,
            "rng": np.random.default_rng(0), "device": "cpu", "dtype": "float32",
        },
        "encoder.low_rank_update": {
            "x": draw(6, 4), "lora_A": draw(2, 4), "lora_B": draw(3, 2), "alpha": 1.0,
        },
        "encoder.mean_pool": {"sequence": draw(2, 3, 4), "mask": tensor(np.ones((2, 3)))},
        "fast_weights.outputs_after_step": {
            "theta": theta, "X_support": episode[0],
            "support_loss": lambda outputs: tools["maml"].task_loss(outputs, episode[1]),
            "X_query": episode[2], "lr": 0.1,
        },
        "frozen_body.base_loss": {
            "network": network, "head": lambda features: features[:, :2], "X": draw(6, 4),
            "y": classes(6),
        },
        "fine_tuning.contrastive_pair_loss": {"features": draw(6, 3), "labels": classes(6)},
        "fine_tuning.l2_sp_penalty": {"weights": weights, "start": weights},
        "fine_tuning.softmax_cross_entropy": {**logits, "weights": positive(6)},
        "fine_tuning.softmax_gradient": dict(logits),
        "gan.discriminator_loss": {
            "labelled": draw(6, 2), "labels": classes(6), "unlabelled": draw(5, 2),
            "generated": draw(4, 2),
        },
        "gan.feature_matching_loss": {"real": draw(6, 3), "generated": draw(5, 3)},
        "gan.log_partition": {"logits": draw(6, 2)},
        "gan.plain_generator_loss": {"generated": draw(6, 2)},
        "gan.real_probability": {"logits": draw(6, 2)},
        "gmm.e_step": dict(held),
        "gmm.em": {**held, "floor": 1e-3, "max_iter": 2, "tol": 1e-3},
        "gmm.em_step": {**held, "floor": 1e-3},
        "gmm.log_density": {"mixture": mixture, "covariance_type": "diag"},
        "gmm.m_step": {"sums": sums, "covariance_type": "diag", "floor": 1e-3},
        "gmm.statistics": {
            "X": held["X"], "responsibilities": tensor(np.full((8, 2), 0.5)),
            "covariance_type": "diag",
        },
        "kl_adaptation.moment_kl": {"p": codes[0], "q": codes[1]},
        "kl_adaptation.two_way_kl": {
            "source": codes[0], "target": codes[1], "estimator": "moments", "weight": 1.0,
            "reverse_weight": 1.0,
        },
        "kliep.cross_validated_likelihood": {
            "X_source": kernel["X_source"], "X_target": whole["X_target"],
            "centres": np.arange(6), "width": 1.0, "folds": np.arange(6) % 2,
        },
        "kliep.density_ratio": {
            **kernel, "X": doubles(5, 3), "proportions": tensor(np.full(4, 0.25)),
        },
        "kliep.gaussian_kernel": {"X": doubles(5, 3), "centres": doubles(4, 3), "width": 1.0},
        "kliep.importance_loss": {"network": network, "source": labelled, "target_weight": 1.0},
        "kliep.importance_weights": dict(whole),
        "kliep.kliep_em_step": {
            "proportions": tensor(np.full(4, 0.25)),
            "components": tensor(rng.uniform(0.1, 1, size=(6, 4))),
        },
        "kliep.kliep_proportions": dict(whole),
        "kliep.weighted_cross_entropy": {**logits, "weights": positive(6)},
        "maml.adapt": {"loss": square, "parameters": one, "lr": 0.1, "steps": 1},
        "maml.episode_loss": {
            "network": network, "theta": theta, "episode": episode, "inner_lr": 0.1,
            "inner_steps": 1, "task": "classification", "statistics": "inductive",
        },
        "maml.inner_update": {"parameters": theta, "gradients": theta, "lr": 0.1},
        "maml.meta_loss": {
            "support_loss": square, "query_loss": square, "parameters": one, "lr": 0.1,
            "steps": 1,
        },
        "maml.query_outputs": {
            "network": network, "parameters": expanded, "X_support": episode[0],
            "X_query": episode[2], "statistics": "inductive",
        },
        "maml.reptile_direction": {
            "network": network, "theta": theta, "X": draw(2, 10, 4), "y": classes(2, 10),
            "batches": tensor(np.zeros((2, 3, 5), np.int64)), "inner_lr": 0.1,
            "task": "classification",
        },
        "maml.shares_weights": {
            "network": network, "theta": theta, "n_support": 4, "inner_steps": 1,
        },
        "maml.task_loss": {"outputs": draw(2, 4, 2), "y": classes(2, 4), "task": "classification"},
        "matching.attention_logits": {
            "queries": draw(2, 6, 3), "support": draw(2, 4, 3), "y": classes(2, 4), "ways": 2,
            "scale": 1.0,
        },
        "matching.matching_loss": {
            "network": network, "theta": theta, "episode": episode, "ways": 2,
            "statistics": "inductive", "scale": 1.0,
        },
        "meta_networks.apply": {"network": network, "parameters": expanded, "X": episode[0]},
        "meta_networks.apply_features": {
            "network": network, "parameters": expanded, "X": episode[0],
        },
        "meta_networks.apply_head": {
            "network": network, "parameters": expanded, "features": draw(2, 4, 256),
        },
        "meta_networks.check_layers": {"network": network},
        "meta_networks.expand": {"parameters": theta, "n_tasks": 2},
        "meta_networks.has_batch_norm": {"network": network},
        "meta_networks.parameters_of": {"network": network},
        "meta_networks.shared_features": {"network": network, "theta": theta, "X": episode[0]},
        "networks.build": {
            "network": "mlp", "input_shape": (4,), "n_outputs": 2,
            "rng": np.random.default_rng(0), "dtype": "float32",
        },
        "networks.to_numpy": {"module": network},
        "networks.from_numpy": {"module": network, "arrays": networks.to_numpy(network)},
        "protonet.class_distances": {
            "queries": draw(2, 6, 3), "support": draw(2, 4, 3), "y": classes(2, 4), "ways": 2,
            "distance": "euclidean",
        },
        "protonet.cosine_distances": {"queries": draw(2, 6, 3), "centres": draw(2, 2, 3)},
        "protonet.embed": {
            "network": network, "theta": theta, "X_support": episode[0], "X_query": episode[2],
            "statistics": "inductive",
        },
        "protonet.linear_classifier": {"centres": draw(2, 2, 3)},
        "protonet.mahalanobis_distances": {
            "queries": draw(2, 6, 3), "centres": draw(2, 2, 3),
            "covariances": tensor(np.tile(np.eye(3, dtype=np.float32), (2, 2, 1, 1))),
        },
        "protonet.prototype_loss": {
            "network": network, "theta": theta, "episode": episode, "ways": 2,
            "statistics": "inductive", "distance": "euclidean", "scale": 1.0,
        },
        "protonet.prototypes": {"embeddings": draw(2, 4, 3), "y": classes(2, 4), "ways": 2},
        "protonet.shrunk_covariances": {
            "embeddings": draw(2, 4, 3), "y": classes(2, 4), "ways": 2,
        },
        "protonet.squared_distances": {"queries": draw(2, 6, 3), "centres": draw(2, 2, 3)},
        "protonet.unit": {"x": draw(2, 6, 3)},
        "pseudo_labels.pseudo_label_loss": {"logits": draw(6, 2), "threshold": 0.5},
        "pseudo_labels.self_training_loss": {
            "network": network, "labelled": labelled, "unlabelled": draw(5, 4), "alpha": 1.0,
            "threshold": 0.5,
        },
        "pseudo_labels.weighted_loss": {**logits, "weights": positive(6)},
        "scaling.accumulate_gradients": {
            "loss_of": lambda X, y: tools["maml"].task_loss(network(X)[None], y[None]),
            "weights": [getattr(variable, "value", variable) for variable in variables],
            "X": draw(6, 4), "y": classes(6), "parts": 2,
        },
        "scaling.average_gradients": {"gradients": [weights, weights], "sizes": [2, 3]},
        "vae.bernoulli_log_prob": {"x": positive(6, 4), "logits": draw(6, 4)},
        "vae.elbo": {"log_px": draw(2, 6), **latent, "kl_weight": 1.0},
        "vae.importance_bound": {"log_px": draw(2, 6), "z": draw(2, 6, 3), **latent},
        "vae.kl_to_prior": dict(latent),
        "vae.m1_loss": {
            "vae": vae.features_, "x": positive(6, 4), "noise": draw(1, 6, 3), "kl_weight": 1.0,
        },
        "vae.m2_loss": {
            "vae": vae.vae_, "classifier": vae.classifier_,
            "labelled": (draw(6, 3), classes(6), draw(1, 6, 3)),
            "unlabelled": (draw(5, 3), draw(1, 2, 5, 3)), "n_classes": 2, "share": 0.5,
            "classifier_weight": 1.0, "kl_weight": 1.0,
        },
        "vae.sample_codes": {**latent, "noise": draw(2, 6, 3)},
        "compression.student_loss": {
            "network": fitted["ImageClassifier"].network_, "inputs": [positive(6, 8, 8)],
            "logits": draw(6, 2), "labels": classes(6), "temperature": 2.0, "alpha": 0.5,
            "features_weight": 1.0,
        },
        "compression.prune": {
            "classifier": fitted["ImageClassifier"], "sparsity": 0.5, "scope": "layer",
        },
        "compression.quantize": {
            "classifier": fitted["ImageClassifier"], "backend": "hand", "activations": False,
        },
        "encoder.encode": {
            "texts": ["good words"], "model": bert, "normalize": False, "max_length": 16,
            "batch_size": 2, "dtype": "float32", "cache": False, "device": "cpu",
        },
        "fine_tuning.tuning_loss": {
            "network": network_of_texts, "x": ids, "mask": ids, "labels": classes(3),
            "weights": positive(3), "objective": "cross_entropy", "l2_sp": 0.0,
        },
        "gan.adversarial_discriminator_loss": {
            "discriminator": discriminator, "labelled": (draw(6, 4), classes(6)),
            "unlabelled": draw(5, 4), "made": draw(4, 4),
            "noise": [draw(*shape) for shape in discriminator.noise_shapes(15)], "weight": 1.0,
        },
        "gan.adversarial_generator_loss": {
            "discriminator": discriminator, "unlabelled": draw(5, 4), "made": draw(4, 4),
            "told": classes(4), "generator_loss": "plain", "class_weight": 0.1,
        },
        "kl_adaptation.adaptation_loss": {
            "network": fitted["KLAdapter"].network_,
            "source": (draw(6, 4), classes(6), draw(6, 3)), "target": (draw(6, 4), draw(6, 3)),
            "target_weight": 1.0,
        },
        "networks.initialise": {"module": network, "rng": np.random.default_rng(0)},
        "optim.adam": {"parameters": variables, "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8},
        "optim.adamw": {
            "parameters": variables, "lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8,
            "weight_decay": 0.1,
        },
        "optim.clip_gradients": {"gradients": weights, "max_norm": 1.0},
        "optim.set_learning_rate": {"optimizer": tools["optim"].sgd(variables, lr=0.1), "lr": 0.1},
        "optim.sgd": {"parameters": variables, "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        "vae.unlabelled_bound": {"bounds": draw(6, 2), "log_q": log_shares(6, 2)},
    }  # fmt: skip
    return {f"{package}.{name}": arguments for name, arguments in calls.items()}


MODULES = (
    "adabn",
    "gmm", "kl_adaptation", "maml", "meta_networks", "networks", "optim", "vae",
)  # fmt: skip


def _torch_tensor() -> Callable[[np.ndarray], Any]:
    import torch

    return torch.as_tensor


def _tf_tensor() -> Callable[[np.ndarray], Any]:
    import tensorflow

    return tensorflow.constant


TENSORS = {"torch": _torch_tensor, "tensorflow": _tf_tensor}
