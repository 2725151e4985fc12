"""The shop in a browser: over HTTP, and in a real one where chromedriver is installed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qsft.data.files import load_trajectories
from qsft.envs.collect import collect
from qsft.envs.webshop.env import WebShop
from qsft.envs.webshop.serve import ShopServer, main
from qsft.errors import DataError
from tests.envs.webshop.shops import hand_made_shop

OPTIONS: dict[str, Any] = {"products": 2000, "split": "all", "max_turns": 100}


def running(server: ShopServer) -> Iterator[str]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "people.jsonl"


@pytest.fixture
def by_hand(out: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The hand-made shop, whose texts hold HTML."""
    monkeypatch.setattr("qsft.envs.webshop.env._generated_shop", lambda *_: hand_made_shop())
    yield from running(ShopServer(("127.0.0.1", 0), OPTIONS, out=out))


def get(address: str) -> str:
    with urllib.request.urlopen(address) as response:
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        return response.read().decode()


def post(address: str, **form: str) -> tuple[str, str]:
    """The page that follows, and its address."""
    with urllib.request.urlopen(address, urllib.parse.urlencode(form).encode()) as response:
        return response.read().decode(), response.url


def test_a_person_shops(by_hand: str, out: Path) -> None:
    assert "Give me something to buy" in get(by_hand)
    page, visit = post(f"{by_hand}/start")
    assert "find me a &lt;i&gt;non slip&lt;/i&gt; mat" in page
    assert "B000000000" in post(visit, query="purple")[0]
    page, _ = post(visit, action="click[b000000000]")
    assert "Quillon Cork Mat" in page and "Price: $29.99" in page
    assert "<li>Folds flat.</li>" in post(visit, action="click[features]")[0]
    assert (
        "Perfect (5 of 5): Lovely." in post(visit, action="click[< prev]")[0] + post(visit, action="click[reviews]")[0]
    )
    post(visit, action="click[< prev]")
    assert 'class="clicked" aria-pressed="true">deep purple' in post(visit, action="click[deep purple]")[0]
    assert not out.read_bytes()
    page, _ = post(visit, action="click[buy now]")
    assert '<b id="score">1.000</b>' in page
    assert get(visit) == page, "it can be looked at again"
    assert post(visit, query="more")[0] == page, "and is over"
    (episode,) = load_trajectories(out)
    assert episode.total_return == 1.0
    assert episode.metadata == {"env": "webshop", "policy": "person", "goal": 0, "success": True}
    assert episode.turns[1].text == "search[purple]"


def test_texts_are_escaped(by_hand: str) -> None:
    _, visit = post(f"{by_hand}/start", goal="0")
    pages = [post(visit, query="</title><script>alert(3)</script>")[0], post(visit, query="script")[0]]
    pages += [post(visit, action="click[b000000013]")[0], post(visit, action="click[buy now]")[0]]
    assert "&lt;script&gt;alert(2)&lt;/script&gt;" in pages[1]
    assert all("<script" not in page and "<i>" not in page for page in pages)


def test_two_visits_do_not_meet(by_hand: str) -> None:
    one, two = post(f"{by_hand}/start")[1], post(f"{by_hand}/start")[1]
    assert one != two
    post(one, query="purple")
    assert "Total results" not in get(two)


def test_who_shops_is_not_forgotten(by_hand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsft.envs.webshop.serve._VISITS", 3)
    visits = [post(f"{by_hand}/start")[1] for _ in range(3)]
    post(visits[0], query="purple")
    post(f"{by_hand}/start")
    assert "Total results" in get(visits[0])
    with pytest.raises(urllib.error.HTTPError):
        get(visits[1])


def test_another_page_cannot_shop(by_hand: str) -> None:
    for origin, status in ((by_hand, 200), ("http://example.org", 403), ("null", 403)):
        request = urllib.request.Request(f"{by_hand}/start", b"", {"Origin": origin})
        try:
            answer = urllib.request.urlopen(request).status
        except urllib.error.HTTPError as error:
            answer = error.code
        assert answer == status


def test_an_address_that_is_none(by_hand: str) -> None:
    host, port = by_hand.removeprefix("http://").split(":")
    for verb in ("GET", "POST"):
        with socket.create_connection((host, int(port))) as opened:
            opened.sendall(f"{verb} http://[ HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
            assert b" 404 " in opened.recv(100)


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/shop",
        "/shop/x",
        "/replay/0/0",
        "/replay/x/y",
        "/replay/" + "9" * 5000 + "/0",
        "/../../etc/passwd",
        "/shop/x/y",
        "/favicon.ico",
    ],
)
def test_what_is_not_there(path: str, by_hand: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(by_hand + path)


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("/start", {"goal": "1"}, 404),
        ("/start", {"goal": "-1"}, 404),
        ("/start", {"goal": "x"}, 404),
        ("/nothing", {}, 404),
        ("/start", {"goal": "1" * 5_000}, 404),
        ("/start", {"goal": "1" * 20_000}, 413),
    ],
)
def test_bad_forms(path: str, form: dict, status: int, by_hand: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match=str(status)):
        post(by_hand + path, **form)


