"""The tasks as environments: text, a vector of what is seen, or images in; text or a vector out."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import gymnasium
import numpy as np

from qsft.data.action_tokens import VectorTokens
from qsft.envs.base import BlockPlayer, Environment, EpisodeError
from qsft.envs.manipulation.scene import FEATURES, WORKSPACE, YAW_BOUNDS, Scene, Start
from qsft.envs.manipulation.tasks import TASKS, Task, draw_start
from qsft.errors import ConfigError

if TYPE_CHECKING:
    from qsft.data.trajectory import Trajectory
    from qsft.policies.base import Policy

OBSERVATIONS = ("tokens", "picture", "state", "image")
_TARGET_BOUNDS = ((0.25, 0.50), (-0.10, 0.20))
_TRUTHS = {"true": True, "false": False}  # as a command line gives them
_PIN_BOUNDS = {
    "effector": (*zip(*WORKSPACE.tolist(), strict=True), YAW_BOUNDS),
    "cube": (*(FEATURES[f"cube_{axis}"] for axis in "xyz"), (-np.pi, np.pi)),
    "drawer": (FEATURES["drawer"],),
    "target": _TARGET_BOUNDS,
}


class Manipulation(Environment):
    """A robot arm at a table with a cube, a drawer and a button, in MuJoCo; base of the five tasks.

    The reward is 1 in the step that solves the task, which ends the episode (``terminated``), and 0 before. After
    ``max_turns`` steps of a tenth of a second it is ``truncated``. Should the simulation come apart, the episode is
    ``terminated`` with reward 0 and the last sound observation, and ``info["unstable"]`` is true; otherwise false.

    At the end ``info`` holds ``success``, ``unstable`` and where everything stood at the start: ``effector`` and
    ``cube`` (x, y, z, yaw), ``drawer`` (metres open), ``locked``, and ``target`` (x, y) if there is one.
    ``reset(options={"cube": [0.4, 0.1, 0.02, 0.0]})`` pins any of these; the rest is drawn.

    Args:
        observation: ``"tokens"``: a text of symbols, ``"s12 s200 ...\\n"``, one for each of ``features``; an action is
            one for each of its five dimensions, ``"a17 a250 a3 a128 a1\\n"``, and any other text lets a step pass with
            what the arm was asked for last. ``"picture"``: ``{"text": "\\n", "image": ...}``, an image as below, with
            the same texts for actions: what a robot transformer with images plays. ``"state"``: the features
            themselves, float32; an action is a vector in [-1, 1]. ``"image"``: ``[size, size, 3]`` uint8 (with
            ``wrist`` ``[2, size, size, 3]``); actions likewise.
        action_bins: of x, y, z and yaw. The gripper has 2: open and close.
        state_bins: of each feature; ``locked`` has 2.
        image_size: pixels of an image's side, such as 64 or 48.
        wrist: also show what a camera at the gripper sees.

    Attributes:
        task: what is to be done.
        features: names and bounds of what is seen.
        action_tokens, state_tokens: the bins.
        scene: the simulation.

    Raises:
        ConfigError: a value that is not allowed, OGBench is not installed, or (images) there is no OpenGL.
    """

    task: ClassVar[Task]
    policies: ClassVar[dict[str, str]] = {
        "noisy": "qsft.envs.manipulation.policies:NoisyPolicy",
        "oracle": "qsft.envs.manipulation.policies:OraclePolicy",
    }
    return_range = (0.0, 1.0)

    def __init__(
        self,
        observation: str = "tokens",
        action_bins: int = 256,
        state_bins: int = 256,
        image_size: int = 64,
        wrist: bool = False,
    ) -> None:
        if observation not in OBSERVATIONS:
            raise ConfigError(
                f"{self.name}: observation={observation!r} is unknown; use one of {', '.join(OBSERVATIONS)}"
            )
        self.observation = observation
        self.max_turns = self.task.horizon
        self.features = dict(FEATURES)
        if self.task.has_target:
            self.features.update(target_x=_TARGET_BOUNDS[0], target_y=_TARGET_BOUNDS[1])
        low, high = zip(*self.features.values(), strict=True)
        bins = [2 if name == "locked" else state_bins for name in self.features]
        self.state_tokens = VectorTokens(low, high, bins, "s")
        # Two bins whose middles are -1 and 1.
        self.action_tokens = VectorTokens([-1, -1, -1, -1, -2], [1, 1, 1, 1, 2], [*[action_bins] * 4, 2], "a")
        self.scene = Scene()
        self.in_words = observation in ("tokens", "picture")
        if self.in_words:
            self.action_space: gymnasium.Space = gymnasium.spaces.Text(max_length=40, charset=string.printable)
        else:
            self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (5,), np.float32)
        if observation == "tokens":
            self.observation_space: gymnasium.Space = gymnasium.spaces.Text(max_length=100, charset=string.printable)
            return
        if observation == "state":
            self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (len(low),), np.float32)
            return
        from qsft.envs.manipulation.pictures import Pictures

        self.pictures = Pictures(image_size, wrist)
        image = gymnasium.spaces.Box(0, 255, self.pictures.shape, np.uint8)
        if observation == "picture":
            text = gymnasium.spaces.Text(max_length=1, charset="\n")
            self.observation_space = gymnasium.spaces.Dict({"text": text, "image": image})
        else:
            self.observation_space = image

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; what ``options`` do not pin is drawn.

        Raises:
            ConfigError: unknown option, or a value that is not allowed.
        """
        super().reset(seed=seed, options=options)
        start = draw_start(self.task.start, self.task.has_target, self.np_random)
        self._playing = False
        self._start = self._pinned(start, self.pins(options))
        self._playing = True
        self.scene.place(self._start)
        self._steps = 0
        self._seen = self._observe()
        return self._seen, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """A tenth of a second.

        Raises:
            EpisodeError: the episode is over or was never started, or ``action`` is of the wrong kind: no ``str`` for
                tokens, or no vector of five finite numbers in [-1, 1].
        """
        if self.in_words:
            self.check_step(action)
            vector = self.action_tokens.parse(action)
        else:
            vector = self._checked(action)
        sound = self.scene.hold() if vector is None else self.scene.step(vector)
        self._steps += 1
        success = sound and self.task.solved(self.scene)
        over = success or not sound
        truncated = not over and self._steps == self.max_turns
        if sound:
            self._seen = self._observe()
        if not (over or truncated):
            return self._seen, 0.0, False, False, {}
        self._playing = False
        return self._seen, float(success), over, truncated, {"success": success, "unstable": not sound, **self._pins()}

    def symbols(self, whole_actions: bool = False) -> list[str]:
        """The symbols of states (where pictures are seen, a model may learn to name them), of actions, and a newline.

        Raises:
            ConfigError: whole actions are asked for; there are too many.
        """
        if whole_actions:
            raise ConfigError(f"{self.name}: an action is five symbols; there are too many to make each one symbol")
        return ["\n", *self.state_tokens.symbols, *self.action_tokens.symbols]

    def corpus(self, texts: int, seed: int = 0) -> Iterator[Trajectory]:
        """Pictures and what they show, see :func:`qsft.envs.manipulation.corpus.moments`.

        Raises:
            ConfigError: ``observation`` is not ``"picture"``: symbols need no learning to see.
        """
        if self.observation != "picture":
            raise ConfigError(f"{self.name}: texts to pretrain on are of pictures; set observation='picture'")
        from qsft.envs.manipulation.corpus import moments  # it needs the players, who need this class

        return moments(self, texts, seed)

    def block_player(self, policy: Policy) -> BlockPlayer | None:
        from qsft.envs.manipulation.collect import IllustratedPlayer, ManipulationPlayer
        from qsft.envs.manipulation.policies import ScriptedPolicy

        if not isinstance(policy, ScriptedPolicy):
            return None
        return IllustratedPlayer(self, policy) if self.observation == "picture" else ManipulationPlayer(self, policy)

    def _observe(self) -> Any:
        if self.observation == "image":
            return self.pictures.of(self.scene)
        if self.observation == "picture":
            return {"text": "\n", "image": self.pictures.of(self.scene)}
        features = self.scene.features()
        if self.observation == "state":
            return features.astype(np.float32)
        return self.state_tokens.text(features, clip=True) + "\n"

    def _checked(self, action: Any) -> np.ndarray:
        if not self._playing:
            raise EpisodeError(f"{self.name}: no episode is being played; call reset() before step()")
        try:
            vector = np.asarray(action, np.float64)
        except (TypeError, ValueError, OverflowError):
            raise EpisodeError(f"{self.name}: an action is a vector of 5 numbers, got {action!r:.60}") from None
        if vector.shape != (5,):
            raise EpisodeError(f"{self.name}: an action is a vector of 5 numbers, got shape {vector.shape}")
        wrong = ~(np.abs(vector) <= 1.0)  # NaN too
        if wrong.any():
            dimension = int(np.argmax(wrong))
            raise EpisodeError(f"{self.name}: action {vector[dimension]:g} in dimension {dimension} is not in [-1, 1]")
        return vector

    def _pins(self) -> dict[str, Any]:
        start = self._start
        pins = {"effector": list(start.effector), "cube": list(start.cube), "drawer": start.drawer}
        pins |= {"locked": start.locked, "target": list(start.target or ())}
        return {name: pins[name] for name in self.reset_options}

    def _pinned(self, start: Start, options: dict[str, Any]) -> Start:
        values: dict[str, Any] = {}
        for name, value in options.items():
            if name == "locked":
                value = _TRUTHS.get(value, value) if isinstance(value, str) else value
                if not isinstance(value, bool):
                    raise ConfigError(f"{self.name}: locked={value!r:.60} must be true or false")
                values[name] = value
                continue
            numbers = [value] if name == "drawer" else value
            bounds = _PIN_BOUNDS[name]
            given = isinstance(numbers, list | tuple) and len(numbers) == len(bounds)
            if not given or not all(
                isinstance(number, int | float) and low <= number <= high
                for number, (low, high) in zip(numbers, bounds, strict=True)
            ):
                wanted = ", ".join(f"{low:.2f} to {high:.2f}" for low, high in bounds)
                raise ConfigError(f"{self.name}: {name}={value!r:.60}; give {len(bounds)} numbers: {wanted}")
            values[name] = float(numbers[0]) if name == "drawer" else tuple(float(number) for number in numbers)
        return Start(**{**vars(start), **values})


