"""Published figures that results are held against, and the settings that these are of."""

AUTHORS = {1: 47.9, 2: 24.3, 3: 16.2, 5: 12.4, 10: 9.4, 20: 7.3, 28: 7.2}
"""Squared error of an image on MNIST after so many epochs, in the authors' published logs."""
AUTHORS_OMNIGLOT = {"epochs": 29, "seen": 12.5, "unseen": 15.9}
"""The same of Omniglot: of the characters learned from, and of unseen ones."""
LIKE_FOR_LIKE = {"mnist": (16, (4, 4)), "omniglot": (64, (5, 5))}
"""Numbers a program and steps in those logs; all with batches of 64."""
PUBLISHED = {
    "mnist-binary": {"VAE, one layer": 88.7, "IWAE, k = 50": 87.1},
    "omniglot-binary": {"VAE": 106.3, "IWAE": 103.4, "DRAW, at most": 96.5},
}
"""Published negative log-likelihoods of 28x28 images, in nats."""
