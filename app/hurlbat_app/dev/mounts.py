"""Find where in an application Hurlbat is served, by walking what it is made of.

Frameworks keep their routes under few names: `routes` with paths (Starlette, FastAPI, Litestar), `app` (middleware),
`mounts` (dispatchers of werkzeug and hypercorn), `wsgi_app` and `asgi_app` (Flask, Quart). What hides its routes in a
function is found by asking it over HTTP.
"""

import gc
from collections.abc import Iterator, Mapping
from typing import Any

from hurlbat import Hurlbat

_WRAPPERS = ("app", "_app", "application", "wsgi_app", "asgi_app", "router", "asgi_router")
_ENDPOINTS = ("endpoint", "fn", "handler")


def hurlbats() -> list[Hurlbat]:
    """Return every `Hurlbat` of this process, however the app has hidden it."""
    return [one for one in gc.get_objects() if issubclass(type(one), Hurlbat)]


def paths_in(app: Any) -> list[str]:
    """Return the paths at which an application serves Hurlbat, as far as they are to be seen."""
    return list(dict.fromkeys(_paths(app, "", set())))


def _paths(node: Any, prefix: str, seen: set[int]) -> Iterator[str]:
    """Yield the paths below a node. What was mounted has a slash at its end, what is a route has none."""
    if node is None or id(node) in seen or "{" in prefix:
        return
    seen.add(id(node))
    if _is_ours(node):
        path = getattr(node, "path", getattr(node, "_path", None))  # of `hurlbat.mount` and `hurlbat.mount_wsgi`
        yield f"{prefix}{path or ''}/"
        if path is not None:
            yield from _paths(getattr(node, "app", getattr(node, "_app", None)), prefix, seen)
        return
    for middleware in getattr(node, "user_middleware", ()):  # `app.add_middleware(hurlbat.mount, path=…)`
        if isinstance(getattr(middleware.cls, "__self__", None), Hurlbat):
            path = middleware.kwargs.get("path", next(iter(middleware.args), "/hurlbat"))
            yield f"{prefix}{str(path).rstrip('/')}/"
    for wrapper in _WRAPPERS:
        yield from _paths(_own(node, wrapper), prefix, seen)
    mounts = _own(node, "mounts")
    for path, mounted in mounts.items() if isinstance(mounts, Mapping) else ():
        yield from _paths(mounted, prefix + str(path).rstrip("/"), seen - {id(mounted)})
    routes = getattr(node, "routes", None)
    for route in routes if isinstance(routes, list | tuple) else ():
        yield from _paths_of_route(route, prefix, seen)


def _paths_of_route(route: Any, prefix: str, seen: set[int]) -> Iterator[str]:
    path = getattr(route, "path", "")
    if not isinstance(path, str):
        return
    for endpoint in _endpoints(route):
        if _is_ours(endpoint):
            yield prefix + path
            return
    mounted = getattr(route, "app", None)
    if mounted is not None and not hasattr(route, "endpoint"):
        yield from _paths(mounted, prefix + path.rstrip("/"), seen - {id(mounted)})


def _endpoints(route: Any) -> Iterator[Any]:
    handlers = [getattr(route, "route_handler", None), *(getattr(route, "route_handlers", None) or ())]
    for holder in (route, *(one for one in handlers if one is not None)):
        for name in _ENDPOINTS:
            yield getattr(holder, name, None)


def _own(node: Any, name: str) -> Any:
    """Return an attribute that is a thing of its own, and not the node's method."""
    found = getattr(node, name, None)
    return None if getattr(found, "__self__", None) is node else found


def _is_ours(node: Any) -> bool:
    """Tell whether it is an application that the SDK has made."""
    return type(node).__module__.partition(".")[0] == "hurlbat" and callable(node) and not isinstance(node, Hurlbat)
