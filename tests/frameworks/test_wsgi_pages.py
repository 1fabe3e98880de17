"""The pages on Flask, on Django under WSGI and on AWS Lambda, done as they stand."""

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import blocks
from tests.frameworks.stand import Stand
from tests.frameworks.test_asgi_pages import (
    FOLDER,
    Page,
    assert_both_slashes_are_its_own,
    assert_conforms,
    assert_stops_without_losing_a_run,
    assert_streams_as_it_goes,
    follow,
)


def a_page(name: str, stand: Stand, folder: Path) -> Page:
    """Return a page whose gunicorn finds its settings, which it looks for where it is started."""
    found = {"GUNICORN_CMD_ARGS": f"--no-control-socket --config {folder / 'gunicorn.conf.py'}"}
    return Page(FOLDER / f"{name}.md", folder, stand.settings | {"HURLBAT_WORKER": name} | found)


def test_the_page_on_flask_makes_a_worker_from_its_first_command_to_its_stop(stand: Stand, tmp_path: Path) -> None:
    page = a_page("flask", stand, tmp_path)
    try:
        server = follow(page, stand)
        assert_both_slashes_are_its_own(page)
        assert_streams_as_it_goes(page)
        assert_conforms(page)
        assert_stops_without_losing_a_run(page, stand, server)
    finally:
        stand.api.send("DELETE", "/workers/flask")


def test_the_page_on_django_makes_a_worker_under_wsgi(stand: Stand, tmp_path: Path) -> None:
    page = a_page("django", stand, tmp_path)
    page.env["HURLBAT_PUBLIC_URL"] = page.url
    commands = [line for block in blocks(page.path, "sh") for line in block.text.splitlines()]
    for line in commands:
        if line.startswith("django-admin"):
            page.run(line)
    for block in blocks(page.path, "python"):
        page.save(block.file, block.text)
    for line in commands:
        if line.startswith("echo"):
            subprocess.run(["bash", "-c", line], cwd=page.folder, check=True)
        elif line.startswith("python manage.py m"):
            page.run(line)
    [start] = [line for line in commands if line.startswith("gunicorn")]
    try:
        server = page.start(stand, start)
        stand.until_ready("django", server)
        page.run("curl -s -f http://127.0.0.1:8000/orders -d title=cheese")
        assert "completed after" in page.run("hurlbat run confirm --input 1 --wait")
        assert_both_slashes_are_its_own(page)
        assert_streams_as_it_goes(page)
        assert_conforms(page)
        assert_stops_without_losing_a_run(page, stand, server)
    finally:
        stand.api.send("DELETE", "/workers/django")


def test_the_page_on_aws_lambda_has_a_function_with_its_test(tmp_path: Path) -> None:
    page = Page(FOLDER / "aws-lambda.md", tmp_path, {})
    for block in blocks(page.path, "python"):
        page.save(block.file, block.text)
    page.run(f"{sys.executable} -m pytest -q -p no:cacheprovider test_function.py")
    event = '{"requestContext": {"http": {"method": "GET"}}}'
    told = page.run(f"{sys.executable} -c 'import function; print(function.handler({event}))'")
    assert "'statusCode': 200" in told
