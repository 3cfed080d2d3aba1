"""Promotion, rollback and their history on a SQLite MLflow: versions without content, days and
aliases by hand.
"""

import itertools
import json
import multiprocessing
import random
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from dssm_core.cli.main import main
from dssm_core.errors import ConfigError, ConflictError, ServiceError
from dssm_core.operation import history as histories
from dssm_core.operation import promotion
from dssm_core.operation.history import Decision, Reign, history, reigns
from dssm_core.operation.promotion import decide, notice
from dssm_core.registry import check
from dssm_core.registry.versions import RegisteredModel, open_model
from dssm_core.runs import files
from dssm_core.tracking.client import connect
from dssm_core.tracking.runs import TEST_DAY_TAG

MODEL = "dssm-made"
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
DAYS = ("2024-02-01", "2024-02-02", "2024-02-03")


def at(minutes):
    return NOON + timedelta(minutes=minutes)


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """An MLflow with three versions of a model, tested on three days; the last is challenger."""
    runs = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client = connect(runs)
    client.create_registered_model(MODEL)
    for day in DAYS:
        client.create_model_version(MODEL, source=str(runs), tags={TEST_DAY_TAG: day})
    client.set_registered_model_alias(MODEL, "challenger", "3")
    return runs / "mlflow.db"