_PINS = ("effector", "cube", "drawer", "locked")


class Pick(Manipulation):
    """Grasp the cube on the table and lift it 10 centimetres."""

    name = "pick"
    task = TASKS["pick"]
    reset_options = _PINS


class Place(Manipulation):
    """Bring the cube to a marked place on the table and let go of it."""

    name = "place"
    task = TASKS["place"]
    reset_options = (*_PINS, "target")


class Drawer(Manipulation):
    """Open the drawer."""

    name = "drawer"
    task = TASKS["drawer"]
    reset_options = _PINS


_STITCHED = {**Manipulation.policies, "grasp-only": "qsft.envs.manipulation.policies:GraspOnlyPolicy"}


class ClosedDrawer(Manipulation):
    """Take the cube out of the closed drawer: open it, grasp, lift. No trajectory of the data does both."""

    name = "closed-drawer"
    task = TASKS["closed-drawer"]
    reset_options = _PINS
    policies: ClassVar[dict[str, str]] = _STITCHED


class BlockedDrawer(Manipulation):
    """Take the cube out of the locked drawer: press the button, open it, grasp, lift."""

    name = "blocked-drawer"
    task = TASKS["blocked-drawer"]
    reset_options = _PINS
    policies: ClassVar[dict[str, str]] = _STITCHED
