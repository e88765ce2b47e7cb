"""What every command shares: Prefect's environment, error messages, JSON or tables, a progress bar."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

Parameters = TypeVar("Parameters")
USER_ERROR = 2
_DISK = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LISTED = 10

_PREFECT_DEFAULTS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # Logs go to the run history; the console belongs to the progress bar and to error messages.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}


def prepare_prefect() -> None:
    """Set Prefect's defaults for a command; variables that are set already keep their value.

    Without a configured server or profile the run history goes to ``.prefect`` in the working folder.
    """
    for name, value in _PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    own = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE")
    if not any(os.environ.get(name) for name in own) and not (Path.home() / ".prefect" / "profiles.toml").exists():
        os.environ["PREFECT_HOME"] = str(Path.cwd() / ".prefect")


def fail(error: object) -> NoReturn:
    """Print an error without a traceback and exit with code 2."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {_escape(str(error))}")
    sys.exit(USER_ERROR)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


@contextmanager
def user_errors(given: Any = ()) -> Iterator[None]:
    """Turn user errors into an exit with code 2; other errors keep their traceback.

    Args:
        given: arguments of the command; they must hold no secret, since a run would record them.
    """
    from pydantic import ValidationError

    from pngmodel.errors import UserError
    from tasks.stores.io.urls import refuse_secrets_in

    try:
        refuse_secrets_in(given)
        yield
    except UserError as error:
        fail(error)
    except ValidationError as error:
        fail("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except OSError as error:
        if error.errno not in _DISK:
            raise
        fail(
            f"{error.filename or 'a file of this run'}: {os.strerror(error.errno)}; mend the disk or free some space, "
            "then run the same command again: what is already published is kept"
        )
    except Exception as error:
        if not _server_lost(error):
            raise
        fail(
            f"Prefect's server at {os.environ.get('PREFECT_API_URL', 'its temporary address')} does not answer as it "
            f"should ({type(error).__name__}: {error}); start it, or unset PREFECT_API_URL to do without, then run the "
            "same command again: what is already published is kept"
        )


def _server_lost(error: Exception) -> bool:
    """Whether a flow failed because its run could not be recorded."""
    from httpx import TransportError
    from prefect.exceptions import PrefectHTTPStatusError

    if isinstance(error, PrefectHTTPStatusError):
        return error.response.is_server_error
    # Prefect raises a bare RuntimeError if it cannot reach the server at the start of a run.
    return isinstance(error, TransportError) or (
        isinstance(error, RuntimeError) and str(error).startswith("Failed to reach API")
    )


def show(content: Mapping[str, Any], *, as_json: bool, title: str) -> None:
    """Print results as one JSON object, or as a table."""
    if as_json:
        print(json.dumps(content, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=_escape(title), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")  # so that a digest can be copied
    metrics = content.get("metrics")
    of_generators = isinstance(metrics, dict) and "model" in metrics
    for key, value in content.items():
        if key == "metrics" and of_generators:
            continue
        words = f"{value / 1e6:.1f} MB" if key.startswith("bytes") or key.endswith("_bytes") else _words(value)
        table.add_row(key.replace("_", " "), _escape(words))
    Console().print(table)
    if of_generators:
        show_metrics({"metrics": metrics, "protocol": content.get("protocol", "noise-A")}, as_json=False)


def show_metrics(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an evaluation record as JSON, or as a table with a row per generator."""
    if as_json:
        print(json.dumps(record, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    from tasks.corpus.publish import HEADLINE
    from tasks.reports.tables import ARROWS, TABLED, ordered

    title = f"Protocol {record['protocol']}, {len(TABLED)} metrics in the report"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("generator", no_wrap=True)
    for metric in HEADLINE:
        # One word a line, or the metrics do not fit into 80 columns.
        heading = "\n".join([*metric.split("_"), ARROWS[TABLED[metric].direction]])
        table.add_column(heading, justify="right", no_wrap=True)
    for name, row in ordered(record["metrics"]).items():
        cells = (f"{row[metric]:.4f}" if metric in row else "-" for metric in HEADLINE)
        table.add_row(name.replace("_", " "), *cells)
    Console().print(table)
    _print_simplified(record)
    _print_skipped(record)


def show_c2st(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the record of a classifier two-sample test as JSON, or as a table with a row per generator."""
    if as_json:
        print(json.dumps(record, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    from tasks.reports.tables import NAMES, ordered, spread_text

    budget = record["budget"]
    title = f"Protocol {record['protocol']}, held out by {record['hold_out']}, {budget['steps']} steps each"
    table = Table("generator", "AUC →.5", "spread", "by seed", title=title, title_justify="left", box=None)
    for key, row in ordered(record["metrics"]).items():
        seeds = " ".join(f"{auc:.3f}" for auc in row["auc_by_seed"])
        table.add_row(NAMES.get(key, key), f"{row['auc']:.3f}", spread_text(row), seeds)
    Console().print(table)
    _print_simplified(record)
    _print_skipped(record)


def show_fidelity(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print an evaluation of denoisers as JSON, or a table per set of pairs."""
    if as_json:
        print(json.dumps(record, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    from tasks.denoising.report import fidelity_table, test_title

    console = Console(soft_wrap=True)
    for test, found in record["tests"].items():
        head, *rows = fidelity_table(record, test)
        title = f"{test_title(test, found)}, protocol {record['protocol']}"
        table = Table(title=title, title_justify="left", box=None)
        table.add_column(head[0], overflow="fold")
        for name in head[1:]:
            table.add_column(name, justify="right")
        for row in rows:
            table.add_row(*map(_escape, row))
        console.print(table)
    console.print(f"[bold]report: {_escape(record['report'])}[/]")


def show_metadata(record: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the record of the camera classifiers as JSON, or a table per question."""
    if as_json:
        print(json.dumps(record, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    from tasks.evaluation.metadata_report import metadata_rows

    for kind, question in record["tasks"].items():
        rows = metadata_rows(question)
        title = f"{kind}: {len(question['classes'])} classes, {len(question['skipped'])} skipped; per cent"
        table = Table(*rows[0], title=title, title_justify="left", box=None)
        for row in rows:
            table.add_row(*row.values())
        Console().print(table)


def _print_simplified(record: Mapping[str, Any]) -> None:
    from tasks.reports.tables import simplified

    for name, lines in simplified(record):
        print(f"{name} differs from its paper: {'; '.join(lines)}.")


def _print_skipped(record: Mapping[str, Any]) -> None:
    if skipped := record.get("skipped"):
        first = skipped[0]
        print(f"{len(skipped)} pairs skipped, e.g. {first['id']}: {first['reason']}")


def show_corpus(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a published corpus: metrics of model and baselines, counts and the location of the report."""
    if as_json:
        print(json.dumps(result, indent=1))
        return
    from rich.console import Console

    show_metrics({"metrics": result["metrics"], "protocol": "noise-A"}, as_json=False)
    console = Console(soft_wrap=True)
    shards = result["shards"]
    pairs = f"{result['pairs']} pairs, {result['rejected']} rejected, {result['unused_clean']} clean images not used"
    console.print(f"{pairs}; shards made {shards['made']}, kept {shards['kept']}")
    console.print(f"corpus: {_escape(result['url'])}  (check it: pngnoise verify {_escape(result['url'])})")
    console.print(f"[bold]report: {_escape(result['report'])}[/]")


def _words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        lines = [": ".join(str(v) for v in item.values()) for item in value[:_LISTED]]
        if len(value) > _LISTED:
            lines.append(f"and {len(value) - _LISTED} more, see --json")
        return "\n".join([f"{len(value)}", *lines])
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_words(item)}" for name, item in value.items()) or "none"
    return str(value)


def run(flow: Callable[[Parameters], Any], parameters: Parameters, *, quiet: bool = False) -> Any:
    """Call a flow below a progress bar."""
    with progress_bar(quiet=quiet):
        return flow(parameters)


@contextmanager
def progress_bar(*, quiet: bool = False) -> Iterator[None]:
    """Show progress of the block on standard error: bar, count, rate, time left."""
    from tasks.runtime.progress import Progress, listen

    if quiet:
        with listen(lambda progress: None):
            yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
    )
    known: dict[str, Any] = {}

    def update(progress: Progress) -> None:
        if not known:  # a bar without stages would print an empty line
            bars.start()
        if progress.stage not in known:
            known[progress.stage] = bars.add_task(
                progress.stage, total=progress.total, completed=progress.done, unit=progress.unit, rate="", note=""
            )
        task = known[progress.stage]
        bars.update(task, completed=progress.done, total=progress.total, note=progress.note)
        speed = next(t.speed for t in bars.tasks if t.id == task)
        bars.update(task, rate=f"{speed:.3g}/s" if speed else "")

    try:
        with listen(update):
            yield
    finally:
        if known:
            bars.stop()
