"""How fast a bundle answers, in process and through `mlflow models serve`; Markdown rows for
docs/benchmarks.md.

In process: one user, one history, 1,000 users, and the cost of filters. With --serve, 8 clients
send requests to a server of a registered version, also while its refresh is replaced.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import httpx
import numpy as np
import pandas as pd
import torch

from dssm_core.aliases import Floats
from dssm_core.retrieval.bundle import Bundle, content_hash, open_bundle
from dssm_core.retrieval.catalogue import Catalogue
from dssm_core.retrieval.eligible import Eligible, Lists, eligible_lists
from dssm_core.retrieval.item_index import ItemIndex
from dssm_core.retrieval.reloading import CURRENT, LINEAGE
from local import processes

K = 200
REQUESTS = 500
HISTORY = 20
CLIENTS = 8
SHARES = (0.01, 0.1, 0.5)


def quantiles(call: Callable[[Any], object], inputs: list[Any]) -> str:
    """The first time, the median and the 99th percentile of a call, in ms, as Markdown cells."""
    times = []
    for each in inputs:
        started = time.perf_counter()
        call(each)
        times.append(1000 * (time.perf_counter() - started))
    middle, high = np.percentile(times, [50, 99])
    return f"{times[0]:.1f} | {middle:.2f} | {high:.2f}"


def requests(bundle: Bundle) -> dict[str, list[dict[str, list[Any]]]]:
    """Requests by title, each as columns."""
    rng = np.random.default_rng(0)
    users = bundle.users.decode(rng.integers(1, len(bundle.users), REQUESTS)).tolist()
    items = bundle.items.decode(rng.integers(1, len(bundle.items), REQUESTS * HISTORY)).tolist()
    histories = [items[first : first + HISTORY] for first in range(0, len(items), HISTORY)]
    many = bundle.users.decode(rng.integers(1, len(bundle.users), 1000)).tolist()
    return {
        "one known user": [{"user_id": [user]} for user in users],
        f"one history of {HISTORY} items": [{"history": [history]} for history in histories],
        "1,000 known users": [{"user_id": many}] * 10,
    }


def in_process(bundle: Bundle) -> None:
    """Print the times of requests, without and with filters."""
    print(f"| request (k = {K}) | first, ms | median, ms | p99, ms |\n|---|---|---|---|")
    asked = requests(bundle)
    for title, columns in asked.items():
        frames = [pd.DataFrame(each) for each in columns]
        print(f"| {title} | {quantiles(lambda frame: bundle.retrieve(frame, K), frames)} |")
    n_items = len(bundle.items) - 1
    position = pd.Series(np.random.default_rng(1).random(n_items))
    filtered = replace(bundle, catalogue=Catalogue(n_items, {"position": position}))
    frames = [pd.DataFrame(each) for each in asked["one known user"]]
    for share in SHARES:
        call = partial(filtered.retrieve, k=K, filters=[f"position < {share}"])
        cells = quantiles(call, frames)
        print(f"| one known user, {share:.0%} of the items eligible | {cells} |", flush=True)


def filters(bundle: Bundle) -> None:
    """Print queries per second of filtered search beside plain over-fetching."""
    index = bundle.index
    rng = np.random.default_rng(2)
    users = rng.integers(1, len(bundle.user_vectors), 200)
    queries = np.array(bundle.user_vectors[np.sort(users)], dtype=np.float32)
    print("| eligible | filtered search, queries/s | over-fetching, queries/s |\n|---|---|---|")
    for share in SHARES:
        allowed = rng.random(len(index.vectors)) < share
        eligible = Eligible(len(allowed), allowed)
        own = rate(partial(index.search, queries, K, eligible), len(queries))
        other = rate(partial(overfetch, index, queries, eligible), len(queries))
        print(f"| {share:.0%} | {own:,.0f} | {other:,.0f} |", flush=True)


def overfetch(index: ItemIndex, queries: Floats, eligible: Eligible) -> Lists:
    """Ask the index for more and more items until K of them are allowed."""
    return eligible_lists(lambda n: index.member.search(index.index, queries, n), eligible, K)


def rate(search: Callable[[], object], queries: int) -> float:
    """Queries per second, the best of three runs."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        search()
        seconds.append(time.perf_counter() - started)
    return queries / min(seconds)


def over_loopback(bundle: Bundle, url: str, title: str) -> None:
    """Print requests per second and latencies of CLIENTS at once."""
    for name, columns in list(requests(bundle).items())[:2]:
        bodies = [
            {"dataframe_split": {"columns": list(each), "data": [[next(iter(each.values()))[0]]]}}
            for each in columns
        ]
        started = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS) as pool:
            times = sorted(pool.map(timed_post(url), bodies))
        seconds = time.perf_counter() - started
        middle, high = 1000 * np.percentile(times, [50, 99])
        cells = f"{len(bodies) / seconds:,.0f} | {middle:.1f} | {high:.1f}"
        print(f"| {name}{title} | {cells} |", flush=True)


def timed_post(url: str) -> Callable[[dict[str, Any]], float]:
    """A function that sends a request on its thread's own connection, and returns the seconds."""
    local = threading.local()

    def post(body: dict[str, Any]) -> float:
        if not hasattr(local, "client"):
            local.client = httpx.Client(timeout=60, trust_env=False)
        started = time.perf_counter()
        local.client.post(url, json=body).raise_for_status()
        return time.perf_counter() - started

    return post


@contextmanager
def server(model: str, folder: Path) -> Iterator[str]:
    """The address of `mlflow models serve` of a registered version."""
    port = processes.free_port(0)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = f"mlflow models serve -m {model} --env-manager local -h 127.0.0.1 -p {port}"
    processes.start(folder, "serve", command.split(), {**os.environ, "PATH": path})
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            with suppress(httpx.HTTPError):
                httpx.get(f"{address}/ping", trust_env=False)
                break
            time.sleep(0.2)
        yield f"{address}/invocations"
    finally:
        processes.stop(folder)


@contextmanager
def refreshing(bundle: Bundle, root: Path) -> Iterator[None]:
    """Replace the refreshed bundle every second by a copy of it."""
    folder = root / bundle.config.model_name
    lineage = f'{{"bundle": "{content_hash(bundle.folder)}"}}'
    for name in ("one", "two"):
        shutil.copytree(bundle.folder, folder / name)
        (folder / name / LINEAGE).write_text(lineage)
    over = threading.Event()

    def swap() -> None:
        number = 0
        while not over.wait(1):
            number += 1
            link = folder / f".{CURRENT}"
            link.symlink_to(("one", "two")[number % 2])
            link.replace(folder / CURRENT)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, help="folder of a bundle (register_model/bundle)")
    parser.add_argument("--serve", metavar="models:/NAME/VERSION", help="also measure a server")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    started = time.perf_counter()
    bundle = open_bundle(args.bundle)
    bundle.try_out()
    seconds = time.perf_counter() - started
    sizes = f"{len(bundle.users) - 1:,} users, {len(bundle.items) - 1:,} items"
    print(f"{sizes}, index {bundle.config.index.kind}; opened and tried out in {seconds:.2f} s\n")
    in_process(bundle)
    print()
    filters(bundle)
    if not args.serve:
        return
    print(f"\n| {CLIENTS} clients | requests/s | median, ms | p99, ms |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"DSSM_REFRESHED": folder, "OMP_NUM_THREADS": str(args.threads)}
        with server(args.serve, Path(folder)) as url:
            over_loopback(bundle, url, "")
            with refreshing(bundle, Path(folder)):
                over_loopback(bundle, url, ", refreshed every second")


if __name__ == "__main__":
    main()
