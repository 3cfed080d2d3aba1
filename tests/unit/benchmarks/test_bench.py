"""Tables are read and run, each job in a process of its own (here a small script), and the page is
written from the records.
"""

import json
import sys
import time
from datetime import date
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from benchmarks import measuring, records
from benchmarks.__main__ import main
from benchmarks.jobs import Job, all_jobs, queues
from benchmarks.lines import lines_of
from benchmarks.tables import find_tables, read_bench
from dssm_core.config import read_config
from dssm_core.runs.json_lines import read_json_lines
from dssm_core.runs.run import Run
from tests.conftest import REPO, small_config

# Runs in place of `dssm run`: writes a run folder and prints a summary whose recall follows from
# the seed. Seed 13 fails, seed 14 is killed.
CHILD = """
import json, os, signal, sys
from pathlib import Path
runs, seed, title, count = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
with count.open("a") as stream:
    stream.write(f"{title} {seed} {os.environ['OMP_NUM_THREADS']}\\n")
print("▶ train_towers     train", file=sys.stderr)
if seed == 13:
    sys.exit("ValueError: seed 13 is unlucky,\\nnever")
if seed == 14:
    os.kill(os.getpid(), signal.SIGKILL)
root = runs / "small" / "day" / f"{title}-{seed}"
trained = {"parameters": 1_500_000, "device": "cpu"}
for step, info in (("train_towers", trained), ("recall_gate", {})):
    (root / step).mkdir(parents=True)
    manifest = {"step": step, "key": "k", "files": {}, "rows": {}, "info": info}
    manifest |= {"seconds": 2.0, "seed": seed}
    (root / step / "manifest.json").write_text(json.dumps(manifest))
(root / "config.json").write_text("{}")
served = {"recall@200": seed / 10, "recall@20": seed / 100}
hot = {"recall@200": 0.05, "seconds": 0.25, "by_window": {"1h": 0.1, "3h": 0.3}}
metrics = {"served": served, "baselines": {"hot": hot}, "ceiling": {"recall@200": 0.9}}
metrics |= {"all": {"served": {"recall@20": 0.01}}}
print("chatter")
seconds = {"train_towers": 2.0, "recall_gate": 2.0}
print(json.dumps({"run": str(root), "metrics": metrics, "rows": {}, "seconds": seconds}))
"""

TABLE = {
    "title": "A trial",
    "protocol": "One day, all users.",
    "columns": {
        "recall@200": "recall@200",
        "recall@20": "recall@20",
        "all.recall@20": "everyone, recall@20",
    },
    "seeds": [1, 2, 3],
    "rows": [
        {"title": "hot", "config": "small.yaml", "baseline": "hot"},
        {
            "title": "hot, best window",
            "config": "small.yaml",
            "baseline": "hot",
            "best_of": {"recall@200": "by_window"},
        },
        {
            "title": "ours",
            "config": "small.yaml",
            "published": {"recall@20": 0.25},
            "source": "Doe 2020",
            "same_data": "users 1-9",
        },
        {"title": "ours|bce", "config": "small.yaml", "set": ["loss.kind=bce"]},
        {
            "title": "theirs",
            "published": {"recall@200": 0.5, "recall@20": 0.4},
            "source": "Roe 2021",
            "same_data": True,
        },
        {"title": "ceiling", "config": "small.yaml", "ceiling": True},
    ],
}


