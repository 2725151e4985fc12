"""The shop in a browser, for a person to shop the same goals, and for replaying an agent's episodes.

``python -m qsft.envs.webshop.serve`` and then http://127.0.0.1:3000. Nothing is loaded from anywhere else.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import parse_qs

from qsft.data.trajectory import AGENT_ROLE, Trajectory, Turn
from qsft.envs.webshop import web
from qsft.envs.webshop.env import SPLITS, WebShop
from qsft.envs.webshop.reward import Reward, reward
from qsft.envs.webshop.session import Action, Session, parse_action
from qsft.envs.webshop.texts import OBSERVATIONS, action_text, read_action, written_action
from qsft.errors import ConfigError, DataError, QSFTError

#: Visits that are remembered; beyond them those that nobody has looked at for the longest are forgotten.
_VISITS = 1000
_WALKED_THROUGH = 20  # episodes to replay whose every page is compared
_LONGEST_FORM = 20_000  # bytes; a query of web.LONGEST_QUERY characters fits
_LONGEST_READ = 10_000_000  # bytes of a form that is refused
_NO_BRACKETS = str.maketrans("[]", "  ")
_SAFE = {
    # No script runs, whatever a product's text holds.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(slots=True)
class Visit:
    """A person's episode."""

    env: WebShop
    trajectory: Trajectory
    score: Reward | None = None
    problem: str = ""  # why it could not be kept


class ShopServer(ThreadingHTTPServer):
    """Serves one shop.

    Args:
        address: host and port; port 0 takes a free one.
        options: of :class:`~qsft.envs.webshop.env.WebShop`.
        replay: episodes that can be replayed, of this shop and this observation mode.
        out: file to which each finished visit is appended as a trajectory (``.jsonl``).
        seed: draws the goals.
    """

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        options: dict,
        replay: Sequence[Trajectory] = (),
        out: str | os.PathLike[str] | None = None,
        seed: int | None = None,
    ) -> None:
        self.options, self.replay, self.out = options, list(replay), out
        self.first = WebShop(**options)
        self.first.reset(seed=seed)
        self.goals = self.first.shop.catalogue.goals
        for number, episode in enumerate(self.replay):
            self._check(episode, f"replay: episode {number}", thoroughly=number < _WALKED_THROUGH)
        self.visits: OrderedDict[str, Visit] = OrderedDict()
        self.lock = Lock()
        self.keep([])  # now, while nobody has shopped yet, it is found that the file cannot be written
        super().__init__(address, _Handler)

    def _check(self, episode: Trajectory, where: str, thoroughly: bool) -> None:
        """Refuses an episode of another shop or another mode, which would be replayed on pages that it never saw.

        Its first page tells most; all of them, which takes some milliseconds, also another number of products.
        """
        goal = episode.metadata.get("goal")
        if not isinstance(goal, int) or not 0 <= goal < self.goals:
            raise DataError(f"{where}: goal {goal!r:.40} is not one of this shop's")
        if episode.metadata.get("policy") == "human":
            return  # recorded in the original, whose limits of prices were drawn anew at each start
        env = WebShop(**self.options)
        pages = [env.reset(options={"goal": goal})[0]]
        if thoroughly:
            for turn in episode.agent_turns:
                page, _, over, _, _ = env.step(turn.text)
                pages.append(page)
                if over:
                    break
        for number, (page, turn) in enumerate(zip(pages, (t for t in episode.turns if not t.is_agent), strict=False)):
            if page != turn.text:
                raise DataError(
                    f"{where}: page {number} is another than this shop's for goal {goal}; give --observation, --goals, "
                    "--products and --catalogue-seed as it was collected with"
                )

    def start(self, goal: int | None) -> str:
        """A new visit; returns its name."""
        env = WebShop(**self.options)
        if goal is None:
            self.first.reset()
            goal = self.first.goal_number
        observation, _ = env.reset(options={"goal": goal})
        name = secrets.token_urlsafe(12)
        self.visits[name] = Visit(env, Trajectory([Turn("user", observation)]))
        if len(self.visits) > _VISITS:
            self.visits.popitem(last=False)
        return name

    def visit(self, path: list[str]) -> Visit | None:
        """The visit that an address names, if there is one."""
        if len(path) != 2 or path[0] != "shop" or path[1] not in self.visits:
            return None
        self.visits.move_to_end(path[1])
        return self.visits[path[1]]

    def act(self, visit: Visit, text: str) -> None:
        """One action of a person, written as an agent in this shop's mode would write it."""
        episode = visit.trajectory
        if episode.ended is not None:
            return
        action = parse_action(text)
        if action is not None:
            text = written_action(action, visit.env.session, visit.env.observation)
        observation, score, over, _, info = visit.env.step(text)
        episode.turns += [Turn(AGENT_ROLE, text, score), Turn("user", observation)]
        if over:
            episode.ended, visit.score = "terminated", info["score"]
            episode.metadata = {"env": "webshop", "policy": "person", "goal": info["goal"], "success": info["success"]}
            try:
                self.keep([episode])
            except DataError as error:
                visit.problem = f"This visit was not saved: {error}"
                print(f"qsft: {error}", file=sys.stderr, flush=True)

    def keep(self, episodes: Sequence[Trajectory]) -> None:
        """Adds finished visits to the file, where there is one."""
        if self.out is not None:
            from qsft.data.files import append_trajectories

            append_trajectories(self.out, episodes)

    def replayed(self, number: int, step: int) -> tuple[Session, Reward | None, list[str]]:
        """An episode after ``step`` actions, its score if that was the last one, and all its actions."""
        episode = self.replay[number]
        shop, mode = self.first.shop, self.first.observation
        goal = shop.catalogue.goal(episode.metadata["goal"])
        session = Session(shop, goal.instruction)
        actions = []
        for place, turn in enumerate(episode.agent_turns):
            action = read_action(turn.text, session, mode) if place <= step else None
            # Shown as the pages write it, so that the button can be found.
            actions.append(action_text(Action(action.verb, action.argument.lower()), "text") if action else turn.text)
            if place < step:
                session.act(action)
        score = None
        if session.page == "done":
            assert session.product is not None
            score = reward(session.product, session.chosen, goal)
        return session, score, actions


