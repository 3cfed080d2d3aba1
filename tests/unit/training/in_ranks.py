"""What the processes of tests/unit/training/test_ranks.py do. It imports little, as each of them
imports it.
"""

import copy
import itertools
import os
import signal
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from dssm_core.errors import ConfigError
from dssm_core.features.dataset import load_prepared
from dssm_core.models.two_tower import TwoTower
from dssm_core.runs.layout import CHECKPOINT_FILE
from dssm_core.runs.manifest import Outcome
from dssm_core.runs.run import open_run
from dssm_core.training.checkpoint import load_checkpoint
from dssm_core.training.objective import Objective
from dssm_core.training.optimizers import make_optimizers
from dssm_core.training.ranks import Ranks
from dssm_core.training.train_towers import train

# Of the second rank, by attempt: a signal, and the update of the attempt in which it comes.
FAULTS = ((signal.SIGKILL, 25), (signal.SIGSTOP, 5))
CALLS = itertools.count(1)


@contextmanager
def no_logger(run):
    yield lambda values, step: None


def of_batches(run, ranks):
    """The loss and the gradients of three batches, one of them of one row. → [n] each."""
    samples = run.step("sample_negatives")
    prepared = load_prepared(samples)
    objective = Objective(run.config, prepared, prepared.log, samples, "refit", ranks)
    torch.manual_seed(0)
    model = TwoTower(run.config, prepared.schema, prepared.items)
    make_optimizers(model, copy.deepcopy(model), run.config.train)
    first, second = objective.batches(seed=0)[:2]
    small = replace(first, at=first.at[:1], events=1) if objective.examples.fixed_shapes else first
    found = []
    for seed, rows in enumerate((first, second, small)):
        model.zero_grad()
        loss = objective(model, rows, torch.Generator().manual_seed(seed))
        loss.backward()
        parts = [ranks.add_up(model, loss.detach())]
        parts += [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
        found.append(torch.cat([part.flatten() for part in parts]))
    return found


def undisturbed(run, work, roots, ranks):
    """Write what `of_batches` of the runs in `roots` finds, then train `run`."""
    for root in roots:
        found = of_batches(open_run(root), ranks)
        if ranks.first:
            torch.save(found, work / f"{root.name}.pt")
    return train(run, work, no_logger, ranks)


@dataclass(frozen=True)
class Faulty(Ranks):
    """A rank that gets a signal in the middle of an update."""

    fault: signal.Signals = signal.SIGKILL
    at: int = 1

    def add_up(self, model, loss):
        if next(CALLS) == self.at:
            os.kill(os.getpid(), self.fault)
        return super().add_up(model, loss)


def disturbed(run, work, live_logger, ranks):
    """Train; the second rank is killed in the first attempt and hangs in the second one. The steps
    from which the attempts start are written to attempts.txt.
    """
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if ranks.first:
        state = load_checkpoint(work / CHECKPOINT_FILE)
        with open(work / "attempts.txt", "a") as file:
            file.write(f"{state['progress']['step'] if state else 0}\n")
    elif attempt < len(FAULTS):
        ranks = Faulty(ranks.rank, ranks.size, *FAULTS[attempt])
    return train(run, work, live_logger, ranks)


def diverging(run, work, live_logger, ranks):
    """Fail as a training does whose loss is not finite."""
    raise ConfigError("training diverged")


def idle(run, work, live_logger, ranks):
    """Do nothing."""
    return Outcome({"size": ranks.size})
