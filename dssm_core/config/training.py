"""The model's similarity, and how long and how fast it is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dssm_core.config.base import Section


class Model(Section):
    """The space that users and items share, and how they are compared in it."""

    dim: Annotated[int, Field(ge=2)] = 64
    """Length of the user and item embeddings."""
    similarity: Literal["cosine", "dot"] = "cosine"
    """`cosine` compares vectors of length 1, `dot` compares vectors of any length."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """What similarities are divided by to give logits; the first value, if it is learned."""
    learn_temperature: bool = True
    """Whether the temperature is a parameter of the model."""


class Train(Section):
    """How long and how fast.

    Training has two parts. The first one holds back the last train day (or each user's last item,
    if the split has no days) and chooses the number of epochs by it. The second one trains both
    towers from the start on all train rows for that number of epochs.
    """

    epochs: Annotated[int, Field(ge=1)] = 5
    """Number of epochs over which the learning rate falls to zero. Training stops early if `metric`
    stops improving."""
    max_epochs: Annotated[int, Field(ge=1)] | None = None
    """The limit up to which the number of epochs is doubled as long as the last epoch is the best:
    the learning rate rises again, and falls to zero over the new total; null never goes beyond
    `epochs`."""
    events_per_epoch: Annotated[int, Field(ge=1)] | None = None
    """Number of training examples in an epoch, for logs of which a whole epoch takes too long: an
    evenly spaced sample, another one in each epoch; null takes all."""
    batch_size: Annotated[int, Field(ge=2)] = 1024
    """Number of training examples in a step."""
    negatives: Annotated[int, Field(ge=1)] = 1024
    """Number of candidates that the sampler draws in a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Highest learning rate of the schedule."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of AdamW."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradient; longer gradients are shortened."""
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of all steps in which the learning rate rises from 0."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the exponential moving average over steps, whose weights are evaluated and exported;
    0 takes the weights of the last step."""
    patience: Annotated[int, Field(ge=1)] = 2
    """Number of evaluations without a better one after which training stops."""
    metric: str | None = None
    """The metric and cut-off that choose the number of epochs, such as recall@200 or ndcg@10; null
    takes what the gate compares, recall@`gate.k`. It is measured on the interactions that the first
    part of the training holds back, for the users and items that it has seen."""
    judge_every: Annotated[int, Field(ge=1)] = 1
    """Number of epochs between evaluations."""
    refit: bool = True
    """Whether the towers are trained again on all train rows for the best number of epochs. If
    false, the best towers of the first part are exported.
    """
    target: Literal["next", "future", "rest"] = "next"
    """What each position of a history is trained toward, if item activity is off: the `next` item,
    a random `future` item, or the `rest` of the user's items, for data without an order: a random
    part is the history (none of it if features.history.length is 0)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto` takes a GPU if there is one."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Number of processes that train together, each with its part of every batch, and on a GPU of
    its own if there are GPUs. An update is that of one process up to rounding, except for
    dropout."""
    rank_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that one of several processes waits for another one before all are restarted from the
    checkpoint."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the towers' layers; `auto` takes bf16 on a GPU, else fp32."""
    deterministic: bool = True
    """Whether a GPU uses kernels that give the same weights each time, as a CPU always does."""
    checkpoint_every_s: Annotated[float, Field(ge=0)] = 30.0
    """Seconds between checkpoints, from which an interrupted training goes on."""
    sparse_rows: Annotated[int, Field(ge=0)] = 200_000
    """Embedding tables with more rows than this are not averaged, decayed or clipped, and only the
    rows of a batch are updated (lazy Adam), so that the cost of a step does not grow with the
    vocabulary."""
    start_from: Annotated[str, Field(pattern=r"^(champion|[1-9]\d{0,8})$")] | None = None
    """The registered version whose weights the training starts from: `champion`, or a number. Ids
    and vocabularies are matched by name. Null, and `champion` while there is none, start from the
    seed."""
    id_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of a batch's items whose id the item tower does not see, so that it learns to place
    items that are added after training by their features alone."""

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from dssm_core.metrics import METRICS  # imports numpy; Airflow parses Dags without it

        name, _, k = value.partition("@")
        if name not in METRICS or not k.isdecimal() or int(k) < 1:
            raise ValueError(
                "write a metric and a cut-off, such as recall@200 or ndcg@10;"
                f" metrics: {', '.join(METRICS)}"
            )
        return value

    @model_validator(mode="after")
    def _check_epochs(self) -> Self:
        if self.max_epochs is not None and self.max_epochs < self.epochs:
            raise ValueError(
                f"train.max_epochs is {self.max_epochs}, below train.epochs ({self.epochs}): raise"
                " it, or set it to null"
            )
        return self

    @model_validator(mode="after")
    def _check_processes(self) -> Self:
        if self.processes > self.batch_size:
            raise ValueError(
                f"train.processes is {self.processes}, above train.batch_size ({self.batch_size}):"
                " each process takes a part of every batch, so raise train.batch_size or lower"
                " train.processes"
            )
        return self

    @property
    def last_epoch(self) -> int:
        """The largest number of epochs that a training may have."""
        return self.max_epochs or self.epochs

    @property
    def chosen_by(self) -> str:
        """The metric that chooses the number of epochs; `Config` has filled it in."""
        assert self.metric is not None
        return self.metric
