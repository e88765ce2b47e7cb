"""Functions of this package as steps of a run under Prefect: one kind of task, tried again where that may help."""

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
    """Make a task of a function: ``task_x = step("x")(x)``.

    What is done already is known from storage, so results are neither cached nor kept. A :class:`TransientError`
    (storage or a cluster was away) is tried again twice; every other error is final at once.
    """

    def made(function: Callable[P, R]) -> Task[P, R]:
        return task(
            name=name,
            task_run_name=name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=TASK_RETRIES,
            retry_delay_seconds=TASK_DELAYS,
            retry_condition_fn=_may_pass,
        )(function)

    return made


def _may_pass(task: Any, run: Any, state: State[Any]) -> bool:
    """Condition for a retry: what failed the task lies outside and may be over soon."""
    try:
        state.result()
    except TransientError:
        if run.run_count <= TASK_RETRIES:
            count("retries")
        return True
    except Exception:
        return False
    return False