@pytest.fixture
def runs(monkeypatch, database, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copyfile(database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def store(runs):
    return open_model(MODEL, runs)


def test_a_champions_life_by_hand(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    decide("keep", MODEL, runs, at(1), "bob", "not yet")
    decide("promote", MODEL, runs, at(2), "bob", "better")
    assert store.aliases() == {"champion": "3", "previous_champion": "1", "challenger": "3"}
    decide("rollback", MODEL, runs, at(3), "cid", "complaints")
    assert store.aliases() == {"champion": "1", "previous_champion": "3", "challenger": "3"}
    decide("reject", MODEL, runs, at(4), "cid", "complaints", 3)
    known = history(MODEL, runs)
    assert [(made.action, made.version, made.champion, made.previous) for made in known] == [
        ("promote", "1", "1", None),
        ("keep", "3", "1", None),
        ("promote", "3", "3", "1"),
        ("rollback", "1", "1", "3"),
        ("reject", "3", "1", "3"),
    ]
    assert reigns(known) == [
        Reign("1", at(0), at(2), "ann", "first"),
        Reign("3", at(2), at(3), "bob", "better"),
        Reign("1", at(3), None, "cid", "complaints"),
    ]
    tags = store.tags("3")
    assert tags["dssm.decision.action"] == "reject"
    assert Decision.model_validate_json(tags["dssm.decision"]) == known[-1]
    assert (known[-1].by, known[-1].reason, known[-1].at) == ("cid", "complaints", at(4))


def test_the_same_decision_twice_is_one(runs):
    for _ in range(2):
        decide("promote", MODEL, runs, at(0), "ann", "good")
        decide("keep", MODEL, runs, at(1), "ann", "good", 2)
    decide("promote", MODEL, runs, at(5), "bob", "me too")
    assert [(made.action, made.by) for made in history(MODEL, runs)] == [
        ("promote", "ann"),
        ("keep", "ann"),
    ]


def test_what_is_not_there_is_said(runs):
    with pytest.raises(ConfigError, match=r"'dssm-made' has no version 9: it has \[3, 2, 1\]"):
        decide("promote", MODEL, runs, at(0), "ann", version=9)
    with pytest.raises(ConfigError, match=r"has no previous_champion: nothing was champion before"):
        decide("rollback", MODEL, runs, at(0), "ann")
    with pytest.raises(ConfigError, match=r"'dssm-none' .* has no challenger: run the pipeline"):
        decide("promote", "dssm-none", runs, at(0), "ann")
    with pytest.raises(ConfigError, match=r"'\.\./x' must be letters"):
        history("../x", runs)


def test_a_past_day_does_not_replace_a_newer_champion(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "newest", 3)
    with pytest.raises(
        ConfigError, match=r"version 2 .* 2024-02-02, champion version 3 on 2024-02-03.*rollback"
    ):
        decide("promote", MODEL, runs, at(1), "backfill", version=2)
    assert decide("rollback", MODEL, runs, at(2), "ann", "on purpose", 2).champion == "2"
    assert store.aliases()["previous_champion"] == "3"


def test_a_champion_that_moved_meanwhile_is_told(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    decide("promote", MODEL, runs, at(1), "bob", "quicker", 2, seen="1")
    with pytest.raises(
        ConflictError,
        match=r"version 3 .* against champion 1, but bob made it 2 at 2024-03-01 12:01:00 UTC",
    ):
        decide("promote", MODEL, runs, at(2), "ann", "slower", 3, seen="1")
    with pytest.raises(ConflictError, match="against champion none, but bob"):
        decide("promote", MODEL, runs, at(2), "ann", "slower", 3, seen="")
    assert store.aliases()["champion"] == "2"


def test_what_does_not_answer_is_not_promoted(runs, store):
    def broken(model, version):
        raise ServiceError(f"version {version} does not answer")

    with pytest.raises(ServiceError, match="version 3 does not answer"):
        decide("promote", MODEL, runs, at(0), "ann", check=broken)
    assert "champion" not in store.aliases()
    assert history(MODEL, runs) == []


def test_a_champion_set_in_mlflow_is_noticed_once(runs, store):
    assert notice(MODEL, runs, at(0)) is None
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    store.point("champion", "2")
    found = notice(MODEL, runs, at(7))
    assert (found.action, found.version, found.champion, found.by, found.at) == (
        "moved",
        "2",
        "2",
        "MLflow",
        at(7),
    )
    assert notice(MODEL, runs, at(8)) is None
    store.point(
        "champion", "1"
    )  # its tags still tell of the first promotion, which is written already
    assert notice(MODEL, runs, at(9)).action == "moved"
    store.client.delete_registered_model_alias(MODEL, "champion")
    assert decide("promote", MODEL, runs, at(10), "ann", "again", 3).champion == "3"
    assert [(made.action, made.champion) for made in history(MODEL, runs)[-2:]] == [
        ("moved", None),
        ("promote", "3"),
    ]


@pytest.fixture
def killed(runs, store, monkeypatch):
    """A function (moment, decision) -> whether the decision over ann's 1 was made: it is killed as
    it begins that moment.
    """

    def kill(moment, *decision):
        def dies(*arguments):
            if moment in ("tag", "append") or moment in arguments:
                raise KeyboardInterrupt
            point(*arguments)

        point = RegisteredModel.point
        with monkeypatch.context() as patch:
            where = promotion if moment == "append" else RegisteredModel
            patch.setattr(where, moment if moment in ("tag", "append") else "point", dies)
            with pytest.raises(KeyboardInterrupt):
                decide(*decision)
        return moment in ("previous_champion", "append")  # once `champion` has moved

    return kill


MOMENTS = pytest.mark.parametrize("moment", ["tag", "champion", "previous_champion", "append"])


@MOMENTS
def test_a_killed_promotion_is_completed_by_the_next_look(runs, store, killed, moment):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    better = ("promote", MODEL, runs, at(1), "bob", "better", 2)
    made = killed(moment, *better)
    assert (notice(MODEL, runs, at(9)) is not None) == made
    assert_the_history_replays(store, runs)
    again = decide(*better)
    assert history(MODEL, runs)[1:] == [again]
    assert (again.by, again.reason, again.at) == ("bob", "better", at(1))
    assert_the_history_replays(store, runs)


@MOMENTS
def test_a_rollback_of_a_killed_promotion_goes_back_to_the_champion_before(
    runs, store, killed, moment
):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    if killed(moment, "promote", MODEL, runs, at(1), "bob", "better", 2):
        assert decide("rollback", MODEL, runs, at(9), "cid", "wrong").champion == "1"
        assert [made.by for made in history(MODEL, runs)] == ["ann", "bob", "cid"]
    else:
        with pytest.raises(ConfigError, match="nothing was champion before"):
            decide("rollback", MODEL, runs, at(9), "cid", "wrong")
    assert_the_history_replays(store, runs)


@MOMENTS
def test_a_killed_rollback_that_is_tried_again_goes_back_once(runs, store, killed, moment):
    """`previous_champion` is another one once it is done."""
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    decide("promote", MODEL, runs, at(1), "bob", "better", 2)
    back = ("rollback", MODEL, runs, at(9), "cid", "wrong")
    killed(moment, *back)
    assert decide(*back) == decide(*back)
    assert [(made.by, made.champion) for made in history(MODEL, runs)] == [
        ("ann", "1"),
        ("bob", "2"),
        ("cid", "1"),
    ]
    assert_the_history_replays(store, runs)


def assert_the_history_replays(store, runs):
    champion = previous = None
    for made in history(MODEL, runs):
        if made.action in promotion.MOVES:
            champion, previous = made.version, champion or previous
        assert (made.champion, made.previous) == (champion, previous)
    assert (store.aliases().get("champion"), store.aliases().get("previous_champion")) == (
        champion,
        previous,
    )


def test_a_line_that_a_power_cut_left_half_written_makes_room(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    file = histories.history_file(MODEL, runs)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:50])
    assert len(history(MODEL, runs)) == 1
    decide("promote", MODEL, runs, at(1), "bob", "better", 2)
    assert [made.by for made in history(MODEL, runs)] == ["ann", "bob"]
    assert file.read_bytes().startswith(whole)


def test_previous_champion_set_in_mlflow_is_noticed(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    store.point("previous_champion", "3")
    assert (notice(MODEL, runs, at(1)).champion, history(MODEL, runs)[-1].previous) == ("1", "3")
    assert notice(MODEL, runs, at(2)) is None
    assert len(reigns(history(MODEL, runs))) == 1


def test_a_rollback_after_a_move_by_hand_goes_to_the_champion_before_it(runs, store):
    """MLflow's page moves `champion` alone: `previous_champion` would still be the one before the
    one before.
    """
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    decide("promote", MODEL, runs, at(1), "ann", "second", 2)
    store.point("champion", "3")
    assert notice(MODEL, runs, at(2)).previous == "2"
    assert store.aliases()["previous_champion"] == "2"
    assert decide("rollback", MODEL, runs, at(3), "bob", "by mistake").champion == "2"
    store.point("champion", "3")  # which is `previous_champion` now
    assert decide("rollback", MODEL, runs, at(4), "bob", "again by mistake").champion == "2"
    assert store.aliases() == {"champion": "2", "previous_champion": "3", "challenger": "3"}
    assert [(made.action, made.champion, made.previous) for made in history(MODEL, runs)[2:]] == [
        ("moved", "3", "2"),
        ("rollback", "2", "3"),
        ("moved", "3", "2"),
        ("rollback", "2", "3"),
    ]
    assert notice(MODEL, runs, at(5)) is None


def test_a_second_rollback_must_say_where_to(runs, store):
    """Without a version it would return to the one that was just left."""
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    decide("promote", MODEL, runs, at(1), "ann", "second", 2)
    decide("rollback", MODEL, runs, at(2), "bob", "bad")
    with pytest.raises(ConfigError, match="would return to version 2, which was left then: give"):
        decide("rollback", MODEL, runs, at(3), "bob", "worse")
    assert decide("rollback", MODEL, runs, at(3), "bob", "worse", 2).champion == "2"


def test_the_page_of_each_version_follows_later_decisions(runs, store):
    store.client.update_model_version(MODEL, "2", "the verdict")
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    decide("promote", MODEL, runs, at(1), "ann", "second", 2)
    decide("rollback", MODEL, runs, at(2), "bob", "bad")
    action = f"{promotion.DECISION_TAG}.action"
    assert (store.tags("1")[action], store.tags("2")[action]) == (
        "rollback",
        "rolled back to version 1",
    )
    one, two = (store.client.get_model_version(MODEL, version).description for version in "12")
    when = f"{at(2):%Y-%m-%d %H:%M %Z}"
    assert one == f"**Decision:** rollback, {when}, by bob: bad\n\n"
    assert two == (f"**Decision:** rolled back to version 1, {when}, by bob: bad\n\nthe verdict")


def test_without_a_champion_the_one_before_stays_on_record(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    decide("promote", MODEL, runs, at(1), "ann", "second", 2)
    store.client.delete_registered_model_alias(MODEL, "champion")
    assert decide("promote", MODEL, runs, at(2), "bob", "third", 3).previous == "1"
    assert store.aliases() == {"champion": "3", "previous_champion": "1", "challenger": "3"}
    assert notice(MODEL, runs, at(3)) is None


def test_a_reason_of_any_signs_is_kept_and_one_that_no_tag_holds_is_refused(runs, store):
    with pytest.raises(ConfigError, match="reason is 1001 characters long, 1000 fit"):
        decide("promote", MODEL, runs, at(0), "ann", "x" * 1001, 1)
    made = decide("promote", MODEL, runs, at(0), "ann", '"\u2028\n' + 997 * '"', 1)
    assert history(MODEL, runs) == [made]
    assert Decision.model_validate_json(store.tags("1")[promotion.DECISION_TAG]) == made


def test_a_lock_that_is_held_or_cannot_be_had_is_told(runs, monkeypatch):
    monkeypatch.setattr(histories, "LOCK_TIMEOUT_S", 0.1)
    with (
        histories.history_lock(MODEL, runs),
        pytest.raises(
            ServiceError, match=r"dssm-made\.lock has been held for 0 s: another promotion hangs"
        ),
    ):
        decide("promote", MODEL, runs, at(0), "ann", "first", 1)

    def refuse(lock):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.FileLock, "acquire", refuse)
    with pytest.raises(ServiceError, match=r"dssm-made\.lock: No locks available"):
        decide("promote", MODEL, runs, at(0), "ann", "first", 1)


def at_random(runs, seed, times):
    """Decide until `times` decisions were this process's: others came too late, or found that their
    version was the champion.
    """
    generator, me = random.Random(seed), f"process {seed}"
    made = 0
    while made < times:
        action, version = generator.choice(["promote", "rollback"]), generator.choice([1, 2, 3])
        with suppress(ConfigError, ConflictError):
            made += decide(action, MODEL, runs, at(made), me, f"{made}", version).by == me


def test_four_processes_at_random_leave_a_history_that_replays(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=at_random, args=(runs, seed, 3)) for seed in range(4)]
    for process in processes:
        process.start()
    seen = []
    while any(process.is_alive() for process in processes):
        seen.append(store.aliases().get("champion"))
    known, now = history(MODEL, runs), store.aliases()
    assert [process.exitcode for process in processes] == [0] * 4
    assert None not in seen
    assert (known[-1].champion, known[-1].previous) == (now["champion"], now["previous_champion"])
    assert all(after.previous == before.champion for before, after in itertools.pairwise(known))
    assert {made.by for made in known} == {"ann", *(f"process {seed}" for seed in range(4))}


def lines(runs):
    file = histories.history_file(MODEL, runs)
    return file.read_bytes() if file.is_file() else b""


def dssm(runs, *arguments):
    return CliRunner().invoke(main, [*arguments, "--runs", str(runs)])


def test_showing_the_history_writes_nothing(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    store.point("champion", "2")
    before = lines(runs)
    shown = dssm(runs, "history", MODEL, "--json").stdout.splitlines()
    assert [json.loads(line)["action"] for line in shown] == ["promote", "moved"]
    assert lines(runs) == before
    assert store.aliases().get("previous_champion") is None
    assert notice(MODEL, runs, at(1)).champion == "2"


def test_another_server_is_refused_and_the_history_stays(runs, store, monkeypatch, tmp_path):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    assert history(MODEL, runs)[0].server == f"sqlite:///{runs}/mlflow.db"
    before = lines(runs)
    other = f"sqlite:///{tmp_path}/other.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", other)
    for call in (
        lambda: notice(MODEL, runs, at(1)),
        lambda: decide("promote", MODEL, runs, at(1), "bob", "second", 2),
    ):
        with pytest.raises(ConfigError, match=r"is of MLflow at sqlite.*set MLFLOW_TRACKING_URI"):
            call()
    assert dssm(runs, "history", MODEL).exit_code != 0
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert dssm(runs, "history", MODEL).exit_code == 0
    assert lines(runs) == before


def test_the_same_server_at_another_address_is_accepted(runs, store, monkeypatch):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    moved = runs / "moved.db"
    shutil.copyfile(runs / "mlflow.db", moved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved}")
    assert decide("promote", MODEL, runs, at(1), "bob", "second", 2).champion == "2"


def test_a_line_of_an_earlier_version_of_the_code_names_no_server_and_is_read(runs, store):
    decide("promote", MODEL, runs, at(0), "ann", "first", 1)
    line = json.loads(lines(runs))
    del line["server"], line["created_ms"]
    histories.history_file(MODEL, runs).write_text(json.dumps(line) + "\n")
    assert decide("promote", MODEL, runs, at(1), "bob", "second", 2).previous == "1"


def test_the_commands(runs, monkeypatch):
    asked = []
    monkeypatch.setattr(
        check, "check_version", lambda name, version, folder: asked.append((name, version))
    )

    def dssm(*arguments):
        return CliRunner().invoke(main, [*arguments, "--runs", str(runs)])

    assert dssm("history", MODEL, "--json").stdout == ""
    assert "nothing was decided on 'dssm-made' yet" in dssm("history", MODEL).stderr
    done = dssm("promote", MODEL, "--version", "1", "--by", "ann", "--reason", "first [of all]")
    assert json.loads(done.stdout)["champion"] == "1"
    assert dssm("promote", MODEL, "--by", "bob").exit_code == 0
    assert (
        json.loads(dssm("rollback", MODEL, "--by", "cid", "--reason", "bad day").stdout)["champion"]
        == "1"
    )
    assert asked == [(MODEL, "1"), (MODEL, "3"), (MODEL, "1")]
    assert dssm("rollback", MODEL).exit_code == 2  # without a reason
    lines = dssm("history", MODEL).stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["1", "3", "1"]
    assert "first [of all]" in lines[1]
    assert "today" in lines[3]
    assert len(dssm("history", MODEL, "--json").stdout.splitlines()) == 3
    assert "rollback" in dssm("history", MODEL, "--decisions").stdout
