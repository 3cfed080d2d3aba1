"""Losses and logits against arithmetic done by hand."""

import math

import pytest
import torch

from dssm_core.training.logits import BatchVectors, Logits, similarity
from dssm_core.training.losses.bce import Bce
from dssm_core.training.losses.bpr import Bpr
from dssm_core.training.losses.ccl import Ccl
from dssm_core.training.losses.full_softmax import FullSoftmax
from dssm_core.training.losses.gbce import Gbce
from dssm_core.training.losses.in_batch_softmax import InBatchSoftmax
from dssm_core.training.losses.sampled_softmax import SampledSoftmax
from dssm_core.training.losses.triplet import Triplet

BATCH = Logits(
    torch.tensor([1.0]),
    torch.tensor([[0.5, -1.0]]),
    torch.tensor([math.log(0.2)]),
    torch.tensor([math.log(0.5), math.log(2.0)]),
    101,
)


def test_logits_and_temperature():
    got = comparison(torch.tensor([3]), torch.tensor([4, 5]))._replace(
        user=torch.tensor([[0.6, 0.8]]),
        own=torch.tensor([[1.0, 0.0]]),
        candidate=torch.eye(2),
        temperature=torch.tensor(0.5),
    )
    assert got.logits.positive.tolist() == pytest.approx([1.2])
    assert got.logits.negative[0].tolist() == pytest.approx([1.2, 1.6])


def test_similarities_keep_full_precision_inside_mixed_precision():
    user, item = torch.randn(3, 64), torch.randn(5, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = similarity(user.bfloat16(), item)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, user.bfloat16().float() @ item.T)


def test_own_candidates_by_hand():
    """[B, C, D] candidates: each event meets its own."""
    candidates = torch.tensor([[5, 3], [3, 3]])
    three, five = [1.0, 0.0], [0.0, 2.0]
    got = similarity(
        torch.tensor([[3.0, 4.0], [5.0, 6.0]]), torch.tensor([[five, three], [three, three]])
    )
    assert got.tolist() == [[8.0, 3.0], [5.0, 5.0]]
    masked = comparison(torch.tensor([3, 4]), candidates).logits.negative
    assert masked.isneginf().tolist() == [[False, True], [False, False]]


def comparison(own_items, candidate_items, **more):
    zeros = torch.zeros(len(own_items), 1)
    shape = (*candidate_items.shape, 1)
    counts = torch.zeros(len(own_items)), torch.zeros(candidate_items.shape)
    return BatchVectors(
        zeros,
        zeros,
        torch.zeros(shape),
        torch.ones(()),
        own_items,
        candidate_items,
        *counts,
        9,
        **more,
    )


def test_accidental_hits_cannot_be_negatives():
    masked = comparison(torch.tensor([7, 8]), torch.tensor([8, 7, 9])).logits.negative
    assert masked.tolist() == [[0, -math.inf, 0], [-math.inf, 0, 0]]


def test_a_users_other_items_of_the_batch_are_no_negatives_of_theirs():
    """Users 1 and 2 took 7 and 8; a batch's items come with who took them, -1 for what was drawn
    beside them.
    """
    users = {"own_users": torch.tensor([1, 1, 2]), "candidate_users": torch.tensor([1, 1, 2, -1])}
    masked = comparison(
        torch.tensor([7, 8, 6]), torch.tensor([7, 8, 6, 8]), **users
    ).logits.negative
    out = -math.inf
    assert masked.tolist() == [[out, out, 0, 0], [out, out, 0, out], [0, 0, out, 0]]


def test_sampled_softmax_by_hand():
    plain = -math.log(math.e / (math.e + math.exp(0.5) + math.exp(-1)))
    corrected = -math.log(math.e / (math.e + math.exp(0.5) / 0.5 + math.exp(-1) / 2))
    assert SampledSoftmax(log_q=False)(BATCH).item() == pytest.approx(plain)
    assert SampledSoftmax()(BATCH).item() == pytest.approx(corrected)
    assert InBatchSoftmax()(BATCH).item() == pytest.approx(corrected)