def test_any_action_is_taken(by_hand: str) -> None:
    _, visit = post(f"{by_hand}/start")
    for action in ("", "click[", "😀", "click[buy now]", "\ufffd", "[" * 3000):
        assert "WebShop" in post(visit, action=action)[0]


def test_brackets_in_a_search_are_blanks(by_hand: str) -> None:
    _, visit = post(f"{by_hand}/start")
    assert "B000000000" in post(visit, query="purple [mat]")[0]


def test_a_file_that_cannot_be_written_is_noticed_before_anybody_shops(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"people\.jsonl"):
        ShopServer(("127.0.0.1", 0), OPTIONS, out=tmp_path / "nowhere" / "people.jsonl")


def test_a_visit_ends_when_the_actions_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qsft.envs.webshop.env._generated_shop", lambda *_: hand_made_shop())
    for address in running(ShopServer(("127.0.0.1", 0), {**OPTIONS, "max_turns": 1})):
        _, visit = post(f"{address}/start")
        assert "the visit is over without a purchase" in post(visit, query="mat")[0]


@pytest.mark.parametrize("mode", ["text", "words"])
def test_an_agent_s_episode_is_replayed(mode: str) -> None:
    options = {**OPTIONS, "observation": mode, "max_turns": 15}
    games = list(collect("webshop", "expert", 2, 0, options))
    server = ShopServer(("127.0.0.1", 0), options, games)
    for address in running(server):
        listing = get(f"{address}/replay")
        assert listing.count("expert: score") == 2
        actions = list(games[1].agent_turns)
        page = get(f"{address}/replay/1/0")
        assert "The agent does: <code" in page
        assert 'value="' in page, "what it searches for stands in the field"
        marks = [get(f"{address}/replay/1/{step}").count('class="main marked"') for step in range(len(actions))]
        assert marks[-1] == 1, "the last click is on Buy Now"
        assert f'<b id="score">{games[1].total_return:.3f}</b>' in get(f"{address}/replay/1/{len(actions)}")
        with pytest.raises(urllib.error.HTTPError):
            get(f"{address}/replay/1/{len(actions) + 1}")


def test_episodes_of_another_shop_are_refused() -> None:
    (game,) = collect("webshop", "first-item", 1, 0, {"products": 2000})
    game.metadata["goal"] = 5000
    with pytest.raises(DataError, match="episode 0: goal 5000 is not one of this shop's"):
        ShopServer(("127.0.0.1", 0), OPTIONS, [game])


@pytest.mark.parametrize("other", [{"catalogue_seed": 1}, {"products": 3000}, {"observation": "words"}])
def test_episodes_are_not_replayed_on_pages_that_they_never_saw(other: dict) -> None:
    (game,) = collect("webshop", "first-item", 1, 0, {**OPTIONS, **other})
    with pytest.raises(
        DataError, match=r"episode 0: page \d+ is another than this shop's for goal .* --catalogue-seed"
    ):
        ShopServer(("127.0.0.1", 0), OPTIONS, [game])
    ShopServer(("127.0.0.1", 0), {**OPTIONS, **other}, [game]).server_close()


def test_a_person_s_visit_is_written_as_an_agent_s_of_the_mode(tmp_path: Path) -> None:
    options = {**OPTIONS, "observation": "words"}
    server = ShopServer(("127.0.0.1", 0), options, out=tmp_path / "people.jsonl")
    for address in running(server):
        page, visit = post(f"{address}/start", goal="3")
        page, _ = post(visit, query="red Wallet, small")
        asin = page.split('value="click[b0')[1].split("]")[0]
        post(visit, action=f"click[b0{asin}]")
        post(visit, action="click[buy now]")
    (episode,) = load_trajectories(tmp_path / "people.jsonl")
    said = [turn.text for turn in episode.agent_turns]
    assert said == ["search[ red wallet , small ]\n", "click[ item 1 ]\n", "click[ buy now ]\n"]
    env = WebShop(**options)
    seen = [env.reset(options={"goal": 3})[0], *(env.step(text)[0] for text in said)]
    assert [turn.text for turn in episode.turns if not turn.is_agent] == seen


def test_a_visit_that_cannot_be_saved_says_so_to_the_person(by_hand: str, out: Path) -> None:
    _, visit = post(f"{by_hand}/start")
    post(visit, query="purple")
    post(visit, action="click[b000000000]")
    out.unlink()
    out.mkdir()
    page, _ = post(visit, action="click[buy now]")
    assert "This visit was not saved: " in page and 'id="score"' in page
    assert "This visit was not saved: " in get(visit)


