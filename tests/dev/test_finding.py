"""Finding an app by its name, what it is, and where it serves Hurlbat."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask
from litestar import Litestar, asgi
from quart import Quart
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Host, Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from hurlbat import Hurlbat
from hurlbat_app.dev.finding import NoApp, load_app, parts_of
from hurlbat_app.dev.mounts import hurlbats, paths_in

MODULE = """
from starlette.applications import Starlette
from hurlbat import Hurlbat

hurlbat = Hurlbat()
app = Starlette()
number = 7

class Inner:
    app = hurlbat.wsgi()

def make():
    return app

def make_nothing():
    return None

async def bare(scope, receive, send): ...

def old(environ, start_response): ...
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which apps are started, with a module `shop`."""
    (tmp_path / "shop.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("shop", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "interface"),
    [
        *[("shop:app", "asgi"), ("shop", "asgi"), ("shop:bare", "asgi"), ("shop:hurlbat", "asgi")],
        *[("shop:make", "asgi"), ("shop:Inner.app", "wsgi"), ("shop:old", "wsgi")],
    ],
)
def test_an_app_is_found_and_known_for_what_it_is(here: Path, target: str, interface: str) -> None:
    assert load_app(target)[1] == interface


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("shop:appp", "shop:appp: shop has no appp; it has hurlbat, app"),
        ("shop:number", "shop:number is a int, and no ASGI or WSGI application"),
        ("shop:Starlette", "shop:Starlette is a class, and no ASGI or WSGI application"),
        ("shop:make_nothing", "shop:make_nothing is a NoneType, and no ASGI or WSGI application"),
        ("shopp:app", "there is no module shopp in {here}; is it shop?"),
        ("zzz.main:app", "there is no module zzz in {here}; start it where you would start uvicorn"),
        ("shop.py", "--app takes a module and not a file: --app shop:app"),
        ("src/shop.py:api", "--app takes a module and not a file: --app src.shop:api"),
        ("shop:", None),
        ("shop:a b", "--app takes MODULE:NAME such as main:app, and 'shop:a b' is none"),
    ],
)
def test_a_name_that_is_none_is_told_in_a_sentence(here: Path, target: str, sentence: str | None) -> None:
    if sentence is None:
        assert parts_of(target) == ("shop", "app")
        return
    with pytest.raises(NoApp) as refused:
        load_app(target)
    assert str(refused.value) == sentence.format(here=here)


def test_a_module_that_the_app_itself_lacks_is_the_app_s_own_mistake(here: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_app("broken:app")


def _with_middleware(hurlbat: Hurlbat) -> FastAPI:
    app = FastAPI()
    app.add_middleware(hurlbat.mount, path="/front")
    return app


def _quart(hurlbat: Hurlbat) -> Quart:
    app = Quart("quart")
    app.asgi_app = hurlbat.mount(app.asgi_app, "/quart")  # type: ignore[method-assign, assignment]
    return app


def _flask(hurlbat: Hurlbat) -> Flask:
    app = Flask("flask")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/flask": hurlbat.wsgi()})  # type: ignore[method-assign]
    return app


APPS: dict[str, tuple[Callable[[Hurlbat], Any], list[str]]] = {
    "alone": (lambda hurlbat: hurlbat.asgi(), ["/"]),
    "mounted": (lambda hurlbat: Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())]), ["/hurlbat/"]),
    "route": (lambda hurlbat: Starlette(routes=[Route("/exact", hurlbat.asgi(), methods=["POST"])]), ["/exact"]),
    "deep": (
        lambda hurlbat: CORSMiddleware(
            Starlette(
                routes=[Mount("/api", FastAPI(routes=[Mount("/x", GZipMiddleware(hurlbat.asgi()))]))],
                middleware=[Middleware(CORSMiddleware)],
            )
        ),
        ["/api/x/"],
    ),
    "host": (
        lambda hurlbat: Starlette(routes=[Host("a.example.com", Starlette(routes=[Mount("/h", hurlbat.asgi())]))]),
        ["/h/"],
    ),
    "in front": (lambda hurlbat: hurlbat.mount(FastAPI(), "/front"), ["/front/"]),
    "middleware": (_with_middleware, ["/front/"]),
    "litestar": (lambda hurlbat: Litestar([asgi("/lite", is_mount=True, copy_scope=True)(hurlbat.asgi())]), ["/lite"]),
    "quart": (_quart, ["/quart/"]),
    "flask": (_flask, ["/flask/"]),
    "twice": (
        lambda hurlbat: Starlette(routes=[Mount("/a", hurlbat.asgi()), Mount("/b", hurlbat.asgi())]),
        ["/a/", "/b/"],
    ),
    "for each": (lambda hurlbat: Starlette(routes=[Mount("/{tenant}/hurlbat", hurlbat.asgi())]), []),
    "nowhere": (lambda _: FastAPI(), []),
}


@pytest.mark.parametrize("name", APPS)
def test_it_is_seen_where_an_app_serves_hurlbat(name: str) -> None:
    make, paths = APPS[name]
    hurlbat = Hurlbat()

    assert paths_in(make(hurlbat)) == paths
    assert hurlbat in hurlbats()
