"""Seconds an epoch of a VAE and of a K+1-class GAN, beside a plain torch loop and Keras' fit.

    python benchmarks/generative.py [--rounds 5] [--n 3000]

Random images of 28 x 28, batches of 100, one thread, float32.  Every variant does the same work:
the same layers, losses and number of updates with Adam.  Ours is the estimator itself with its
loop, streams and NumPy noise, less its building and compiling: a run of one epoch more minus a
run of one epoch less.  Variants are interleaved and CPU time is compared; only ratios mean
anything.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")

import numpy as np  # noqa: E402  (reads the variables)

BATCH, LATENT, WIDTH, CLASSES, LABELLED = 100, 20, 200, 10, 100
HIDDEN = (WIDTH, WIDTH // 2)


def data(n):
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(n + LABELLED, 784)).astype(np.float32)
    y = np.arange(n + LABELLED) % CLASSES
    y[LABELLED:] = -1
    return X, y


# ---------------------------------------------------------------------------- ours


def our_vae(package, X, y):
    # Examples as flat vectors, so that both sides read the same array.
    def run(epochs):
        model = package.VAEPseudoLabeler(
            "m1", latent_dim=LATENT, hidden=(WIDTH,), decoder="bernoulli", kl_warmup=0.0,
            feature_steps=max(1, epochs * (len(X) // BATCH)), steps=1, random_state=0,
        )  # fmt: skip
        return model.fit(X, y, device="cpu")

    return run


def our_gan(package, X, y):
    images = X.reshape(-1, 28, 28)

    def run(epochs):
        model = package.GANPseudoLabeler(
            latent_dim=LATENT, hidden=HIDDEN, generator_hidden=HIDDEN, batch_size=BATCH,
            steps=max(1, epochs * ((len(X) - LABELLED) // BATCH)), random_state=0,
        )  # fmt: skip
        return model.fit(images, y, device="cpu")

    return run


# ---------------------------------------------------------------------------- peers


def torch_vae(X, y):
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    def run(epochs):
        encoder = nn.Sequential(nn.Linear(784, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2 * LATENT))
        decoder = nn.Sequential(nn.Linear(LATENT, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 784))
        optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()])
        loader = DataLoader(
            TensorDataset(torch.as_tensor(X)), batch_size=BATCH, shuffle=True, drop_last=True
        )
        for _ in range(epochs):
            for (x,) in loader:
                mean, log_var = encoder(x).chunk(2, 1)
                z = mean + torch.exp(0.5 * log_var) * torch.randn_like(mean)
                fit = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
                kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum()
                loss = (fit + kl) / len(x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return run


def torch_gan(X, y):
    import torch
    import torch.nn.functional as F
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    class Discriminator(nn.Module):
        def __init__(self):
            super().__init__()
            widths = (784, *HIDDEN)
            self.layers = nn.ModuleList(map(nn.Linear, widths, widths[1:]))
            self.head = nn.Linear(widths[-1], CLASSES)

        def forward(self, x, noisy):
            for layer, scale in zip(self.layers, (0.3, 0.5), strict=True):
                x = F.relu(layer(x + scale * torch.randn_like(x) if noisy else x))
            return x, self.head(x + 0.5 * torch.randn_like(x) if noisy else x)

    def generator():
        layers, widths = [], (LATENT, *HIDDEN)
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out, bias=False), nn.BatchNorm1d(n_out), nn.Softplus()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 784), nn.Sigmoid())

    labelled, labels = torch.as_tensor(X[:LABELLED]), torch.as_tensor(y[:LABELLED])

    def run(epochs):
        d, g = Discriminator(), generator()
        opt_d = torch.optim.Adam(d.parameters(), betas=(0.5, 0.999))
        opt_g = torch.optim.Adam(g.parameters(), betas=(0.5, 0.999))
        loader = DataLoader(
            TensorDataset(torch.as_tensor(X[LABELLED:])),
            batch_size=BATCH, shuffle=True, drop_last=True,
        )  # fmt: skip
        for _ in range(epochs):
            for (x,) in loader:
                made = g(torch.randn(BATCH, LATENT))
                _, logits = d(torch.cat([labelled, x, made.detach()]), noisy=True)
                ll, lu, lg = logits.split(BATCH)
                real, fake = lu.logsumexp(1), lg.logsumexp(1)
                loss = F.cross_entropy(ll, labels)
                loss = loss + 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())
                opt_d.zero_grad()
                loss.backward()
                opt_d.step()
                with torch.no_grad():
                    wanted = d(x, noisy=False)[0].mean(0)
                loss = (d(made, noisy=False)[0].mean(0) - wanted).square().sum()
                opt_g.zero_grad()
                loss.backward()
                opt_g.step()

    return run


def keras_vae(X, y):
    import keras
    import tensorflow as tf

    class VAE(keras.Model):
        def __init__(self):
            super().__init__()
            dense = keras.layers.Dense
            self.encoder = keras.Sequential([dense(WIDTH, "relu"), dense(2 * LATENT)])
            self.decoder = keras.Sequential([dense(WIDTH, "relu"), dense(784)])

        def call(self, x):
            mean, log_var = tf.split(self.encoder(x), 2, 1)
            z = mean + tf.exp(0.5 * log_var) * tf.random.normal(tf.shape(mean))
            kl = -0.5 * tf.reduce_sum(1 + log_var - tf.square(mean) - tf.exp(log_var), 1)
            logits = self.decoder(z)
            fit = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(x, logits), 1)
            self.add_loss(tf.reduce_mean(fit + kl))
            return logits

    def run(epochs):
        model = VAE()
        model.compile(optimizer=keras.optimizers.Adam())
        n = len(X) // BATCH * BATCH
        model.fit(X[:n], batch_size=BATCH, epochs=max(epochs, 1), verbose=0)

    return run


# ---------------------------------------------------------------------------- measure


def cost(run, epochs):
    begin = time.process_time()
    run(epochs)
    return time.process_time() - begin


def an_epoch(run, epochs=6):
    """CPU seconds of one epoch: a long run minus a short one."""
    return (cost(run, epochs + 1) - cost(run, 1)) / epochs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--n", type=int, default=3000)
    options = parser.parse_args()
    import torch

    import fewshot_course.tf as course_tf
    import fewshot_course.torch as course_torch

    torch.set_num_threads(1)
    X, y = data(options.n)
    rows = {
        "VAE": {
            "plain torch": torch_vae(X, y),
            "torch": our_vae(course_torch, X, y),
            "Keras fit": keras_vae(X, y),
            "TensorFlow": our_vae(course_tf, X, y),
        },
        "GAN": {
            "plain torch": torch_gan(X, y),
            "torch": our_gan(course_torch, X, y),
            "TensorFlow": our_gan(course_tf, X, y),
        },
    }
    print(f"CPU seconds an epoch of {options.n} images, median of {options.rounds} rounds")
    for method, variants in rows.items():
        seconds = {name: [] for name in variants}
        for _ in range(options.rounds):
            for name, run in variants.items():
                seconds[name].append(an_epoch(run))
        median = {name: statistics.median(s) for name, s in seconds.items()}
        for name, value in median.items():
            peer = "Keras fit" if name == "TensorFlow" and "Keras fit" in median else "plain torch"
            print(f"{method} {name:12} {value:7.3f} s, {median[peer] / value:5.2f}x {peer}")


if __name__ == "__main__":
    main()
