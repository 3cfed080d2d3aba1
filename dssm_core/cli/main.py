"""`dssm`: the pipeline from a terminal. Progress and tables go to stderr, results to stdout."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dssm_core.aliases import JSON
from dssm_core.cli.terminal import HELP_OPTIONS, RUNS, Group, console, log_to_terminal
from dssm_core.errors import ConfigError, DssmError
from dssm_core.runs import pipeline
from dssm_core.runs.files import digest
from dssm_core.runs.manifest import Manifest
from dssm_core.runs.run import Run, create_run, find_runs, open_run
from dssm_core.runs.table import STEPS, find_step
from dssm_core.tuning.proposals import SEARCHES

if TYPE_CHECKING:
    from dssm_core.operation.promotion import Action, Decision, Reign
    from dssm_core.tuning.sweep import Plan, Tried


@click.group(cls=Group, context_settings=HELP_OPTIONS)
@click.option("--verbose", "-v", is_flag=True, help="Log every training point.")
def main(verbose: bool) -> None:
    """From a click log to a served two-tower index, judged by recall@200.

    Start with `dssm run configs/demo.yaml`; it needs neither Airflow nor a server. Numbers and
    models go to MLflow: $MLFLOW_TRACKING_URI, else a SQLite file beside the runs.
    """
    log_to_terminal(verbose)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--data", help="Folder or file of the log, instead of the config's data.source.path.")
@click.option(
    "--test-day",
    type=click.DateTime(["%Y-%m-%d"]),
    help="First day to test on, instead of the config's split.test_day.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Replace a setting, e.g. --set train.epochs=3.",
)
@click.option(
    "--days",
    help="Folder of landed days (see `dssm land`): the window is read from it, not from data.source.",
)
@click.option(
    "--run-id",
    help="Name of the run; by default made from the settings, so that the same command goes on where it was.",
)
@click.option(
    "--until",
    metavar="STEP",
    help="The last step to run, e.g. recall_gate: measured, but not registered.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the summary as one JSON object, the last line of stdout.",
)
@RUNS
def run(
    config: Path,
    data: str | None,
    test_day: Any,
    overrides: tuple[str, ...],
    days: str | None,
    run_id: str | None,
    until: str | None,
    as_json: bool,
    runs: str,
) -> None:
    """Run every step of CONFIG, a YAML file, from reading the log to a registered model.

    A refused gate is a result, not an error: nothing is registered and the reasons are printed.
    """
    from dssm_core.config import read_config
    from dssm_core.data import landing

    if until:
        find_step(until)
    if test_day:
        overrides = (*overrides, f"split.test_day={test_day.date()}")
    settings = read_config(config, data, overrides)
    if days:
        settings = landing.use_landed_days(settings, Path(days).resolve())
    opened = create_run(
        settings, runs, run_id or f"cli-{digest(settings.model_dump(mode='json'))[:10]}"
    )
    console.print(f"run {opened.root}", highlight=False, soft_wrap=True)
    result = pipeline.run_pipeline(opened, _before, _after, until)
    _finish(opened, result)
    if as_json:
        click.echo(json.dumps(result))


def _finish(run: Run, result: JSON) -> None:
    """Show what came out; a version that stands out far enough is promoted, where the config says
    so.
    """
    from dssm_core.operation import promotion

    show(result)
    if result["version"] and (reason := promotion.alone(run)):
        _decide(
            "promote",
            run.config.model_name,
            str(result["version"]),
            reason,
            promotion.GATE,
            str(run.runs),
        )


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--axis",
    "axes",
    multiple=True,
    required=True,
    metavar="KEY=VALUE,VALUE",
    help="Values to try (repeat it), e.g. loss=bce,bpr.",
)
@click.option(
    "--search",
    type=click.Choice(SEARCHES),
    default="grid",
    show_default=True,
    help="Every combination, or a search by Optuna.",
)
@click.option(
    "--trials",
    "total",
    default=12,
    show_default=True,
    type=click.IntRange(1),
    help="How many trials a search makes.",
)
@click.option("--data", help="Folder or file of the log, instead of the config's data.source.path.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Replace a setting in all trials.",
)
@RUNS
def sweep(
    config: Path,
    axes: tuple[str, ...],
    search: str,
    total: int,
    data: str | None,
    overrides: tuple[str, ...],
    runs: str,
) -> None:
    """Try combinations of some settings of CONFIG, and run the best.

    Trials are judged by the served index on the last train day, never on the test day; the winner
    then runs from the log to a registered model like any other. A trial that fails does not stop
    the others. A search may also choose from a range, such as train.learning_rate=0.0005..0.01,
    with " log" behind it where steps are ratios.
    """
    from dssm_core.config import read_config
    from dssm_core.tuning import sweep as sweeps

    plan = sweeps.Plan(config, data, overrides, sweeps.read_axes(axes), search, total)
    tried = _try_all(
        plan,
        f"cli-{digest([str(config), data, overrides, axes, search, total])[:10]}",
        runs,
    )
    show_trials(sweeps.results(tried))
    best = sweeps.winner(tried)
    settings = read_config(config, data, [*overrides, *best.settings])
    opened = create_run(settings, runs, f"cli-{digest(settings.model_dump(mode='json'))[:10]}")
    console.print(
        f"the winner, {escape(best.label)}, on all days: run {opened.root}",
        highlight=False,
        soft_wrap=True,
    )
    _finish(opened, pipeline.run_pipeline(opened, _before, _after))


def _try_all(plan: Plan, name: str, runs: str) -> list[Tried]:
    """Every trial, round by round, as children of one MLflow run."""
    from dssm_core.registry import versions as registry
    from dssm_core.tuning import sweep

    tried: list[Tried] = []
    while wanted := sweep.next_round(plan, tried):
        made = sweep.prepare(plan, wanted, runs)
        parent = registry.open_sweep(
            [each.run for each in made], [trial.label for trial in wanted], name
        )
        for each in made:
            console.print(
                f"[bold]trial {len(tried) + 1}[/]: {escape(each.trial.label)}", highlight=False
            )
            tried.append(replace(each, failed=not _ends(each)))
    registry.close_sweep(Path(runs), parent, sweep.results(tried))
    return tried


def _ends(tried: Tried) -> bool:
    """Run a trial; whether it came to its end. Whatever it fails of, such as a GPU that is too
    small for it, is its own.
    """
    from dssm_core.tuning import sweep

    try:
        pipeline.run_pipeline(tried.run, _before, _after, sweep.LAST_STEP)
    except Exception as error:
        known = isinstance(error, DssmError)
        console.print(
            f"[red]failed[/]: {escape(str(error) if known else repr(error))}",
            highlight=False,
            soft_wrap=True,
        )
        return False
    return True


def show_trials(found: Sequence[JSON]) -> None:
    """The trials as a table, best first."""
    table = Table(
        "trial",
        found[0]["metric"],
        "interval",
        "train, s",
        "ms a query",
        box=None,
        header_style="bold",
    )
    for row in found:
        interval = f"{row['low']:.3f} to {row['high']:.3f}" if row["low"] is not None else ""
        asked = f"{row['ms_per_query']:.3f}" if row["ms_per_query"] is not None else ""
        if row["recall"] is None:
            table.add_row(escape(row["label"]), "failed")
        else:
            table.add_row(
                escape(row["label"]),
                f"{row['recall']:.4f}",
                interval,
                f"{row['train_seconds']:.0f}",
                asked,
            )
    Console().print(table)


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--day",
    "wanted",
    type=click.DateTime(["%Y-%m-%d"]),
    multiple=True,
    required=True,
    help="A local day (repeat it).",
)
@click.option("--data", help="Folder or file of the log, instead of the config's data.source.path.")
@click.option(
    "--days",
    envvar="DSSM_DAYS",
    default="days",
    show_default=True,
    show_envvar=True,
    help="Folder of all landed days.",
)
def land(config: Path, wanted: tuple[datetime, ...], data: str | None, days: str) -> None:
    """Keep a day of CONFIG's log, for runs with `--days`; a day that is there already is replaced
    where it differs.

    Days are landed one by one as they arrive. A run reads the days of its own window and nothing
    else.
    """
    from dssm_core.config import read_config
    from dssm_core.data import landing

    settings = read_config(config, data)
    for moment in wanted:
        landing.check_day_is_over(settings, moment.date(), _now())
        there, changed = landing.land(settings, moment.date(), Path(days).resolve())
        click.echo(
            json.dumps(
                {"day": str(there.day), "key": there.key, "rows": there.rows, "changed": changed}
            )
        )


@main.command()
@RUNS
def runs(runs: str) -> None:
    """List the runs: dataset, test day, steps done, recall and verdict."""
    table = Table(
        "run", "test day", "steps", "recall", "gate", "version", box=None, header_style="bold"
    )
    for found in find_runs(runs):
        result = pipeline.summary(found)
        verdict = {None: "", True: "passed", False: "refused"}[
            result["gate"]["passed"] if result["gate"] else None
        ]
        key = f"recall@{found.config.gate.k}"
        served = f"{result['metrics']['served'][key]:.4f} ({key})" if result["metrics"] else ""
        done = f"{len(result['seconds'])}/{len(STEPS)}"
        table.add_row(
            f"{found.config.name}/{found.id}",
            result["test_day"],
            done,
            served,
            verdict,
            str(result["version"] or ""),
        )
    Console().print(table)


@main.command()
@click.option(
    "--run",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="The run's folder (see `dssm runs`).",
)
def report(folder: Path) -> None:
    """Write a run's report.html anew: data, recall, slices, calibration, index, map, neighbours and
    users on one page.

    The gate writes it by itself, also where it refuses. Of a run that has not come so far, it says
    what there is.
    """
    from dssm_core.report import page as reports

    run = open_run(folder)
    click.echo(str(reports.write(run, run.step("recall_gate"))))


BY = click.option("--by", default=getpass.getuser, show_default="you", help="Who decides.")


@main.command()
@click.argument("model")
@click.option("--version", help="The version to promote; by default the challenger.")
@click.option("--reason", default="", help="Why.")
@BY
@RUNS
def promote(model: str, version: str | None, reason: str, by: str, runs: str) -> None:
    """Make a version of MODEL (such as dssm-demo) the champion; the old champion becomes
    previous_champion.

    It is loaded and asked first. Who, why and when become tags of the version and a line of `dssm
    history`.
    """
    _decide("promote", model, version, reason, by, runs)


@main.command()
@click.argument("model")
@click.option("--version", help="The version to go back to; by default previous_champion.")
@click.option("--reason", required=True, help="Why.")
@BY
@RUNS
def rollback(model: str, version: str | None, reason: str, by: str, runs: str) -> None:
    """Make the previous champion of MODEL the champion again, or any version given."""
    _decide("rollback", model, version, reason, by, runs)


def _decide(
    action: Action, model: str, version: str | None, reason: str, by: str, runs: str
) -> None:
    from dssm_core.operation import promotion
    from dssm_core.registry import versions as registry

    def check(store: registry.Registered, number: str) -> None:
        console.print(f"loading and asking version {number} ...", highlight=False)
        registry.answers(store.name, number, Path(runs))

    done = promotion.decide(
        action, model, Path(runs), at := _now(), by, reason, version, check=check
    )
    if done.at != at:
        console.print(
            f"version {done.champion} is champion already: nothing was changed; the decision that stands:",
            highlight=False,
        )
    click.echo(done.model_dump_json())


def _now() -> datetime:
    return datetime.now(UTC)


@main.command()
@click.argument("model")
@click.option(
    "--decisions", is_flag=True, help="Every decision, those too that left the champion as it was."
)
@click.option("--json", "as_json", is_flag=True, help="The decisions as JSON, a line each.")
@RUNS
def history(model: str, decisions: bool, as_json: bool, runs: str) -> None:
    """Which version of MODEL was champion from when to when, by whose decision and why.

    A champion that was set in MLflow itself is noticed and written down first.
    """
    from dssm_core.operation import promotion

    promotion.notice(model, Path(runs), _now())
    known = promotion.history(model, Path(runs))
    if as_json:
        for made in known:
            click.echo(made.model_dump_json())
    elif not known:
        console.print(
            f"nothing was decided on {model!r} yet: answer its review in Airflow, or `dssm promote`",
            highlight=False,
        )
    else:
        show_decisions(known) if decisions else show_reigns(promotion.reigns(known))


def show_reigns(reigns: Sequence[Reign]) -> None:
    """The champions as a table, newest last."""
    table = Table(
        "version", "champion from", "until", "by", "reason", box=None, header_style="bold"
    )
    for reign in reigns:
        table.add_row(
            reign.version,
            _minute(reign.since),
            _minute(reign.until) if reign.until else "today",
            escape(reign.by),
            escape(reign.reason),
        )
    Console().print(table)


def show_decisions(decisions: Sequence[Decision]) -> None:
    """The decisions as a table, newest last."""
    table = Table(
        "at", "decision", "version", "champion", "by", "reason", box=None, header_style="bold"
    )
    for made in decisions:
        table.add_row(
            _minute(made.at),
            made.action,
            made.version,
            made.champion,
            escape(made.by),
            escape(made.reason),
        )
    Console().print(table)


def _minute(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


@main.command()
@click.argument("model")
@click.option("--to", "target", required=True, help="A folder, or redis://HOST:PORT/DATABASE.")
@click.option("--version", help="The version to publish; by default the champion.")
@RUNS
def publish(model: str, target: str, version: str | None, runs: str) -> None:
    """Write MODEL's user and item embeddings where others read them. Readers see all of a version
    or nothing of it.
    """
    from dssm_core.operation import publish as publishing
    from dssm_core.registry import versions as registry

    click.echo(
        json.dumps(
            publishing.publish_registered(registry.registered(model, Path(runs)), version, target)
        )
    )


@main.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--as-of",
    type=click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    help="The moment, UTC; by default now.",
)
@click.option("--version", help="The version to refresh; by default the champion.")
@click.option(
    "--data",
    help="Folder or file of the log with the latest clicks, instead of the config's data.source.path.",
)
@click.option(
    "--days",
    help="Folder of landed days (see `dssm land`): days that have ended are read from it where it has them.",
)
@click.option(
    "--to",
    envvar="DSSM_REFRESHED",
    default="refreshed",
    show_default=True,
    show_envvar=True,
    help="Folder of refreshed bundles.",
)
@RUNS
def refresh(
    config: Path,
    as_of: datetime | None,
    version: str | None,
    data: str | None,
    days: str | None,
    to: str,
    runs: str,
) -> None:
    """Bring the champion of CONFIG's model up to the latest clicks, with the same towers, and swap
    its index in one step.

    TO/MODEL/current is then a bundle as of that moment: who has acted, who is new, every item's
    activity. Its lineage.json says where it comes from; printed is that without the names of files.
    """
    from dssm_core.config import read_config
    from dssm_core.operation import refresh as refreshing
    from dssm_core.registry import versions as registry

    settings, moment = read_config(config, data), refreshing.passed_ms(as_of or _now(), _now())
    store, folder = (
        registry.registered(settings.model_name, Path(runs)),
        Path(days).resolve() if days else None,
    )
    made = refreshing.refresh_registered(
        store, version, settings, moment, Path(to).resolve(), folder
    )
    click.echo(json.dumps(refreshing.brief(made)))


@main.command()
@click.argument("model", required=False)
@click.option("--version", help="The version or alias of MODEL to ask; by default the champion.")
@click.option(
    "--run",
    "folder",
    type=click.Path(path_type=Path),
    help="A run's folder, instead of MODEL; it need not be registered.",
)
@click.option(
    "--seed", "seeds", multiple=True, metavar="USER_ID", help="A user to start from (repeat it)."
)
@click.option(
    "--seeds",
    "file",
    type=click.Path(path_type=Path),
    help="A file of seeds: .parquet or .csv with user_id, or one id a line.",
)
@click.option("--item", metavar="ITEM_ID", help="An item (an ad) to start from, instead of seeds.")
@click.option(
    "--top", default=1000, show_default=True, type=click.IntRange(1), help="How many users at most."
)
@click.option(
    "--keep-seeds", is_flag=True, help="Let seeds be of the audience; otherwise they are left out."
)
@click.option(
    "--to",
    "target",
    required=True,
    type=click.Path(path_type=Path),
    help="The audience's file, .parquet or .csv.",
)
@RUNS
def lookalike(
    model: str | None,
    version: str | None,
    folder: Path | None,
    seeds: tuple[str, ...],
    file: Path | None,
    item: str | None,
    top: int,
    keep_seeds: bool,
    target: Path,
    runs: str,
) -> None:
    """The users of MODEL most like some seed users, or nearest to an item, best first: user_id,
    score, rank.

    Of seeds the score is the mean cosine with all of them; of an item it is the towers' own. Seeds
    that the model does not know are counted, named and left out.
    """
    from dssm_core.operation import lookalike as audiences
    from dssm_core.registry import versions as registry

    if (model is None) == (folder is None):
        raise ConfigError(
            "give the name of a registered MODEL, or a run's folder with --run: `dssm runs` lists both"
        )
    of = open_run(folder) if folder else registry.registered(str(model), Path(runs))
    given = [*seeds, *(audiences.read_seeds(file) if file else [])]
    with audiences.opened(of, version) as (bundle, about):
        click.echo(
            json.dumps(
                about | audiences.make_audience(bundle, target, top, given, item, not keep_seeds)
            )
        )


def _step_command(name: str) -> click.Command:
    @click.command(
        name, help=f"Step of a run: {STEPS[name].title}.", short_help=f"Step: {STEPS[name].title}"
    )
    @click.option(
        "--run",
        "folder",
        required=True,
        type=click.Path(path_type=Path),
        help="The run's folder (see `dssm runs`).",
    )
    def command(folder: Path) -> None:
        _before(name)
        manifest = pipeline.run_step(open_run(folder), name)
        _after(manifest)
        click.echo(
            manifest.model_dump_json(include={"step", "rows", "info", "seconds", "reused_from"})
        )

    return command


for _name in STEPS:
    main.add_command(_step_command(_name))


def _before(name: str) -> None:
    console.print(f"[bold cyan]▶[/] {name:<18} [dim]{STEPS[name].title}")


def _after(manifest: Manifest) -> None:
    rows = ", ".join(f"{count:,} {what}" for what, count in manifest.rows.items())
    when = (
        f"reused from {manifest.reused_from}"
        if manifest.reused_from
        else f"{manifest.seconds:.1f} s"
    )
    console.print(f"[bold green]✓[/] {manifest.step:<18} {when:<8} [dim]{rows}", highlight=False)


def show(result: JSON, out: Console = console) -> None:
    """Print a run's summary for people: the gate's table, its reasons, the version; of a shorter
    run, the steps done.
    """
    if not result["gate"]:
        out.print(f"done: {', '.join(result['seconds'])}", soft_wrap=True)
        return
    metrics = result["metrics"] or {}
    rows = {
        name: metrics.get(name, {})
        for name in ("served", "exact", *metrics.get("baselines", {}), "ceiling")
    } | metrics.get("baselines", {})
    if rolled := metrics.get("rolling"):
        every = f"every {rolled['refresh_h']} h"
        rolling = {"served": rolled["warm"]["served"]} | rolled["warm"]["baselines"]
        rows |= {f"{name}, {every}": scores for name, scores in rolling.items()}
    names = [name for name in rows["served"] if name.startswith("recall@") and name[-1].isdigit()]
    names += [f"{name}@{result['gate']['k']}" for name in ("ndcg", "coverage")]
    table = Table(
        "",
        title=f"test: {result['test_day']}, users and items seen in train",
        box=None,
        header_style="bold",
    )
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for title, values in rows.items():
        table.add_row(
            title,
            *(
                f"{values[name]:.4f}" if isinstance(values.get(name), float) else ""
                for name in names
            ),
        )
    out.print(table)
    gate = result["gate"]
    out.print(f"gate: {'[green]passed' if gate['passed'] else '[yellow]refused'}")
    for reason in gate["reasons"]:
        out.print(f"  {reason}", markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"registered version: {result['version']}"
        if result["version"]
        else "nothing was registered"
    )
