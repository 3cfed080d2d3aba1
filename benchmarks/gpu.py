"""Training on a GPU: time of a step and what fills it, the same weights twice, a training that was
killed, and the softmax over a large catalogue; Markdown rows for docs/benchmarks.md.

    dssm run configs/globo.yaml --data FOLDER --until sample_negatives   # on any machine
    python -m benchmarks.gpu steps RUN
    python -m benchmarks.gpu repeat RUN
    python -m benchmarks.gpu softmax

RUN is the run's folder. torch, numpy, pandas, pyarrow, pydantic, PyYAML and safetensors are enough.
With --device cpu the same commands run without a GPU, which shows that they work. RecTools beside
it is `python -m benchmarks.libraries --device cuda`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from dssm_core.config import Config
from dssm_core.features.dataset import load_prepared
from dssm_core.runs.run import open_run
from dssm_core.training.full_cross_entropy import cut_cross_entropy
from dssm_core.training.fused_cross_entropy import softmax_cross_entropy
from dssm_core.training.logits import BatchVectors
from dssm_core.training.trainer import LOG_EVERY, Trainer

SYNCS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cudaGraphLaunch")
WARM_UP = 60  # steps: a graph is captured at the second batch of each size
CATALOGUES = ((3_416, 128), (100_000, 64), (1_000_000, 128))  # items, width


class Enough(Exception):
    """Raised to leave a training after a number of steps."""


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Training:
    """A training from the files of `sample_negatives`, as the step `train_towers` runs it."""

    config: Config
    samples: Path
    device: torch.device

    @classmethod
    def of(cls, run: Path, device: torch.device, **settings: Any) -> Training:
        """settings: laid over the run's `train`."""
        opened = open_run(run)
        endless = {"epochs": 10**6, "judge_every": 10**6, "max_epochs": None}
        train = opened.config.train.model_copy(update=endless | settings)
        config = opened.config.model_copy(update={"train": train})
        return cls(config, opened.step("sample_negatives"), device)

    def run(self, checkpoint: Path, at_step: Callable[[Trainer, int], None]) -> Trainer:
        """Train until `at_step` raises Enough. It is called every LOG_EVERY steps."""

        def logger(values: dict[str, float], step: int) -> None:
            at_step(trainer, step)

        prepared = load_prepared(self.samples)
        trainer = Trainer(self.config, prepared, self.samples, self.device, checkpoint, logger)
        with suppress(Enough):
            trainer.fit()
        return trainer

    def weights_after(self, steps: int, checkpoint: Path) -> Tensor:
        """The averaged weights after a number of steps, on the CPU. → [parameters]."""

        def stop(trainer: Trainer, step: int) -> None:
            if step >= steps:
                raise Enough

        trainer = self.run(checkpoint, stop)
        parts = [part.detach().flatten().cpu() for part in trainer.average.parameters()]
        return torch.cat(parts)


@dataclass
class StepTimes:
    """Times `steps` steps after the warm-up, then profiles as many. Give it to `Training.run`."""

    steps: int
    started: float = 0.0
    seconds: float = 0.0
    events_per_step: float = 0.0
    profiler: Any = None

    def __call__(self, trainer: Trainer, step: int) -> None:
        """Called every LOG_EVERY steps."""
        synchronize(trainer.device)
        if step == WARM_UP:
            self.started = time.perf_counter()
        elif step == WARM_UP + self.steps:
            self.seconds = time.perf_counter() - self.started
            self.events_per_step = trainer.objective.examples.count / trainer.steps_per_epoch
            self.profiler = profile(activities=list(_activities(trainer.device)))
            self.profiler.start()
        elif step == WARM_UP + 2 * self.steps:
            self.profiler.stop()
            raise Enough

    def row(self) -> str:
        """ms a step, events/s, and from the profile: GPU ms, launches and waits of a step."""
        events = self.profiler.events()
        kernels = [
            event
            for event in events
            if event.device_type == DeviceType.CUDA and not event.is_user_annotation
        ]
        busy = sum(event.time_range.elapsed_us() for event in kernels) / 1000  # µs to ms
        ms = 1000 * self.seconds / self.steps
        cells = [
            f"{ms:.1f}",
            f"{self.events_per_step * self.steps / self.seconds:,.0f}",
            f"{busy / self.steps:.1f} ({busy / self.steps / ms:.0%})",
            f"{_count(events, LAUNCHES) / self.steps:.1f}",
            f"{_count(events, SYNCS) / self.steps:.2f}",
        ]
        return " | ".join(cells)


def _activities(device: torch.device) -> Iterator[ProfilerActivity]:
    yield ProfilerActivity.CPU
    if device.type == "cuda":
        yield ProfilerActivity.CUDA


def _count(events: Any, names: tuple[str, ...]) -> int:
    return sum(event.name in names for event in events)


def measure_steps(run: Path, device: torch.device, steps: int) -> None:
    """Print a row for deterministic kernels and one without."""
    print("| deterministic | ms a step | events/s | GPU busy, ms | launches | waits |")
    print("|---" * 6 + "|")
    for deterministic in (True, False):
        training = Training.of(run, device, deterministic=deterministic, checkpoint_every_s=1e9)
        times = StepTimes(steps)
        with scratch() as checkpoint:
            training.run(checkpoint, times)
        print(f"| {deterministic} | {times.row()} |", flush=True)