def test_what_is_too_long_is_answered(by_hand: str) -> None:
    _, visit = post(f"{by_hand}/start")
    assert 'maxlength="1000"' in get(visit)
    for size in (30_000, 3_000_000):
        with pytest.raises(urllib.error.HTTPError, match="413"):
            post(visit, query="x" * size)
    assert "Instruction" in post(visit, query="\N{SNOWMAN}" * 1000)[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "99999"], "--port 99999: must be from 0 (a free one) to 65535"),
        (["--host", "nosuchhost.invalid", "--products", "2000"], "--host nosuchhost.invalid --port 0: "),
        (["--index", "/proc/x", "--products", "2000"], "/proc/x: no search index can be kept there"),
        (["--out", "people.txt"], "must end in .jsonl"),
        (["--products", "5"], "products=5"),
        (["--replay", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_bad_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "0", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("qsft: ") and error.count("\n") == 1


def test_the_command() -> None:
    command = [sys.executable, "-m", "qsft.envs.webshop.serve", "--port", "0", "--products", "2000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "WebShop" in get(process.stdout.readline().strip())
        finally:
            process.terminate()


# ---- In a real browser ----

DRIVER = shutil.which("chromedriver")


class Browser:
    """A headless Chromium by the WebDriver protocol."""

    def __init__(self, driver: str) -> None:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        self._driver = driver
        self._session = ""
        capabilities = {"alwaysMatch": {"goog:chromeOptions": {"args": arguments}, "unhandledPromptBehavior": "ignore"}}
        self._session = self._call("", {"capabilities": capabilities})["sessionId"]
        self._call("/timeouts", {"implicit": 20_000})  # an element may be on the page that is still coming

    def _call(self, path: str, body: dict | None = None, method: str | None = None) -> Any:
        address = f"{self._driver}/session{'/' + self._session if self._session else ''}{path}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def open(self, address: str) -> None:
        self._call("/url", {"url": address})

    def find(self, selector: str, by: str = "css selector") -> str:
        return next(iter(self._call("/element", {"using": by, "value": selector}).values()))

    def _of_element(self, what: str, selector: str, by: str = "css selector", body: dict | None = None) -> Any:
        for left in range(3, 0, -1):
            try:
                return self._call(f"/element/{self.find(selector, by)}/{what}", body)
            except urllib.error.HTTPError as error:
                # the page changed since the element was found: 404, or while the browser swaps the documents 500
                if error.code not in (404, 500) or left == 1:
                    raise
                time.sleep(0.2)

    def click(self, selector: str, by: str = "css selector") -> None:
        self._of_element("click", selector, by, {})

    def press(self, label: str) -> None:
        self.click(f"//button[normalize-space()='{label}']", "xpath")

    def type(self, selector: str, text: str) -> None:
        self._of_element("value", selector, body={"text": text})

    def text(self, selector: str) -> str:
        return self._of_element("text", selector)

    def run(self, script: str) -> Any:
        return self._call("/execute/sync", {"script": script, "args": []})

    def quit(self) -> None:
        self._call("", method="DELETE")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if DRIVER is None:
        pytest.skip("chromedriver is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    process = subprocess.Popen(
        [DRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{address}/status", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        found = Browser(address)
        yield found
        found.quit()
    finally:
        process.terminate()
        process.wait()


def test_shopping_in_a_browser(browser: Browser, by_hand: str) -> None:
    browser.open(by_hand)
    browser.press("Give me something to buy")
    assert "find me a <i>non slip</i> mat" in browser.text("#instruction")
    browser.type(".search input", "purple mat")
    browser.press("Search")
    browser.press("B000000000")
    browser.press("deep purple")
    assert browser.text("button.clicked") == "deep purple"
    browser.press("Features")
    assert "Folds flat." in browser.text("body")
    browser.press("< Prev")
    assert browser.text("button.clicked") == "deep purple"
    browser.press("Buy Now")
    assert browser.text("#score") == "1.000"


def test_no_script_of_a_product_runs(browser: Browser, by_hand: str) -> None:
    browser.open(by_hand)
    browser.press("Give me something to buy")
    browser.type(".search input", "script")
    browser.press("Search")
    browser.press("B000000013")
    assert browser.text("h2") == "</h2><script>alert(2)</script>", "shown as text; an alert would have failed this"
    assert browser.run("return document.scripts.length") == 0


def test_a_replay_in_a_browser(browser: Browser) -> None:
    options = {**OPTIONS, "max_turns": 15}
    (game,) = collect("webshop", "expert", 1, 0, options)
    for address in running(ShopServer(("127.0.0.1", 0), options, [game])):
        browser.open(f"{address}/replay")
        browser.click("li a")
        for turn in game.agent_turns:
            assert browser.text("#action") == turn.text
            browser.click("#next")
        assert browser.text("#score") == f"{game.total_return:.3f}"
