"""The page of an exploration in a browser tab: only with its token, only from this computer, and nothing else."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
from command_line import refused
from journals import exploration, journal
from PIL import Image

from metabolismgraph.explore.live_page import LivePage

# Where the tests run in the background of a shell, interrupts are ignored, and so they are in what they start.
HEED = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.fixture
def page(tmp_path):
    """A server for an exploration with a figure, and files that are not for it."""
    folder = tmp_path / "demo"
    journal(folder, exploration(4))
    figure = folder / "runs/0001/run/tmp_training/a b.png"
    figure.parent.mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(figure)
    for other in (tmp_path / "outside.png", folder / "base.png", folder / "runs/0001/run/secret.key"):
        other.write_bytes(figure.read_bytes())
    (folder / "runs/link.png").symlink_to(tmp_path / "outside.png")
    with LivePage(folder) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(page, path, host=None, method="GET"):
    connection = http.client.HTTPConnection("127.0.0.1", page.server_address[1], timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", host or f"127.0.0.1:{page.server_address[1]}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def test_the_page_and_figures_are_served_with_the_token(page):
    status, content, headers = get(page, f"/{page.token}/report.html")
    assert status == 200
    assert b"4 runs of 4 configurations" in content
    assert headers["Referrer-Policy"] == "no-referrer"
    status, content, headers = get(page, f"/{page.token}/runs/0001/run/tmp_training/a%20b.png")
    assert (status, headers["Content-Type"], content[:4]) == (200, "image/png", b"\x89PNG")


def test_the_page_is_that_of_the_moment(page):
    before = get(page, f"/{page.token}/report.html")[1]
    (page.folder / "journal.jsonl").unlink()
    journal(page.folder, exploration(8))
    after = get(page, f"/{page.token}/report.html")[1]
    assert b"8 runs of" in after
    assert b"8 runs of" not in before
    (page.folder / "journal.jsonl").write_text("{")
    assert b"journal" in get(page, f"/{page.token}/report.html")[1]


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/report.html",
            "//report.html",
            "/{wrong}/report.html",
            "/{token}",
            "/{token}/",
            "/{token}/journal.jsonl",
        ),
        *("/{token}/base.png", "/{token}/../outside.png", "/{token}/runs/../base.png", "/{token}/runs/link.png"),
        *(
            "/{token}/runs/0001/run/secret.key",
            "/{token}/%2e%2e/outside.png",
            "/{token}//etc/hostname",
            "/{token}/runs",
        ),
        *("/{token}/runs/%00.png", "/{token}/runs/0001/run/tmp_training/", "/%ff/report.html"),
    ],
)
def test_nothing_else_is(page, path):
    wrong = page.token[:-1] + ("a" if page.token[-1] != "a" else "b")
    assert get(page, path.format(token=page.token, wrong=wrong))[0] == 404


def test_another_name_of_the_address_is_refused(page):
    assert get(page, f"/{page.token}/report.html", host="evil.example")[0] == 403
    assert get(page, f"/{page.token}/report.html", method="POST")[0] == 501


def test_it_listens_on_the_loopback_address_only(page):
    assert page.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_one_line(page, monkeypatch, capsys):
    message = refused(monkeypatch, capsys, "explore", "watch", page.folder, "--port", page.server_address[1])
    assert "cannot be used (" in message
    assert "--port" in message


@pytest.mark.slow
def test_the_command_ends_with_an_interrupt(tmp_path):
    journal(tmp_path / "demo", exploration(4))
    watch = [sys.executable, "-m", "metabolismgraph", "explore", "watch", str(tmp_path / "demo")]
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    run = subprocess.Popen([sys.executable, "-c", HEED, *watch], stdout=subprocess.PIPE, text=True, env=env)
    try:
        port = int(re.match(r"http://127\.0\.0\.1:(\d+)/", run.stdout.readline())[1])
        with socket.create_connection(("127.0.0.1", port), timeout=30):
            run.send_signal(signal.SIGINT)
            assert run.wait(timeout=60) == 0
    finally:
        run.kill()
        run.communicate()
