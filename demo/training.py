"""Small models that are trained for real, with numpy, on made-up data; all runs take turns, as on a shared cluster."""

from __future__ import annotations

import io
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np

from demo.frontier import Frontier, RunLogger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STEPS_AN_EPOCH = 20
_SAMPLES, _FEATURES, _CLASSES = 600, 16, 3


@dataclass(frozen=True)
class Plan:
    """How a model is trained. ``hidden`` units (0: none, a logistic regression), learning rate, momentum, seed."""

    name: str
    hidden: int
    rate: float
    momentum: float
    seed: int


PLANS = (
    Plan("logistic, slow", 0, 0.05, 0.0, 1),
    Plan("logistic, fast", 0, 0.5, 0.9, 2),
    Plan("mlp 16", 16, 0.1, 0.9, 3),
    Plan("mlp 32", 32, 0.1, 0.9, 4),
    Plan("mlp 32, no momentum", 32, 0.2, 0.0, 5),
    Plan("mlp 64", 64, 0.05, 0.9, 6),
)


def make_data(seed: int) -> tuple[Array, NDArray[np.int64]]:
    """Points around a few centres of each class, overlapping somewhat."""
    random = np.random.default_rng(seed)
    centres = random.normal(0, 1.2, (_CLASSES, 4, _FEATURES))
    labels = random.integers(0, _CLASSES, _SAMPLES)
    points = centres[labels, random.integers(0, 4, _SAMPLES)] + random.normal(0, 1.0, (_SAMPLES, _FEATURES))
    return points, labels


class Model:
    """A softmax classifier with at most one hidden layer, trained by gradient descent with momentum.

    Args:
        plan: its size and how it is trained.
    """

    def __init__(self, plan: Plan) -> None:
        random = np.random.default_rng(plan.seed)
        sizes = [_FEATURES, plan.hidden, _CLASSES] if plan.hidden else [_FEATURES, _CLASSES]
        pairs = list(itertools.pairwise(sizes))
        self.weights: list[Array] = [random.normal(0, (1 / fan) ** 0.5, (fan, out)) for fan, out in pairs]
        self.biases: list[Array] = [np.zeros(out) for _, out in pairs]
        self._speed: list[Array] = [np.zeros_like(part) for part in (*self.weights, *self.biases)]
        self._plan = plan

    def forward(self, points: Array) -> list[Array]:
        """The activations of each layer; the last are the classes' probabilities."""
        layers = [points]
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = layers[-1] @ weight + bias
            layers.append(np.tanh(values) if number < len(self.weights) - 1 else _softmax(values))
        return layers

    def evaluate(self, points: Array, labels: NDArray[np.int64]) -> tuple[float, float]:
        """Loss and accuracy."""
        found = self.forward(points)[-1]
        loss = -np.log(found[np.arange(len(labels)), labels] + 1e-12).mean()
        return float(loss), float((found.argmax(axis=1) == labels).mean())

    def step(self, points: Array, labels: NDArray[np.int64]) -> float:
        """One step downhill; the gradient's norm."""
        layers = self.forward(points)
        delta = layers[-1].copy()
        delta[np.arange(len(labels)), labels] -= 1
        delta /= len(labels)
        weights: list[Array] = []
        biases: list[Array] = []
        for number in range(len(self.weights) - 1, -1, -1):
            weights.insert(0, layers[number].T @ delta)
            biases.insert(0, delta.sum(axis=0))
            if number:
                delta = (delta @ self.weights[number].T) * (1 - layers[number] ** 2)
        gradients = [*weights, *biases]
        for part, speed, gradient in zip((*self.weights, *self.biases), self._speed, gradients, strict=True):
            np.subtract(speed * self._plan.momentum, self._plan.rate * gradient, out=speed)
            np.add(part, speed, out=part)
        return float(sum((gradient**2).sum() for gradient in gradients) ** 0.5)


def _softmax(values: Array) -> Array:
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    found: Array = powers / powers.sum(axis=1, keepdims=True)
    return found


def train_all(frontier: Frontier, epochs: int) -> Iterator[float]:
    """Train all plans, taking turns step by step; yields the part that is done, 0 to 1, after each turn."""
    trainings = [_train(frontier, plan, epochs) for plan in PLANS]
    total = epochs * STEPS_AN_EPOCH
    done = 0
    while trainings:
        trainings = [training for training in trainings if next(training, None) is not None]
        done += 1
        yield min(done / total, 1.0)


def _train(frontier: Frontier, plan: Plan, epochs: int) -> Iterator[int]:
    points, labels = make_data(seed=7)
    split = _SAMPLES * 4 // 5
    training, testing = (points[:split], labels[:split]), (points[split:], labels[split:])
    model = Model(plan)
    log = RunLogger(frontier, uuid4().hex)
    log.describe("spirals and blobs", plan.name)
    log.hparams(_hparams(plan, epochs))
    log.tag("demo")
    log.tag("running")
    log.record(f"training {plan.name}", 20)
    random = np.random.default_rng(plan.seed)
    step = 0
    for epoch in range(epochs):
        for _ in range(STEPS_AN_EPOCH):
            chosen = random.integers(0, split, 64)
            norm = model.step(training[0][chosen], training[1][chosen])
            loss, accuracy = model.evaluate(training[0][chosen], training[1][chosen])
            log.metric("loss", loss, step, epoch, {"subset": "train"})
            log.metric("accuracy", accuracy, step, epoch, {"subset": "train"})
            log.metric("gradient norm", norm, step, epoch, None)
            step += 1
            yield step
        loss, accuracy = model.evaluate(*testing)
        log.metric("loss", loss, step, epoch, {"subset": "val"})
        log.metric("accuracy", accuracy, step, epoch, {"subset": "val"})
        log.line(f"epoch {epoch + 1}/{epochs}  loss {loss:.4f}  accuracy {accuracy:.3f}")
        if epoch % 5 == 0:
            log.custom("weights", _distribution(model.weights[0]), epoch, None)
            log.blob(f"checkpoints/{epoch:03}.npz", _pack(model.weights))
            if accuracy < 0.5:
                log.record(f"accuracy is only {accuracy:.2f}", 30)
    log.custom("summary", {"type": "text", "data": f"{plan.name}: {accuracy:.3f} ✓"}, 0, None)
    log.blob("model/weights.npz", _pack(model.weights))
    log.untag("running")
    log.tag("good" if accuracy > 0.8 else "poor")
    log.finish()


def _hparams(plan: Plan, epochs: int) -> dict[str, Any]:
    return {
        "model": "mlp" if plan.hidden else "logistic",
        "hidden": plan.hidden,
        "seed": plan.seed,
        "epochs": epochs,
        "optimizer": {"name": "sgd", "rate": plan.rate, "momentum": plan.momentum},
        "data": {"samples": _SAMPLES, "classes": _CLASSES, "split": [0.8, 0.2]},
    }


def _pack(weights: list[Array]) -> bytes:
    file = io.BytesIO()
    np.savez(file, *weights)
    return file.getvalue()


def _distribution(values: Array) -> dict[str, Any]:
    counts, edges = np.histogram(values, bins=16)
    return {
        "type": "distribution",
        "bin_count": 16,
        "range": [float(edges[0]), float(edges[-1])],
        "data": [int(count) for count in counts],
    }
