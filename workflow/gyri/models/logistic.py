"""Multinomial logistic regression with the strength of its regularization chosen on validation data."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_ITERATIONS = 1000
TOLERANCE = 1e-6  # of the gradient; scikit-learn stops at 1e-4, which shows in the third digit of weakly regularized probabilities
SMALLEST = 1e-12  # probability that still counts in a logarithm

Floats = NDArray[np.float64]
Classes = NDArray[np.integer]


@dataclass(frozen=True)
class Examples:
    """What is fitted or judged.

    Args:
        features: (n, p).
        classes: (n,) integers below K.
        weights: (n,), mean 1.
    """

    features: Floats
    classes: Classes
    weights: Floats


@dataclass(frozen=True)
class Logistic:
    """A fitted model; classes that were absent from training get probability 0.

    Args:
        classes: (k,) the classes present in training.
        coefficients: (k, p).
        intercepts: (k,).
    """

    classes: Classes
    coefficients: Floats
    intercepts: Floats


def choose_logistic(train: Examples, validation: Examples, strengths: Sequence[float], count: int) -> tuple[Logistic, float]:
    """Fit with every strength and keep the model with the smallest log loss on the validation data; of equal ones the strongest.

    Args:
        train: fitted on.
        validation: judged on.
        strengths: inverse regularization strengths (scikit-learn's C), from strong to weak regularization.
        count: number of classes K.

    Returns:
        The model, and its strength.
    """
    found = [(fit_logistic(train, strength), strength) for strength in strengths]
    losses = []
    for model, _ in found:
        scores = validation.features @ model.coefficients.T + model.intercepts
        likelihood = class_probabilities(scores, model.classes, count)[np.arange(len(scores)), validation.classes]
        losses.append(-np.mean(validation.weights * np.log(np.maximum(likelihood, SMALLEST))))
    return found[int(np.argmin(losses))]


def fit_logistic(examples: Examples, strength: float) -> Logistic:
    """Fit one model.

    Args:
        examples: fitted on.
        strength: inverse regularization strength (scikit-learn's C).
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes = np.unique(examples.classes)
    if len(classes) == 1 or examples.features.shape[1] == 0:  # nothing to tell apart, or nothing to tell it by
        frequencies = np.array([examples.weights[examples.classes == name].sum() for name in classes]) / examples.weights.sum()
        return Logistic(classes, np.zeros((len(classes), examples.features.shape[1])), np.log(frequencies))
    model = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, tol=TOLERANCE)
    with warnings.catch_warnings():
        # the weakest regularization may not converge on separable data; the validation data then decide for another
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(examples.features, examples.classes, sample_weight=examples.weights)
    if len(classes) == 2:  # one row of coefficients stands for two classes
        zero = np.zeros_like(model.coef_)
        return Logistic(classes, np.vstack([zero, model.coef_]), np.concatenate([[0.0], model.intercept_]))
    return Logistic(classes, model.coef_, model.intercept_)


def class_probabilities(scores: NDArray[np.floating], classes: Classes, count: int) -> NDArray[np.floating]:
    """Softmax over the classes present in training, 0 for the others.

    Args:
        scores: (n, k).
        classes: (k,) integers below K.
        count: number of classes K.

    Returns:
        (n, K), in the type of the scores.
    """
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    probabilities = np.zeros((len(scores), count), scores.dtype)
    probabilities[:, classes] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
