"""Environments that show pictures: rollouts, collected files, and ALFWorld from collecting to evaluating."""

from __future__ import annotations

import json

import gymnasium
import numpy as np
import pytest
from PIL import Image

from qsft.data import load_trajectories
from qsft.data.pictures import read_picture
from qsft.envs import collect_to_file, make
from qsft.envs.base import Environment
from qsft.envs.collect import Collection
from qsft.envs.rollout import observed, rollout
from qsft.errors import ConfigError, DataError
from qsft.evaluation import rollout as evaluate
from qsft.policies import load_policy
from qsft.training import RunSettings, train
from tests.vision import families


class Shapes(Environment):
    """Says nothing of the grey it shows; the agent is to name it."""

    name = "shapes"
    reset_options = ("level",)
    return_range = (0.0, 1.0)
    max_turns = 2

    def __init__(self, kind: str = "both") -> None:
        self.kind_of_observation = kind

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self.level = (options or {}).get("level", int(self.np_random.integers(256)))
        self.turn = 0
        return self._seen("how bright?"), {}

    def step(self, action):
        self.check_step(action)
        self.turn += 1
        right = action.strip() == str(self.level)
        over = self.turn == self.max_turns
        info = {"success": right, "level": self.level} if right or over else {}
        return self._seen("" if right else "no"), float(right), right, over and not right, info

    def _seen(self, text):
        picture = np.full((4, 6, 3), self.level, np.uint8)
        picture[self.turn] = 0
        odd = {"odd": 3, "floats": picture / 255.0, "grey": picture[..., 0]}
        return {"both": {"text": text, "image": picture}, "image": picture, "two": np.stack([picture, picture]), **odd}[
            self.kind_of_observation
        ]


class Looker:
    """Reads the level off the picture from the second turn on."""

    name = "looker"

    def seed(self, seed):
        pass

    def act(self, histories):
        levels = [int(np.asarray(read_picture(history.turns[-1].images[0]))[-1, -1, 0]) for history in histories]
        spoken = [sum(1 for _ in history.agent_turns) for history in histories]
        return [str(level if turns else (level + 1) % 256) for level, turns in zip(levels, spoken, strict=True)]


SHAPES = f"{__name__}:Shapes"


class TestRollouts:
    def test_pictures_are_turns_images(self):
        (game,) = rollout([Shapes()], Looker(), [3])
        assert game.metadata["success"] and game.total_return == 1.0
        assert [turn.text for turn in game.turns if not turn.is_agent] == ["how bright?", "no", ""]
        level = game.metadata["level"]
        for number, turn in enumerate(turn for turn in game.turns if not turn.is_agent):
            expected = np.full((4, 6, 3), level, np.uint8)
            expected[number] = 0
            assert np.array_equal(np.asarray(read_picture(turn.images[0])), expected)

    @pytest.mark.parametrize(("kind", "images"), [("image", 1), ("two", 2)])
    def test_pictures_alone(self, kind, images):
        (game,) = rollout([Shapes(kind)], Looker(), [3])
        assert {(turn.text, len(turn.images)) for turn in game.turns if not turn.is_agent} == {("", images)}

    @pytest.mark.parametrize(
        ("kind", "message"),
        [("odd", "is a int: rollout needs text"), ("floats", "type float64"), ("grey", r"shape \(4, 6\)")],
    )
    def test_what_is_no_picture(self, kind, message):
        with pytest.raises(ConfigError, match=f"environment shapes: .*{message}"):
            rollout([Shapes(kind)], Looker(), [3])
        with pytest.raises(ConfigError, match="environment x: its observation is a dict"):
            observed({"text": "a", "sound": 1}, "x")

    def test_evaluation(self):
        games = list(evaluate(Looker(), Shapes, 5, 0, 2, progress=False))
        assert all(game.metadata["success"] for game in games)


class TestCollecting:
    def test_pictures_lie_beside_the_file(self, tmp_path):
        out = tmp_path / "games.jsonl"
        collect_to_file(SHAPES, Looker(), 3, out)
        games, memory = list(load_trajectories(out)), Collection(SHAPES, Looker()).block(0)
        paths = [image for game in games for turn in game.turns for image in turn.images]
        held = [image for game in memory[:3] for turn in game.turns for image in turn.images]
        assert paths[0] == "games-images/0000000-001-1.png" and len(set(paths)) == len(held)
        for path, picture in zip(paths, held, strict=True):
            assert (tmp_path / path).read_bytes() == picture
        assert sorted(p.name for p in tmp_path.iterdir()) == ["games-images", "games.jsonl"]

    def test_an_interrupted_collection_goes_on(self, tmp_path):
        whole, again = tmp_path / "a" / "g.jsonl", tmp_path / "b" / "g.jsonl"
        for path in (whole, again):
            path.parent.mkdir()
        collect_to_file(SHAPES, Looker(), 20, whole)
        collect_to_file(SHAPES, Looker(), 20, again)
        again.rename(partial := again.with_suffix(".partial.jsonl"))
        lines = partial.read_bytes().splitlines(True)
        partial.write_bytes(b"".join(lines[:7]) + lines[7][:20])
        (again.parent / "g-images" / "0000015-001-1.png").unlink()
        collect_to_file(SHAPES, Looker(), 20, again)
        content = [{p.relative_to(f.parent): p.read_bytes() for p in f.parent.rglob("*.*")} for f in (whole, again)]
        assert content[0] == content[1]

    def test_parquet_holds_the_same_paths(self, tmp_path):
        collect_to_file(SHAPES, Looker(), 2, tmp_path / "g.jsonl")
        collect_to_file(SHAPES, Looker(), 2, tmp_path / "h.parquet")
        paths = [[i for t in g.turns for i in t.images] for g in load_trajectories(tmp_path / "h.parquet")]
        assert paths[0][0] == "h-images/0000000-001-1.png" and (tmp_path / paths[0][0]).exists()

    def test_pictures_of_another_file_stay(self, tmp_path):
        (tmp_path / "g-images").mkdir()
        with pytest.raises(DataError, match="g-images: exists already"):
            collect_to_file(SHAPES, Looker(), 2, tmp_path / "g.jsonl")


STAGE = {"max_steps": 2, "per_device_train_batch_size": 2, "logging_steps": 2, "save_steps": 2, "use_cpu": True}


def test_alfworld_from_pictures_to_a_policy_that_plays(tmp_path):
    options = {"image_size": 64, "max_steps": 3, "text": "withheld"}
    data = tmp_path / "games.jsonl"
    collect_to_file("alfworld-image", "population", 4, data, env_options=options)
    first = json.loads(data.read_text().splitlines()[0])["messages"][0]
    assert Image.open(tmp_path / first["images"][0]).size == (64, 64)
    config = families.config("llava")
    config["text_config"] = {**config["text_config"], "max_position_embeddings": 1024}
    plan = RunSettings(
        "qsft", str(data), config, behaviour=STAGE, likelihood={**STAGE, "return_low": 0, "return_high": 1}
    )
    run = train(plan, tmp_path / "run", tokenizer=families.processor("llava"), quiet=True)
    policy = load_policy(run, with_behaviour=True)
    assert type(policy.tokenizer.processor).__name__ == "LlavaProcessor"
    policy.max_new_tokens = 3
    games = list(evaluate(policy, lambda: make("alfworld-image", **options), 2, 0, progress=False))
    assert [game.metadata["turns"] for game in games] == [3, 3]
    assert all(turn.images for game in games for turn in game.turns if not turn.is_agent)
    assert policy.q_values(type(games[0])(games[0].turns[:1]))
    assert isinstance(make("alfworld-image", **options), gymnasium.Env)
