"""The reference exercise's figures: the published log, and a second trace of the same exercise on a CPU.

Losses are in nats a token, of seed 123, after the optimiser steps named. The published log was made on Apple's MPS and
rounded to three digits; the other by an independent implementation in fp32 on a CPU, also with the exercise's order of
random numbers. They differ as devices differ: late, training loss by up to 31 %, validation loss by up to 2 %.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One evaluation of the exercise, in both traces."""

    step: int
    epoch: int
    train: float
    val: float
    cpu_train: float
    cpu_val: float


EVALUATIONS = (
    Published(0, 1, 9.817, 9.924, 9.78100, 9.93281),
    Published(5, 1, 8.066, 8.332, 8.11053, 8.33857),
    Published(10, 2, 6.619, 7.042, 6.66093, 7.04799),
    Published(15, 2, 6.046, 6.596, 5.96102, 6.61604),
    Published(20, 3, 5.524, 6.508, 5.72613, 6.60039),
    Published(25, 3, 5.369, 6.378, 5.20108, 6.34781),
    Published(30, 4, 4.830, 6.263, 4.41718, 6.27830),
    Published(35, 4, 4.586, 6.285, 4.06866, 6.22580),
    Published(40, 5, 3.879, 6.130, 3.73206, 6.16005),
    Published(45, 6, 3.530, 6.183, 2.85004, 6.17864),
    Published(50, 6, 2.960, 6.123, 2.42733, 6.14096),
    Published(55, 7, 2.832, 6.150, 2.10430, 6.13401),
    Published(60, 7, 2.104, 6.133, 1.88194, 6.23347),
    Published(65, 8, 1.691, 6.186, 1.32045, 6.23832),
    Published(70, 8, 1.391, 6.230, 0.98516, 6.24236),
    Published(75, 9, 1.059, 6.251, 0.71651, 6.29290),
    Published(80, 9, 0.800, 6.278, 0.54126, 6.39314),
    Published(85, 10, 0.569, 6.373, 0.39096, 6.45215),
)

#: Training and validation loss before the first step, all batches of each part, dropout off.
BEFORE_TRAINING = (10.98758, 10.98111)

#: What the samples after an epoch are like: (epoch, in words).
SAMPLES = (
    (1, "commas and nothing else"),
    (2, "one or two words over and over: “, and, and, and”"),
    (5, "phrases of the story, loosely joined"),
    (10, "grammatical sentences, lifted from the story"),
)
