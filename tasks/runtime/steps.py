"""Creates Prefect tasks from plain functions, with one retry policy for all tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.tasks import Task

from pngmodel.errors import TransientError
from tasks.runtime.retries import TASK_DELAYS, TASK_RETRIES
from tasks.runtime.run_metrics import count

P = ParamSpec("P")
R = TypeVar("R")


def step(name: str) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Create a Prefect task from a function: ``task_x = step("x")(x)``.

    Results are neither cached nor persisted, because tasks find completed work in storage. A :class:`TransientError`
    (storage or cluster unavailable) is retried twice, after 10 s and 60 s; other errors are not retried.
    """

    def decorator(function: Callable[P, R]) -> Task[P, R]:
        return task(
            name=name,
            task_run_name=name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=TASK_RETRIES,
            retry_delay_seconds=TASK_DELAYS,
            retry_condition_fn=_should_retry,
        )(function)

    return decorator


def _should_retry(task: Any, run: Any, state: State[Any]) -> bool:
    """Return whether the task failed with a :class:`TransientError`; count the retry."""
    try:
        state.result()
    except TransientError:
        if run.run_count <= TASK_RETRIES:
            count("retries")
        return True
    except Exception:
        return False
    return False