def test_bce_by_hand():
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    plain = -math.log(sigmoid(1)) - math.log(1 - sigmoid(0.5)) - math.log(1 - sigmoid(-1))
    shifted = (
        -math.log(sigmoid(1 - math.log(0.2)))
        - math.log(1 - sigmoid(0.5 - math.log(0.5)))
        - math.log(1 - sigmoid(-1 - math.log(2)))
    )
    assert Bce(log_q=False)(BATCH).item() == pytest.approx(plain)
    assert Bce()(BATCH).item() == pytest.approx(shifted)


def test_bpr_by_hand():
    assert Bpr()(BATCH).item() == pytest.approx(
        (math.log(1 + math.exp(-0.5)) + math.log(1 + math.exp(-2))) / 2
    )


COSINES = Logits(
    torch.tensor([0.9, 0.2]),
    torch.tensor([[0.7, 0.1, -math.inf], [0.5, 0.3, -0.4]]),
    torch.zeros(2),
    torch.zeros(3),
    100,
)


def test_triplet_by_hand():
    every = [0.1, 0, 0, 0.6, 0.4, 0]  # 0.3 - 0.9 + 0.7; …; 0.3 - 0.2 + 0.5; 0.3 - 0.2 + 0.3
    assert Triplet(margin=0.3)(COSINES).item() == pytest.approx(sum(every) / 6)
    assert Triplet(margin=0.3, over="hardest")(COSINES).item() == pytest.approx((0.1 + 0.6) / 2)


def test_ccl_by_hand():
    first, second = (
        0.1 + 12 * (0.3 / 3),
        0.8 + 12 * (0.1 / 3),
    )  # 0.7 - 0.4 and 0.5 - 0.4 are above the margin, the others below
    assert Ccl(margin=0.4, negative_weight=12)(COSINES).item() == pytest.approx(
        (first + second) / 2
    )


def test_full_softmax_by_hand():
    batch = BATCH._replace(
        log_count_negative=torch.full((2,), 5.0)
    )  # of no meaning here: nothing was drawn
    assert FullSoftmax()(batch).item() == pytest.approx(
        math.log(math.e + math.exp(0.5) + math.exp(-1)) - 1
    )


@pytest.mark.parametrize(("calibration", "beta"), [(0.0, 1.0), (1.0, 0.02), (0.75, 0.265)])
def test_gbce_by_hand(calibration, beta):
    """2 candidates of 100 negatives: alpha = 0.02; beta = 0.02 * (t * (1 - 50) + 50), which is
    alpha at t = 1 and 1 at t = 0.
    """
    loss = Gbce(calibration=calibration)
    assert loss.beta(2, 101) == pytest.approx(beta)
    expected = (
        beta * math.log(1 + math.exp(-1)) + math.log(1 + math.exp(0.5)) + math.log(1 + math.exp(-1))
    )
    assert loss(BATCH).item() == pytest.approx(expected / 3)


def test_gbce_with_every_negative_is_plain():
    assert Gbce(calibration=1.0).beta(200, 101) == 1.0


def test_log_q_makes_the_sampled_softmax_estimate_the_full_one():
    """With many draws the corrected loss nears the full softmax whatever the sampler; the
    uncorrected one does not.
    """
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(50, generator=generator)
    q = torch.rand(50, generator=generator) ** 3 + 1e-3
    q /= q.sum()
    count, target = 200_000, 7
    drawn = torch.multinomial(q, count, replacement=True, generator=generator)
    negative = scores[drawn][None].masked_fill(drawn == target, -torch.inf)
    log_count = math.log(count) + q.log()
    batch = Logits(
        scores[target : target + 1], negative, log_count[target : target + 1], log_count[drawn], 50
    )
    full = scores.logsumexp(0) - scores[target]
    assert SampledSoftmax()(batch).item() == pytest.approx(full.item(), abs=0.02)
