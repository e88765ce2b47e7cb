"""Options of a command from the parameter model of its flow: name, type, choices, default and help of each field.

cyclopts can flatten a pydantic model by itself, but it also takes nested models apart (``--cluster.kind``), reads no
list of models, and prints pydantic's errors without the options.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from cyclopts import App, Parameter
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from flows.cli.console import fail, user_errors

Json = Annotated[bool, Parameter(negative=(), help="Print one JSON object instead of a table.")]
_LIMITS = {"ge": "is below {}", "gt": "is not above {}", "le": "is above {}", "lt": "is not below {}"}
_LISTS = Parameter(negative_iterable=(), consume_multiple=True)  # --stores A B, or --stores A --stores B


Command = Callable[..., None]


def command(app: App, example: str, *positional: str, **settings: Any) -> Callable[[Command], Command]:
    """Register a function as a command of ``app``.

    A first parameter called ``parameters`` is a pydantic model: each of its fields becomes an option, and the model
    alone validates the values. Fields named in ``positional`` may be given without the name of their option. Further
    parameters of the function are options of the terminal. ``example`` is the last line of the help; ``settings`` are
    keywords of :meth:`cyclopts.App.command`.
    """

    def register(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        own = [p.replace(annotation=hints[p.name]) for p in inspect.signature(function).parameters.values()]
        model = hints["parameters"] if own and own[0].name == "parameters" else None
        fields = _options(model, positional) if model else []

        @wraps(function)
        def run(*arguments: Any, **options: Any) -> None:
            given = signature.bind(*arguments, **options).arguments
            with user_errors(given):
                if model:
                    values = {p.name: given.pop(p.name) for p in fields if p.name in given}
                    given = {"parameters": _validated(model, values)} | given
                function(**given)

        signature = inspect.Signature([*fields, *(own[1:] if model else own)])
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
        app.command(run, help_epilogue=f"Example: `{example}`", **settings)
        return function

    return register


def _options(model: type[BaseModel], positional: tuple[str, ...]) -> list[inspect.Parameter]:
    """A parameter per field: those of ``positional`` first, then the required ones."""
    fields = model.model_fields
    names = sorted(fields, key=lambda name: (name not in positional, not fields[name].is_required()))
    return [_option(name, fields[name], positional=name in positional) for name in names]


def _option(name: str, field: FieldInfo, *, positional: bool) -> inspect.Parameter:
    shown = _shown(None if field.is_required() else field.get_default(call_default_factory=True))
    about = Parameter(help=field.description, show_default=(lambda _: shown) if shown else False)
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if field.is_required() else None,  # the model has its own defaults
        annotation=Annotated[_leaf(field.annotation) | None, _LISTS, about],
    )


def _leaf(annotation: Any) -> Any:
    """The type that one value on the command line has. The model reads everything but scalars from str."""
    if get_origin(annotation) in (Union, UnionType):
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal or annotation in (bool, int, float, str):
        return annotation
    if get_origin(annotation) is list:
        return list[_leaf(get_args(annotation)[0])]  # type: ignore[misc]
    return list[str] if get_origin(annotation) is dict else str


def _shown(default: Any) -> str:
    if isinstance(default, BaseModel):
        return str(getattr(default, "kind", ""))
    if isinstance(default, dict):
        return " ".join(f"{name}={value}" for name, value in default.items())
    if isinstance(default, list):
        return " ".join(map(str, default))
    return "" if default is None else str(default)


def _validated(model: type[BaseModel], values: dict[str, Any]) -> BaseModel:
    """The values as ``model``; exits with code 2 and names each option that is wrong."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        fail("; ".join(_explained(dict(item)) for item in error.errors()))


def _explained(item: dict[str, Any]) -> str:
    """A pydantic error as ``--option: VALUE is below 1``."""
    context = item.get("ctx", {})
    message = str(context.get("error") or f"{item['input']} is not valid: {item['msg']}")
    if limit := next((words.format(context[key]) for key, words in _LIMITS.items() if key in context), None):
        message = f"{item['input']} {limit}"
    if not item["loc"]:  # of a rule between several options
        return message
    option, *keys = (str(key).replace("_", "-") for key in item["loc"] if not isinstance(key, int))
    return ": ".join([f"--{option}", *keys, message])
