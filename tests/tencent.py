"""Samples in the format of the 2018 Tencent lookalike contest, with a known truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

INTERESTS = 8  # a topic's own interests


def write_sample(
    folder: Path,
    people: int = 3000,
    ads: int = 24,
    topics: int = 6,
    rows: int = 6000,
    seed: int = 5,
) -> None:
    """train.csv, adFeature.csv and userFeature.data, such that an ad wins the people of its topic.

    Ad a and person p have topics a % topics and p % topics. An ad's category and a person's
    interest1 (4 of the topic's own) tell the topic; creativeSize, age and kw1 tell nothing. A
    person is shown about two ads and belongs to the audience of nine in ten of those of their
    topic, of one in fifty others. Ad ids begin at 100, people's at 10000.
    """
    rng = np.random.default_rng(seed)
    person = rng.permutation(np.arange(rows) % people)
    same = rng.random(rows) < 0.4
    ad = np.where(same, person % topics, rng.integers(0, topics, rows)) + topics * rng.integers(
        0, ads // topics, rows
    )
    label = np.where(rng.random(rows) < np.where(ad % topics == person % topics, 0.9, 0.02), 1, -1)
    lines = [f"{a + 100},{p + 10000},{y}" for a, p, y in zip(ad, person, label, strict=True)]
    (folder / "train.csv").write_text("\n".join(["aid,uid,label", *lines, ""]))
    head = "aid,advertiserId,campaignId,creativeId,creativeSize,adCategoryId,productId,productType"
    lines = [
        f"{a + 100},{a},{a},{a},{rng.integers(9)},{a % topics + 1},0,{1 + a % topics % 2}"
        for a in range(ads)
    ]
    (folder / "adFeature.csv").write_text("\n".join([head, *lines, ""]))
    lines = [_person(rng, p, p % topics) for p in range(people)]
    (folder / "userFeature.data").write_text("\n".join([*lines, ""]))


def _person(rng: np.random.Generator, person: int, topic: int) -> str:
    """One line; a third of the people tell no age, few have a house."""
    own = " ".join(map(str, topic * INTERESTS + 1 + rng.choice(INTERESTS, 4, replace=False)))
    words = " ".join(map(str, rng.integers(1000, 1200, 3)))
    age = [f"age {rng.integers(1, 6)}"] if rng.random() < 2 / 3 else []
    house = ["house 1"] if rng.random() < 0.1 else []
    return "|".join(
        [
            f"uid {person + 10000}",
            *age,
            f"gender {rng.integers(1, 3)}",
            f"interest1 {own}",
            f"kw1 {words}",
            *house,
        ]
    )
