"""Read from a function's signature what a task takes and gives."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from hurlbat.context import Context
from hurlbat.depends import Need, Overrides, Want, need_of, providers_for
from hurlbat.errors import TaskInvalid
from hurlbat.payloads import Form, decode

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Shape:
    """How a function is called: at most one input, at most one `Context`, and what it needs, in any order.

    `input_type` and `output_type` are `Any` where the function does not say. With `gathers` the function takes a list,
    and a caller gives one item of it.
    """

    task: str
    parameters: tuple[inspect.Parameter, ...]
    input_name: str | None
    context_name: str | None
    input_type: Any
    output_type: Any
    is_async: bool
    gathers: bool = False
    needs: tuple[Need, ...] = ()

    @cached_property
    def caller_form(self) -> Form | None:
        """Writes and reads what a caller gives; None takes any JSON as it is."""
        return _form(_item_of(self.input_type), self.task, "input") if self.gathers else self.input_form

    @cached_property
    def input_form(self) -> Form | None:
        """Reads and writes the input; None takes any JSON as it is."""
        return _form(self.input_type, self.task, "input")

    @cached_property
    def output_form(self) -> Form | None:
        """Writes and reads the output; None takes whatever JSON can hold."""
        return _form(self.output_type, self.task, "output")

    @property
    def text(self) -> str:
        """Tells what the task takes and gives, as the manifest has it, alike in every process."""
        takes = self.caller_form.name("validation") if self.input_name and self.caller_form else ""
        gives = self.output_form.name("serialization") if self.output_form else ""
        return f"{takes} -> {gives}"

    @cached_property
    def wants(self) -> tuple[Want, ...]:
        """Who provides for what it needs."""
        return self.wants_with({})

    def wants_with(self, overrides: Overrides) -> tuple[Want, ...]:
        """Return who provides for what it needs, where some are called in place of others. Raises `TaskInvalid`."""
        return providers_for(self.needs, f"task {self.task}", overrides)

    def read(self, input: Any) -> Any:
        """Return the input as the function takes it, or as it is where it takes none. Raises `PayloadError`.

        `input` is a JSON value. A null input leaves a parameter that has a default to its default.
        """
        if self.input_name is None:
            return input
        if input is None:
            for parameter in self.parameters:
                if parameter.name == self.input_name and parameter.default is not inspect.Parameter.empty:
                    return parameter.default
        return input if self.input_form is None else self.input_form.read(input)

    def arguments(self, input: Any, context: Context, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments to call the function with; `input` was read, and `given` is what it needs, by name."""
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.name == self.context_name:
                value: Any = context
            elif parameter.name == self.input_name:
                value = input
            else:
                value = given[parameter.name]
            if parameter.kind in _POSITIONAL:
                positional.append(value)
            else:
                named[parameter.name] = value
        return positional, named

    def check_input(self, text: str) -> None:
        """Raise `PayloadError` if the function would refuse this input, raw JSON as a caller gives it."""
        if self.input_name is None or self.caller_form is None:
            return
        parameter = next((one for one in self.parameters if one.name == self.input_name), None)
        has_default = parameter is not None and parameter.default is not inspect.Parameter.empty
        if self.gathers or text != "null" or not has_default:
            decode(text, self.caller_form)


def shape_of(function: Callable[..., Any], task: str, *, gathers: bool = False) -> Shape:
    """Return the shape of a function that shall be a task. Raises `TaskInvalid` with what is in the way.

    One that `gathers` must say of what its input is a list.
    """
    signature = inspect.signature(function)
    hints = _hints(function, task)
    inputs: list[inspect.Parameter] = []
    contexts: list[inspect.Parameter] = []
    needs: list[Need] = []
    for parameter in signature.parameters.values():
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise TaskInvalid(f"task {task}: *{parameter.name} has no place in a task; give it one input")
        hint = hints.get(parameter.name, parameter.empty)
        need = need_of(parameter, hint, f"task {task}")
        if need is not None:
            needs.append(need)
        else:
            (contexts if hint is Context else inputs).append(parameter)
    if len(inputs) > 1:
        names = ", ".join(parameter.name for parameter in inputs)
        raise TaskInvalid(
            f"task {task}: a task takes one input, not {names}; make them the fields of a model, or "
            "mark what is no input with Depends(…)"
        )
    if len(contexts) > 1:
        raise TaskInvalid(f"task {task}: a task takes one Context")
    shape = Shape(
        task=task,
        parameters=tuple(signature.parameters.values()),
        input_name=inputs[0].name if inputs else None,
        context_name=contexts[0].name if contexts else None,
        input_type=hints.get(inputs[0].name, Any) if inputs else None,
        output_type=hints.get("return", Any),
        is_async=_is_async(function),
        gathers=gathers,
        needs=tuple(needs),
    )
    if gathers and _item_of(shape.input_type) is None:
        raise TaskInvalid(
            f"task {task}: with a batch_size its input is a list of what callers give, and must be annotated so: "
            "list[Order], list[dict[str, Any]], …"
        )
    # they are made here, so that a type that JSON cannot hold, or a need that nothing can meet, is refused where it is
    # declared
    _ = shape.input_form, shape.caller_form, shape.output_form, shape.wants
    return shape


def shape_elsewhere(task: str, input_type: Any, output_type: Any) -> Shape:
    """Return the shape of a task that is served elsewhere. Raises `TaskInvalid` for types that JSON cannot hold."""
    shape = Shape(task, (), "input", None, input_type, output_type, is_async=True)
    _ = shape.input_form, shape.output_form
    return shape


def _item_of(declared: Any) -> Any:
    """Return what a list is annotated to contain, or None where the annotation is another."""
    if get_origin(declared) is Annotated:
        declared = get_args(declared)[0]
    return get_args(declared)[0] if get_origin(declared) is list else None


def _is_async(function: Callable[..., Any]) -> bool:
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TaskInvalid(f"{function.__qualname__} is a generator; a task returns its output")
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _hints(function: Callable[..., Any], task: str) -> Mapping[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TaskInvalid(f"task {task}: {error} in its annotations; define it at the top of the module") from error


def _form(declared: Any, task: str, what: str) -> Form | None:
    return None if declared is Any else Form(declared, f"task {task}: its {what}")