@pytest.fixture
def checkout(tmp_path):
    """A checkout with one table, `trial`, and one config."""
    root = tmp_path / "checkout"
    for folder in ("benchmarks", "configs", "docs"):
        (root / folder).mkdir(parents=True)
    (root / "configs" / "small.yaml").write_text(yaml.safe_dump(small_config()))
    (root / "docs" / "benchmarks.md").write_text(
        "# Benchmarks\n\n<!-- bench:trial -->\nold\n<!-- /bench:trial -->\n\nThe end.\n"
    )
    write(root, "trial", TABLE)
    return root


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Jobs run CHILD; returns the runs made so far, as `title seed threads`."""
    file = tmp_path / "ran"

    def command(job, data, runs):
        title = "bce" if job.overrides else "plain"
        return [sys.executable, "-c", CHILD, str(runs), str(job.seed), title, str(file)]

    monkeypatch.setattr(Job, "command", command)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return lambda: sorted(file.read_text().splitlines()) if file.is_file() else []


def write(checkout, name, table):
    (checkout / "benchmarks" / f"{name}.yaml").write_text(yaml.safe_dump(table, sort_keys=False))


def run_benchmarks(checkout, *arguments):
    return CliRunner().invoke(
        main,
        [
            *map(str, arguments),
            "--checkout",
            str(checkout),
            "--runs",
            str(checkout / "runs"),
        ],
    )


def published_records(checkout, name="trial"):
    return read_json_lines(checkout / "benchmarks" / "results" / f"{name}.jsonl")


def cells(checkout, title):
    """The cells of a row of the written table."""
    lines = (checkout / "docs" / "benchmarks.md").read_text().splitlines()
    line = next(line for line in lines if line.startswith((f"| {title}", f"| [{title}")))
    return [cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")][1:]


@pytest.mark.parametrize("name", sorted(find_tables()))
def test_every_shipped_table_can_run(name):
    found = read_bench(name)
    assert all_jobs(found)
    docs = (REPO / "docs" / "benchmarks.md").read_text()
    assert f"<!-- bench:{name} -->" in docs
    assert f"<!-- /bench:{name} -->" in docs


def test_a_table_is_run_recorded_and_written(checkout, ran):
    done = run_benchmarks(checkout, "trial")
    assert done.exit_code == 0, done.output
    assert ran() == [f"{title} {seed} 1" for title in ("bce", "plain") for seed in (1, 2, 3)], (
        "rows of equal settings share runs"
    )
    text = (checkout / "docs" / "benchmarks.md").read_text()
    assert text.startswith(
        "# Benchmarks\n\n<!-- bench:trial -->\n```\npython -m benchmarks trial\n```\n"
    )
    assert text.endswith("![A trial](images/bench-trial.png)\n<!-- /bench:trial -->\n\nThe end.\n")
    assert "One day, all users." in text
    assert "✓ ours, seed 2: 4 s" in done.stderr, "a run is named after the row that trains"
    assert "6 runs on cpu, threads each: 1" in text
    # seeds 1, 2, 3: recalls 0.1, 0.2, 0.3, so mean 0.2 and standard deviation 0.1; two steps of 2
    # s, one of them training
    peak = f"{max(record['peak_gib'] for record in published_records(checkout)):.1f}"
    assert cells(checkout, "ours]") == [
        "**0.200** ± 0.100", "**0.020** ± 0.010", "**0.010**", "recall@20 0.250",
        "users 1-9", "Doe 2020", "3", "2", "4", peak, "1.50 M",
    ]  # fmt: skip
    assert cells(checkout, "hot ") == ["0.050", "–", "–", "", "", "", "3", "0.2", "–", "–", "–"]
    assert cells(checkout, "hot, best")[:2] == ["0.300", "–"]
    assert cells(checkout, "ceiling")[0] == "0.900"
    assert cells(checkout, "theirs")[:7] == [
        "–",
        "–",
        "–",
        "recall@200 0.500, recall@20 0.400",
        "yes",
        "Roe 2021",
        "–",
    ]
    assert r"[ours\|bce](../configs/small.yaml)" in text
    assert (checkout / "docs" / "images" / "bench-trial.png").read_bytes().startswith(b"\x89PNG")
    assert str(checkout) not in (checkout / "benchmarks" / "results" / "trial.jsonl").read_text(), (
        "no path of this machine is kept"
    )


def test_what_is_measured_is_not_run_again(checkout, ran):
    run_benchmarks(checkout, "trial")
    again = run_benchmarks(checkout, "trial")
    assert len(ran()) == 6
    assert "6 runs, 6 of them measured already" in again.stderr
    assert "✓" not in again.stderr
    write(checkout, "trial", TABLE | {"seeds": [1, 2, 3, 4]})
    run_benchmarks(checkout, "trial")
    assert ran()[3:] == ["bce 4 1", "plain 1 1", "plain 2 1", "plain 3 1", "plain 4 1"]
    (checkout / "configs" / "small.yaml").write_text(yaml.safe_dump(small_config(train__epochs=3)))
    run_benchmarks(checkout, "trial", "--docs-only")
    assert (
        "The settings of these rows have changed since, run them again: ceiling, hot"
        in (checkout / "docs/benchmarks.md").read_text()
    )
    # without --fresh, CHILD would write into folders that exist
    run_benchmarks(checkout, "trial", "--fresh")
    assert len(ran()) == 16


def test_other_code_is_measured_again(checkout, ran, monkeypatch):
    run_benchmarks(checkout, "trial", "--rows", "ours")
    jobs = all_jobs(read_bench("trial", checkout), checkout)
    assert [job.seed for job in records.measured_jobs(jobs, checkout / "runs")] == [1, 2, 3]
    monkeypatch.setattr(records, "code_version", lambda: "other")
    assert records.measured_jobs(jobs, checkout / "runs") == {}


def test_some_rows_and_seeds(checkout, ran):
    done = run_benchmarks(checkout, "trial", "--rows", "OURS?b*", "--seeds", "5,7")
    assert done.exit_code == 0, done.output
    assert ran() == ["bce 5 1", "bce 7 1"]
    assert (
        "python -m benchmarks trial --seeds 5,7"
        in (checkout / "docs" / "benchmarks.md").read_text()
    )
    assert cells(checkout, r"ours\|bce")[0] == "**0.600** ± 0.141"
    assert cells(checkout, "ours]")[0] == "not run"
    assert [record["seed"] for record in published_records(checkout)] == [5, 7]


def test_a_failing_run_is_recorded_and_does_not_stop_the_others(checkout, ran):
    done = run_benchmarks(checkout, "trial", "--seeds", "13,1,14", "--rows", "ours")
    assert done.exit_code == 1
    assert len(ran()) == 3
    errors = {record["seed"]: record["error"] for record in published_records(checkout)}
    assert errors == {
        13: "ValueError: seed 13 is unlucky,\nnever",
        1: None,
        14: "ended by SIGKILL: out of memory?",
    }
    text = (checkout / "docs" / "benchmarks.md").read_text()
    assert "- ours failed: ValueError: seed 13 is unlucky, never" in text
    assert cells(checkout, "ours]")[0] == "**0.100**", "of the seed that went well"
    run_benchmarks(checkout, "trial", "--seeds", "13,1,14", "--rows", "ours")
    assert len(ran()) == 5, "a failed run is tried again, the other one not"


def test_runs_side_by_side_share_the_cores(checkout, ran, monkeypatch):
    monkeypatch.setattr(measuring, "cores", lambda: 8)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{checkout}/mlflow.db")
    done = run_benchmarks(checkout, "trial", "--jobs", "3")
    assert done.exit_code == 0, done.output
    assert ran() == [f"{title} {seed} 2" for title in ("bce", "plain") for seed in (1, 2, 3)]
    assert {record["threads"] for record in published_records(checkout)} == {2}


def test_a_table_is_run_by_one_process_at_a_time(checkout, ran):
    with measuring.exclusively(read_bench("trial", checkout), checkout / "runs"):
        done = run_benchmarks(checkout, "trial", "--seeds", "1")
    assert done.exit_code == 1
    assert "another `python -m benchmarks trial` is running" in " ".join(done.output.split())
    assert ran() == []


def test_jobs_that_may_share_a_training_are_not_run_side_by_side(checkout):
    jobs = list(all_jobs(read_bench("trial", checkout, seeds=[1, 2]), checkout))
    assert [[(bool(job.overrides), job.seed) for job in queue] for queue in queues(jobs)] == [
        [(False, 1), (True, 1)],
        [(False, 2), (True, 2)],
    ]


def test_queued_jobs_wait_for_each_other(checkout, monkeypatch):
    running, together = set(), []

    def run_job(job, *_):
        together.append((job.config, job.seed) in running)
        running.add((job.config, job.seed))
        time.sleep(0.05)
        running.remove((job.config, job.seed))
        return {"job": job.id, "error": None}

    monkeypatch.setattr(measuring, "run_job", run_job)
    found = read_bench("trial", checkout, seeds=[1, 2])
    jobs = list(all_jobs(found, checkout))
    done = measuring.measure(found, jobs, checkout / "runs", None, at_once=4)
    assert sorted(record["job"] for record in done) == sorted(job.id for job in jobs)
    assert together == [False] * 4


def test_each_test_day_has_its_own_line(checkout, ran):
    rows = [TABLE["rows"][2], TABLE["rows"][4]]
    write(
        checkout,
        "trial",
        TABLE | {"rows": rows, "test_days": [date(2024, 3, 6), date(2024, 3, 7)], "seeds": [1]},
    )
    found = read_bench("trial", checkout)
    jobs = list(all_jobs(found, checkout))
    assert [job.read().split.test_day for job in jobs] == [date(2024, 3, 6), date(2024, 3, 7)]
    lines = lines_of(found.tables[0], {}, checkout)
    assert [(line.row.title, line.day) for line in lines] == [
        ("ours", date(2024, 3, 6)),
        ("ours", date(2024, 3, 7)),
        ("theirs", None),
    ]


def test_parts_of_tables_run_with_their_own_seeds(checkout, ran):
    write(
        checkout, "parts", {"title": "Seeds", "tables": {"trial": ["ours", "hot"]}, "seeds": [4, 5]}
    )
    assert run_benchmarks(checkout, "parts").exit_code == 0
    assert ran() == ["plain 4 1", "plain 5 1"]
    text = (checkout / "docs" / "benchmarks.md").read_text()
    assert "python -m benchmarks parts --fresh\n" in text
    assert "### A trial, 2 seeds\n\nMeasured by the protocol of" in text
    assert "\n## Seeds\n\n<!-- bench:parts -->\n" in text, "a section without markers is added"
    assert "old" in text, "the other table's section is left alone"
    assert cells(checkout, "ours]")[0] == "**0.450** ± 0.071"


def test_a_table_without_records_says_not_run_and_has_no_picture(checkout):
    assert run_benchmarks(checkout, "trial", "--docs-only").exit_code == 0
    text = (checkout / "docs" / "benchmarks.md").read_text()
    assert "Not run yet." in text
    assert cells(checkout, "theirs")[3] == "recall@200 0.500, recall@20 0.400"
    assert "| hot" not in text
    assert not (checkout / "docs" / "images").exists()


def test_the_command_is_one_process_up_to_the_gate(checkout):
    job = Job(checkout / "configs", "small.yaml", ("loss.kind=bce",), "sub", date(2024, 3, 7), 5)
    command = job.command(Path("/data"), Path("/runs"))
    assert command[:6] == [
        sys.executable,
        "-m",
        "dssm_core.cli",
        "run",
        str(checkout / "configs" / "small.yaml"),
        "--json",
    ]
    assert command[6:] == [
        "--until", "recall_gate", "--runs", "/runs", "--data", "/data/sub",
        "--set", "loss.kind=bce", "--set", 'split.test_day="2024-03-07"', "--set", "seed=5",
    ]  # fmt: skip
    config = read_config(job.file, overrides=job.settings)
    assert (config.loss.kind, config.seed, config.split.test_day) == ("bce", 5, date(2024, 3, 7))


def test_a_reused_step_counts_what_it_took_where_it_ran(tmp_path):
    chain = {"first": None, "second": "first", "third": "second", "orphan": "gone"}
    for name, reused in chain.items():
        folder = tmp_path / name / "train_towers"
        folder.mkdir(parents=True)
        manifest = {
            "step": "train_towers",
            "key": "k",
            "files": {},
            "rows": {},
            "info": {},
            "seconds": 0.0 if reused else 7.0,
            "seed": 1,
        }
        (folder / "manifest.json").write_text(json.dumps(manifest | {"reused_from": reused}))
    origins = {name: measuring.origin(Run(tmp_path / name), "train_towers").id for name in chain}
    assert origins == {"first": "first", "second": "first", "third": "first", "orphan": "orphan"}


def test_an_unfinished_training_starts_again(checkout):
    found = read_bench("trial", checkout)
    part = (
        checkout
        / "runs"
        / "bench"
        / "trial"
        / "small"
        / "2024-03-07"
        / "cli-x"
        / ".train_towers.part"
    )
    part.mkdir(parents=True)
    measuring.remove_unfinished_trainings(found, checkout / "runs")
    assert part.parent.is_dir()
    assert not part.exists()


def test_the_step_that_a_log_has_reached(tmp_path):
    log = tmp_path / "log"
    assert measuring.step_of(log) == ""
    log.write_text(
        "run x\n▶ ingest_data    read\n✓ ingest_data 1 s\n▶ validate_data check\nsome words\n"
    )
    assert measuring.step_of(log) == "validate_data"


@pytest.mark.parametrize(
    ("changes", "arguments", "sentence"),
    [
        ({}, ["tral"], "unknown table 'tral': did you mean 'trial'?"),
        ({}, ["trial", "--rows", "ourz"], "unknown row 'ourz': did you mean 'ours'?"),
        ({}, ["trial", "--seeds", "1,x"], "--seeds '1,x' is not a list of whole numbers"),
        (
            {"data": "globo"},
            ["trial"],
            "table 'trial' reads 'globo': give the folder that holds it with --data",
        ),
        ({"data": "globo"}, ["trial", "--data", "/nowhere"], "/nowhere/globo does not exist"),
        ({"seed": [1]}, ["trial"], "seed: Extra inputs are not permitted"),
        (
            {"rows": [{"title": "a"}]},
            ["trial"],
            "row 'a' has neither config nor published figures",
        ),
        (
            {"rows": [{"title": "a", "published": {"recall@20": 1}}]},
            ["trial"],
            "add their source and same_data",
        ),
        ({"rows": [TABLE["rows"][2]] * 2}, ["trial"], "two rows are called 'ours'"),
        (
            {"rows": [TABLE["rows"][4] | {"published": {"recall@21": 0.1}}]},
            ["trial"],
            "row 'theirs' publishes 'recall@21': did you mean 'recall@20'?",
        ),
        (
            {"rows": [{"title": "a", "config": "small.yaml", "baseline": "hat"}]},
            ["trial"],
            "small.yaml measures no baseline 'hat': did you mean 'hot'?",
        ),
        ({"rows": [{"title": "a", "config": "none.yaml"}]}, ["trial"], "none.yaml' is not a file"),
        (
            {"rows": [{"title": "a", "config": "small.yaml", "set": ["train.epoch=1"]}]},
            ["trial"],
            "did you mean 'epochs'?",
        ),
    ],
)
def test_an_error_is_one_sentence_and_nothing_runs(
    checkout, ran, monkeypatch, changes, arguments, sentence
):
    monkeypatch.delenv("DSSM_DATA", raising=False)
    write(checkout, "trial", TABLE | changes)
    done = run_benchmarks(checkout, *arguments)
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert ran() == []


def test_without_a_name_the_tables_are_listed(checkout, tmp_path):
    listed = run_benchmarks(checkout)
    assert listed.exit_code == 0
    assert listed.stdout.split() == ["table", "rows", "seeds", "trial", "6", "1,2,3", "A", "trial"]
    assert "benchmarks holds no tables: run `python -m benchmarks` in a checkout" in " ".join(
        run_benchmarks(tmp_path / "elsewhere").stderr.split()
    )
