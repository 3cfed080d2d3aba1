"""Baselines on MovieLens-1M as sequences, leave-one-out: full ranking, seen items left out;
Markdown rows for docs/benchmarks.md.

Each baseline runs in a process of its own: fit on all but the held-out item, then a list for every
user.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dssm_core import families
from dssm_core.aliases import Ints
from dssm_core.config import Named
from dssm_core.evaluation.baselines.protocol import Fitted
from dssm_core.families import BASELINES
from dssm_core.features.histories import Histories
from dssm_core.features.popularity import Clicks

TIMED_K = 200
USERS_AT_ONCE = 1024
WHOLE = "history: 100000, decay: 1"  # every item of a user alike
DEFAULT = (
    "hot",
    f"{{kind: itemcf, name: itemcf_cosine_whole, weighting: cosine, {WHOLE}}}",
    f"{{kind: itemcf, name: itemcf_iuf_whole, {WHOLE}}}",
    "itemcf",
    "{kind: itemcf, name: itemcf_popular_0_7, popularity: 0.7}",
    "{kind: itemcf, name: itemcf_sequence, window: 10, distance_decay: 0.8, directed: true,"
    " popularity: 0.4}",
    f"{{kind: swing, name: swing_whole, {WHOLE}}}",
    "swing",
    f"{{kind: als, name: als_whole, {WHOLE}}}",
    "als",
    f"{{kind: ease, name: ease_whole, {WHOLE}}}",
    "ease",
)


def read(file: Path, held_out: int) -> tuple[Clicks, Histories, Ints]:
    """Clicks and histories of all users without their last `held_out` items, and the first of
    those. [U]

    The file has a place in a sequence and no times: the position is used as the time.
    """
    with gzip.open(file, "rt") as lines:
        sequences = [np.array(line.split()[1:], dtype=np.int64) for line in lines]
    names, rows = np.unique(np.concatenate(sequences), return_inverse=True)
    ends = np.cumsum([len(sequence) for sequence in sequences])
    user = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    to_end = ends[user] - np.arange(len(rows))  # 1 = last
    known = to_end > held_out
    place = np.arange(len(rows)) - np.repeat(ends - np.bincount(user), np.bincount(user))
    clicks = Clicks(user[known], rows[known], place[known], len(names))
    return clicks, Histories.of(clicks.users, clicks.items, len(sequences)), rows[ends - held_out]


def ranks(fitted: Fitted, histories: Histories, targets: Ints, n_items: int) -> Ints:
    """0-based place of each user's target among the items that the user has not had; n_items where
    it is not listed.
    """
    found = []
    for first in range(0, len(histories), USERS_AT_ONCE):
        past = histories.part(first, min(first + USERS_AT_ONCE, len(histories)))
        rows = fitted.lists(past, min(n_items, TIMED_K + int(past.counts.max())))
        seen = np.zeros((len(past), n_items + 1), dtype=np.bool_)  # the last column is -1's
        seen[past.query, past.items] = True
        seen[:, -1] = True
        listed = ~np.take_along_axis(seen, rows, 1)
        hit = rows == targets[first : first + len(past), None]
        found.append(
            np.where(hit.any(1), np.sum(listed & (np.cumsum(hit, 1) == 0), axis=1), n_items)
        )
    return np.concatenate(found)


def measure(file: Path, held_out: int, member: Named) -> dict[str, Any]:
    """Seconds to fit and to list 200 for everybody, and the metrics."""
    clicks, histories, targets = read(file, held_out)
    baseline = families.build(BASELINES, member)
    started = time.perf_counter()
    fitted = baseline.fit(clicks, int(clicks.times_ms.max()) + 1)
    between = time.perf_counter()
    fitted.lists(histories, TIMED_K)
    ended = time.perf_counter()
    rank = ranks(fitted, histories, targets, clicks.n_items)
    hits = {f"HR@{k}": float(np.mean(rank < k)) for k in (10, 20, 200)}
    ndcg = float(np.mean(np.where(rank < 10, 1 / np.log2(rank + 2.0), 0)))
    return {"fit_s": between - started, "lists_s": ended - between, "NDCG@10": ndcg, **hits}


def run_apart(baseline: str, args: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a process of its own, with its peak memory in GiB."""
    command = [
        sys.executable,
        __file__,
        "--data",
        args.data,
        "--held-out",
        str(args.held_out),
        "--one",
        baseline,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return json.loads(text) | {"peak_gib": usage.ru_maxrss / 2**20}


def main() -> None:
    """Print a table, a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "baselines", nargs="*", help="a name, or settings in YAML: '{kind: itemcf, window: 5}'"
    )
    parser.add_argument(
        "--data",
        default=os.environ.get("DSSM_DATA"),
        help="folder that holds movielens-1m-sequences (DSSM_DATA)",
    )
    parser.add_argument(
        "--held-out",
        type=int,
        default=1,
        help="1: the last item tests; 2: the one before validates, the last is unknown",
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.data:
        parser.error("--data or DSSM_DATA names no folder")
    if args.one:
        member = Named.model_validate(yaml.safe_load(args.one))
        print(
            json.dumps(
                measure(
                    Path(args.data, "movielens-1m-sequences", "sequences.txt.gz"),
                    args.held_out,
                    member,
                )
            )
        )
        return
    print(
        "| baseline | HR@10 | HR@20 | NDCG@10 | HR@200 | fit, s | lists of 200, s | peak GiB |\n"
        + "|---" * 8
        + "|"
    )
    for baseline in args.baselines or DEFAULT:
        found = run_apart(baseline, args)
        metrics = " | ".join(f"{found[key]:.3f}" for key in ("HR@10", "HR@20", "NDCG@10", "HR@200"))
        name = Named.model_validate(yaml.safe_load(baseline)).name
        print(
            f"| {name} | {metrics} | {found['fit_s']:.1f} | {found['lists_s']:.1f}"
            f" | {found['peak_gib']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