def repeat(run: Path, device: torch.device, steps: int) -> None:
    """Print how far two trainings of one seed differ, and one that was killed half way."""
    undisturbed = Training.of(run, device, checkpoint_every_s=1e9)
    saving = Training.of(run, device, checkpoint_every_s=0)
    with scratch() as first, scratch() as second, scratch() as third:
        weights = undisturbed.weights_after(steps, first)
        print(_difference("two trainings", weights, undisturbed.weights_after(steps, second)))
        saving.weights_after(steps // 2, third)
        print(_difference("killed half way", weights, saving.weights_after(steps, third)))


def _difference(name: str, one: Tensor, other: Tensor) -> str:
    largest = float((one - other).abs().max())
    return f"{name}: " + ("bit-equal" if torch.equal(one, other) else f"differ by {largest:.1e}")


def measure_softmax(device: torch.device, targets: int, largest: int) -> None:
    """Print targets/s of the full softmax, forward and backward, by catalogue and kernel."""
    peak = peak_flops(device)
    print(f"a product of {device} runs at {peak / 1e12:.0f} TFLOP/s")
    print("| items × width | kernel | targets/s | TFLOP/s | share of the product's | GiB |")
    print("|---" * 6 + "|")
    kernels: dict[str, Callable[[BatchVectors], Tensor]] = {
        "in chunks": lambda compared: softmax_cross_entropy(compared, None)
    }
    if device.type == "cuda":
        kernels["cut-cross-entropy"] = cut_cross_entropy
    for items, width in CATALOGUES:
        if items > largest:
            continue
        compared = random_targets(targets, items, width, device)
        for name, kernel in kernels.items():
            seconds, gib = time_of(kernel, compared)
            rate = targets / seconds
            flops = 6 * items * width * rate
            cells = f"{rate:,.0f} | {flops / 1e12:.1f} | {flops / peak:.0%} | {gib:.2f}"
            print(f"| {items:,} × {width} | {name} | {cells} |", flush=True)


def random_targets(targets: int, items: int, width: int, device: torch.device) -> BatchVectors:
    """Users, all items, and each user's own one, with gradients."""
    generator = torch.Generator(device).manual_seed(0)
    user = torch.randn(targets, width, generator=generator, device=device, requires_grad=True)
    item = torch.randn(items, width, generator=generator, device=device, requires_grad=True)
    own = torch.randint(items, (targets,), generator=generator, device=device)
    none = torch.zeros(targets, device=device)
    return BatchVectors(
        user=user,
        own=item.index_select(0, own),
        candidate=item,
        temperature=torch.tensor(0.07, device=device),
        own_items=own + 1,
        candidate_items=torch.arange(1, items + 1, device=device),
        log_count_positive=none,
        log_count_negative=torch.zeros(items, device=device),
        catalogue=items,
        whole=True,
    )


def time_of(
    kernel: Callable[[BatchVectors], Tensor], compared: BatchVectors, repeats: int = 5
) -> tuple[float, float]:
    """Seconds of a forward and backward pass after one to warm up, and the peak GiB of a GPU."""
    device = compared.user.device

    def passes(number: int) -> None:
        for _ in range(number):
            compared.user.grad = None
            compared.candidate.grad = None
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = kernel(compared)
            loss.backward(retain_graph=True)  # the own items' vectors are gathered only once
        synchronize(device)

    passes(1)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    started = time.perf_counter()
    passes(repeats)
    seconds = (time.perf_counter() - started) / repeats
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return seconds, peak / 2**30


def peak_flops(device: torch.device, size: int = 8192) -> float:
    """Operations a second of a product of two square bf16 matrices (a small one on a CPU)."""
    size = size if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        product = matrix @ matrix
    synchronize(device)
    started = time.perf_counter()
    for _ in range(20):
        product = matrix @ matrix
    synchronize(device)
    del product
    return 20 * 2 * size**3 / (time.perf_counter() - started)


@contextmanager
def scratch() -> Iterator[Path]:
    """The path of a checkpoint that does not exist yet."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "checkpoint.pt"


def main() -> None:
    """Run the part that the first argument names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("steps", "repeat", "softmax"))
    parser.add_argument("run", type=Path, nargs="?", help="folder of a run (steps, repeat)")
    parser.add_argument("--device", default="cuda", type=torch.device)
    parser.add_argument("--steps", type=int, default=200, help=f"a multiple of {LOG_EVERY}")
    parser.add_argument(
        "--largest", type=int, default=10**6, help="largest catalogue of the softmax"
    )
    parser.add_argument("--targets", type=int, default=16_384, help="events of a batch (softmax)")
    args = parser.parse_args()
    if args.part == "softmax":
        measure_softmax(args.device, args.targets, args.largest)
    elif args.run is None:
        parser.error(f"{args.part} needs the folder of a run")
    elif args.steps < 2 * LOG_EVERY or args.steps % LOG_EVERY:
        parser.error(
            f"--steps is {args.steps}: give a multiple of {LOG_EVERY} from {2 * LOG_EVERY}"
        )
    else:
        {"steps": measure_steps, "repeat": repeat}[args.part](args.run, args.device, args.steps)


if __name__ == "__main__":
    main()
