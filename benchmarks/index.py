"""What each index loses and how fast it is over a made-up catalogue, and what `auto` chooses;
Markdown rows for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import logging
import time

import faiss
import numpy as np
import numpy.typing as npt

from dssm_core.retrieval.indexes import measure
from dssm_core.retrieval.indexes.annoy import Annoy
from dssm_core.retrieval.indexes.auto import Auto, IndexTrial

Floats = npt.NDArray[np.float32]


def made_up(
    items: int, users: int, dim: int, spread: float, topics: int = 2000, seed: int = 0
) -> tuple[Floats, Floats]:
    """Unit vectors such as two towers give: items around topics of unequal size, users between one
    to three of them.

    Directions are of unequal weight (the i-th has variance 1 / i), as in trained embeddings, and a
    topic is as popular as 1 / its rank. An item is its topic's centre plus noise of length
    `spread`; a user a random mix of three topics' centres plus half of that noise. Nothing here is
    pure noise: over that, all indexes fail and exact search is right.
    """
    rng = np.random.default_rng(seed)
    scale = (1 / np.sqrt(np.arange(1, dim + 1))).astype(np.float32)
    scale /= np.linalg.norm(scale)

    def noise(rows: int) -> Floats:
        return rng.standard_normal((rows, dim), dtype=np.float32) * scale

    def unit(vectors: Floats) -> Floats:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    share = 1 / np.arange(1, topics + 1)
    share /= share.sum()
    centres = unit(noise(topics))
    item_vectors = unit(centres[rng.choice(topics, items, p=share)] + spread * noise(items))
    liked, weight = (
        rng.choice(topics, (users, 3), p=share),
        rng.dirichlet([1, 1, 1], users).astype(np.float32),
    )
    user_vectors = unit(np.einsum("ut,utd->ud", weight, centres[liked]) + spread / 2 * noise(users))
    return item_vectors, user_vectors


def row(trial: IndexTrial, chosen: bool) -> str:
    """A trial as a Markdown row, the chosen one in bold."""
    mark = "**" if chosen else ""
    settings = ", ".join(f"{name} {value}" for name, value in trial.settings.items())
    rate = f"{mark}{trial.queries_per_s:,.0f}{mark}"
    return f"| {mark}{trial.kind}{mark} | {settings} | {trial.recall:.4f} | {rate} |"


def annoy(vectors: Floats, queries: Floats, k: int, trees: int = 10) -> IndexTrial:
    """Annoy as its own documentation has it: 10 trees, and k * trees nodes looked at."""
    member, asked = (
        Annoy(trees=trees, search_k=k * trees),
        measure.sample(vectors, queries, k, len(queries), 0),
    )
    recall, rate = asked.measure(member, member.build(vectors, 0))
    return IndexTrial("annoy", {"trees": trees, "search_k": k * trees}, recall, rate)


def main() -> None:
    """Print the trials of `auto`, its choice in bold, and Annoy's usual setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument(
        "--spread",
        type=float,
        nargs="+",
        default=[0.3, 0.6],
        help="length of an item's noise beside its topic's 1",
    )
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--min-recall", type=float, default=0.98)
    parser.add_argument(
        "--kinds", nargs="+", default=["faiss_ivf"], help="faiss_ivf faiss_hnsw annoy"
    )
    parser.add_argument("--annoy", action="store_true", help="also Annoy with 10 trees")
    parser.add_argument("--threads", type=int, default=2, help="to search; building takes one")
    args = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("dssm_core").setLevel(logging.INFO)
    faiss.omp_set_num_threads(args.threads)
    for spread in args.spread:
        vectors, queries = made_up(args.items, args.queries, args.dim, spread)
        auto = Auto(
            k=args.k, min_recall=args.min_recall, sample=args.queries, kinds=tuple(args.kinds)
        )
        started = time.perf_counter()
        chosen = auto.build(vectors, 0, queries)
        print(f"\nspread {spread}: chosen in {time.perf_counter() - started:.0f} s\n")
        print(f"| index | settings | recall@{args.k} | queries/s |\n|---|---|---|---|")
        best = next(
            (
                t
                for t in chosen.trials
                if (t.kind, t.settings) == (chosen.choice.kind, chosen.choice.settings)
            ),
            None,
        )
        print(*(row(trial, trial is best) for trial in chosen.trials), sep="\n", flush=True)
        if args.annoy:
            print(row(annoy(vectors, queries, args.k), False), flush=True)


if __name__ == "__main__":
    main()