class _Handler(BaseHTTPRequestHandler):
    server: ShopServer
    server_version = "qsft"
    sys_version = ""

    def do_GET(self) -> None:
        with self.server.lock:
            self._show()

    def _show(self) -> None:
        path = self._parts()
        if not path:
            self._page(web.start_page(self.server.goals))
        elif visit := self.server.visit(path):
            over = visit.trajectory.ended is not None and visit.score is None
            message = "Too many actions: the visit is over without a purchase. " if over else ""
            message += visit.problem
            address = "" if over else f"/shop/{path[1]}"
            self._page(web.session_page(visit.env.session, address, visit.score, message))
        elif path == ["replay"]:
            episodes = self.server.replay
            self._page(web.replay_list([_title(episode) for episode in episodes]))
        elif path[0] == "replay" and len(path) == 3 and all(_is_number(part) for part in path[1:]):
            self._replay(int(path[1]), int(path[2]))
        else:
            self._missing()

    def _parts(self) -> list[str]:
        """Of the address's path."""
        return [part for part in self.path.partition("?")[0].split("/") if part]

    def do_POST(self) -> None:
        path = self._parts()
        size = self.headers.get("Content-Length", "")
        if not _is_number(size) or int(size) > _LONGEST_FORM:
            if _is_number(size):  # a browser shows the answer once all that it sends is read
                self.rfile.read(min(int(size), _LONGEST_READ))
            self.close_connection = True
            self._missing(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        origin = self.headers.get("Origin")
        if origin not in (None, f"http://{self.headers.get('Host')}"):  # a page of somebody else's in the same browser
            self.rfile.read(int(size))
            self._missing(HTTPStatus.FORBIDDEN)
            return
        form = parse_qs(self.rfile.read(int(size)).decode("utf-8", "replace"), keep_blank_values=True)
        with self.server.lock:
            if path == ["start"]:
                self._start(form.get("goal", [""])[0])
            elif visit := self.server.visit(path):
                query = form.get("query", [""])[0].translate(_NO_BRACKETS)  # they end an action's argument
                action = form["action"][0] if "action" in form else f"search[{query}]"
                self.server.act(visit, action)
                self._go(f"/shop/{path[1]}")
            else:
                self._missing()

    def _start(self, goal: str) -> None:
        if goal and not (_is_number(goal) and int(goal) < self.server.goals):
            self._missing()
        else:
            self._go(f"/shop/{self.server.start(int(goal) if goal else None)}")

    def _replay(self, number: int, step: int) -> None:
        if number >= len(self.server.replay) or step > len(list(self.server.replay[number].agent_turns)):
            self._missing()
            return
        session, score, actions = self.server.replayed(number, step)
        self._page(web.replay_page(session, score, number, step, actions))

    def _page(self, content: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        data = content.encode("utf-8", "replace")
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        for name, value in _SAFE.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _go(self, address: str) -> None:
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", address)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _missing(self, status: HTTPStatus = HTTPStatus.NOT_FOUND) -> None:
        self._page(web.document(status.phrase, f'<h1>{status.phrase}</h1><p><a href="/">To the shop</a></p>'), status)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a person's searches are their own."""


def _is_number(text: str) -> bool:
    """Whether it is one, of a length that is worth reading."""
    return text.isascii() and text.isdecimal() and len(text) < 20


def _title(episode: Trajectory) -> str:
    who = episode.metadata.get("policy", "agent")
    return f"goal {episode.metadata['goal']}, {who}: score {episode.total_return:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its status."""
    parser = argparse.ArgumentParser(
        prog="python -m qsft.envs.webshop.serve", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--split", choices=sorted(SPLITS), default="train")
    parser.add_argument("--goals", choices=("human", "synthetic"), default="human")
    parser.add_argument("--products", type=int, default=10_000)
    parser.add_argument("--catalogue-seed", type=int, default=0)
    parser.add_argument("--data", metavar="DIR", help="the original's files")
    parser.add_argument("--tagger", default="en_core_web_sm", help="spaCy model for the titles of --data")
    parser.add_argument("--index", metavar="DIR", help="keep search indexes there")
    parser.add_argument("--max-turns", type=int, default=100)
    parser.add_argument("--replay", metavar="FILE", help="trajectories to replay")
    parser.add_argument(
        "--observation", choices=OBSERVATIONS, default="text", help="mode of the trajectories, read or written"
    )
    parser.add_argument("--out", metavar="FILE.jsonl", help="append every finished visit there, as a trajectory")
    given = parser.parse_args(arguments)
    names = ("split", "goals", "products", "catalogue_seed", "data", "tagger", "index", "max_turns", "observation")
    try:
        if given.out is not None and not given.out.endswith(".jsonl"):
            raise ConfigError(f"--out {given.out}: must end in .jsonl")
        if not 0 <= given.port <= 65535:
            raise ConfigError(f"--port {given.port}: must be from 0 (a free one) to 65535")
        replay: list[Trajectory] = []
        if given.replay is not None:
            from qsft.data.files import load_trajectories

            replay = list(load_trajectories(given.replay))
        server = ShopServer((given.host, given.port), {name: getattr(given, name) for name in names}, replay, given.out)
    except QSFTError as error:
        print(f"qsft: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # of the socket
        print(f"qsft: --host {given.host} --port {given.port}: {error.strerror}; choose others", file=sys.stderr)
        return 2
    print(f"http://{given.host}:{server.server_port}" + ("/replay" if replay else ""), flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
