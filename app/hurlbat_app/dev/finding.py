"""Find an app by its name, as uvicorn does, and tell what it is."""

import difflib
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from hurlbat import Hurlbat

DEFAULT_NAME = "app"
Interface = Literal["asgi", "wsgi"]


class NoApp(Exception):
    """There is no app of this name; the sentence says why. `mistaken`: the name is wrong, not the app."""

    def __init__(self, sentence: str, *, mistaken: bool = True) -> None:
        super().__init__(sentence)
        self.mistaken = mistaken


def parts_of(target: str) -> tuple[str, str]:
    """Return module and name of `MODULE:NAME`; the name may be left out. Raises `NoApp`."""
    module, _, name = target.partition(":")
    if module.endswith(".py") or "/" in module:
        meant = module.removeprefix("./").removesuffix(".py").replace("/", ".")
        raise NoApp(f"--app takes a module and not a file: --app {meant}:{name or DEFAULT_NAME}")
    if not all(part.isidentifier() for part in (*module.split("."), *(name or DEFAULT_NAME).split("."))):
        raise NoApp(f"--app takes MODULE:NAME such as main:app, and {target!r} is none")
    return module, name or DEFAULT_NAME


def load_app(target: str) -> tuple[Any, Interface]:
    """Import an app and tell what it is. Raises `NoApp`, and whatever the app itself raises."""
    module_name, name = parts_of(target)
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise NoApp(no_module(error.name)) from None
    for part in name.split("."):
        within, found = found, getattr(found, part, None)
        if found is None:
            raise NoApp(_no_attribute(target, part, within))
    if isinstance(found, Hurlbat):
        return found.asgi(), "asgi"
    interface = interface_of(found)
    if interface is None and _is_factory(found):
        found = found()
        interface = interface_of(found)
    if interface is None:
        what = f"a {type(found).__name__}" if not isinstance(found, type) else "a class"
        raise NoApp(f"{target} is {what}, and no ASGI or WSGI application")
    return found, interface


def no_module(name: str) -> str:
    """Say that there is no such module here."""
    near = difflib.get_close_matches(name, [path.stem for path in Path.cwd().glob("*.py")], n=1)
    hint = f"; is it {near[0]}?" if near else "; start it where you would start uvicorn"
    return f"there is no module {name} in {Path.cwd()}{hint}"


def interface_of(app: Any) -> Interface | None:
    """Tell how an application is called: as ASGI 3 or WSGI, or None where it is neither."""
    if isinstance(app, type) or not callable(app):
        return None
    called = app if inspect.isroutine(app) else type(app).__call__
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(called):
        return "asgi"
    match _takes(app):
        case 3:
            return "asgi"
        case 2:
            return "wsgi"
        case _:
            return None


def _is_factory(app: Any) -> bool:
    return inspect.isfunction(app) and _takes(app) == 0


def _takes(app: Any) -> int:
    """Return how many arguments must be given, or -1 where that cannot be told."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return -1
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in positional and one.default is one.empty for one in parameters)


def _no_attribute(target: str, part: str, within: Any) -> str:
    named = getattr(within, "__dict__", {})
    apps = [name for name, value in named.items() if _could_be_named(value)]
    hint = f"; it has {', '.join(apps[:5])}" if apps else ""
    return f"{target}: {getattr(within, '__name__', within)} has no {part}{hint}"


def _could_be_named(value: Any) -> bool:
    return not inspect.isroutine(value) and (isinstance(value, Hurlbat) or interface_of(value) is not None)
