"""Chat models that are prompted to play: what they are shown, and what is made of their answers."""

from __future__ import annotations

import io
import shutil
import signal
import threading
import time
from base64 import b64decode, b64encode

import numpy as np
import pytest
from PIL import Image
from transformers import AutoConfig, AutoModelForCausalLM

from qsft.data import Trajectory, Turn, write_trajectories
from qsft.data.pictures import png
from qsft.data.thoughts import split_thought, with_thought
from qsft.endpoint import Endpoint, EndpointError, RefusedRequest
from qsft.envs import make
from qsft.errors import ConfigError, DataError, UnansweredTurns
from qsft.evaluation import rollout
from qsft.models.states import max_positions
from qsft.policies import Policy
from qsft.policies.chats import EndpointChat, LocalChat
from qsft.policies.prompting import PromptingPolicy, best_examples
from tests.data.families import chat as chat_tokenizer
from tests.data.families import episode
from tests.evaluation.toys import Guess
from tests.fake_endpoint import reply, serve


class Scripted:
    """Gives its answers in turn, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers = iter(answers)
        self.asked = []
        self.seeds = []

    def __call__(self, conversations, seed):
        self.asked += conversations
        self.seeds.append(seed)
        return [next(self.answers) for _ in conversations]


START = Trajectory([Turn("user", "guess\n")])


class TestActions:
    @pytest.mark.parametrize(
        ("answer", "action"),
        [
            ("Thought: it is 3.\nAction: 3", "3!"),
            ("Thought: 2?\nAction: 2\nNo, wait.\n**Action:** 3  \n", "3!"),
            ("  ACTION :go up", "go up!"),
            # malformed: the environment gets it as it is
            ("I guess 3", "I guess 3"),
            ("Action:\n3", "Action:\n3"),
            ("My Action: is 3", "My Action: is 3"),
            ("", ""),
        ],
    )
    def test_react(self, answer, action):
        policy = PromptingPolicy("react", Scripted(answer), to_action=lambda line: line + "!")
        assert isinstance(policy, Policy)
        assert policy.act([START]) == [action]

    @pytest.mark.parametrize(
        ("answer", "action"),
        [(" 3\n", "3!"), ("go up", "go up!"), ("3\nbecause", "3\nbecause"), ("", ""), ("\n", "\n")],
    )
    def test_few_shot(self, answer, action):
        assert PromptingPolicy("few-shot", Scripted(answer), to_action=lambda line: line + "!").act([START]) == [action]

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ("Thought: it is 3.\nAction: 3", "Thought: it is 3. Action: 3\n"),
            ("**Thought:** 2?\nAction: 2\nNo,\n\n wait.\nAction: 3", "Thought: 2? Action 2 No, wait. Action: 3\n"),
            ("It is 3.\nAction: 3", "Thought: It is 3. Action: 3\n"),
            ("Action: 3", "3\n"),
            ("I guess 3", "I guess 3"),
        ],
    )
    def test_react_with_its_thought(self, answer, said):
        """What is said can be trained on: it holds the thought, and an environment finds the same action in it."""
        policy = PromptingPolicy("react", Scripted(answer), keep_thoughts=True)
        assert policy.act([START]) == [said]
        assert split_thought(said)[1] == PromptingPolicy("react", Scripted(answer)).act([START])[0]

    def test_by_default_an_action_is_a_line(self):
        assert PromptingPolicy("few-shot", Scripted("3")).act([START]) == ["3\n"]

    def test_nothing_to_do(self):
        assert PromptingPolicy("react", Scripted()).act([]) == []

    def test_kinds(self):
        with pytest.raises(ConfigError, match="'zero-shot' is unknown; use one of react, few-shot"):
            PromptingPolicy("zero-shot", Scripted())


class TestConversation:
    def test_a_game(self):
        """Thoughts stay in the conversation; the newest words of the environment are one message."""
        chat = Scripted("Thought: start\nAction: 1", "Thought: next\nAction: 2")
        policy = PromptingPolicy("react", chat, instructions="Numbers from 1 to 6.\n")
        first = policy.act([START])[0]
        history = Trajectory([*START.turns, Turn("assistant", first), Turn("tool", "no\n"), Turn("user", "again\n")])
        policy.act([history])
        system = {"role": "system", "content": policy.system}
        assert chat.asked[0] == [system, {"role": "user", "content": "guess\n"}]
        assert chat.asked[1] == [
            *chat.asked[0],
            {"role": "assistant", "content": "Thought: start\nAction: 1"},
            {"role": "user", "content": "no\nagain\n"},
        ]
        assert policy.system.endswith("\n\nNumbers from 1 to 6.")
        assert "Thought:" in policy.system

    def test_actions_of_others_and_after_a_new_seed(self):
        chat = Scripted("1", "2", "Action: 3")
        policy = PromptingPolicy("few-shot", chat)
        history = Trajectory([*START.turns, Turn("assistant", policy.act([START])[0]), Turn("user", "no\n")])
        policy.seed(0)
        policy.act([history])
        assert chat.asked[1][2] == {"role": "assistant", "content": "1"}
        react = PromptingPolicy("react", chat)
        react.act([history])
        assert chat.asked[2][2] == {"role": "assistant", "content": "Action: 1"}

    def test_thoughts_of_others(self):
        said = Trajectory([*START.turns, Turn("assistant", with_thought("low", "1\n"), 0.0), Turn("user", "no\n")])
        for kind, shown in (("react", "Thought: low\nAction: 1"), ("few-shot", "1")):
            chat = Scripted("2")
            policy = PromptingPolicy(kind, chat, examples=[said])
            policy.act([said])
            assert chat.asked[0][2] == {"role": "assistant", "content": shown}
            assert policy.system.endswith(f"guess\n{shown if kind == 'react' else 'You: 1'}\nEnvironment: no")

    def test_pictures(self):
        """They are shown in their places, in the form that endpoints know."""
        picture = png(np.zeros((4, 6, 3), np.uint8))
        url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{b64encode(picture).decode()}"}}
        chat = Scripted("1", "2", "3")
        policy = PromptingPolicy("few-shot", chat)
        seen = Trajectory([Turn("user", "go", images=(picture,))])
        policy.act([seen])
        assert chat.asked[0][1]["content"] == [url, {"type": "text", "text": "go"}]
        policy.act([Trajectory([Turn("user", "rules\n"), *seen.turns, Turn("user", "now\n")])])
        assert chat.asked[1][1]["content"] == [
            {"type": "text", "text": "rules\n"}, url, {"type": "text", "text": "go"}, {"type": "text", "text": "now\n"},
        ]  # fmt: skip
        policy.act([Trajectory([Turn("user", "", images=(picture, picture))])])
        assert chat.asked[2][1]["content"] == [url, url]

    def test_pictures_of_other_formats_are_sent_as_what_they_are_called(self, tmp_path):
        file = io.BytesIO()
        Image.new("RGB", (4, 6), "red").save(file, "JPEG")
        (tmp_path / "a.jpg").write_bytes(file.getvalue())
        for picture in (file.getvalue(), str(tmp_path / "a.jpg")):
            chat = Scripted("1")
            PromptingPolicy("few-shot", chat).act([Trajectory([Turn("user", "go", images=(picture,))])])
            address = chat.asked[0][1]["content"][0]["image_url"]["url"]
            sent = Image.open(io.BytesIO(b64decode(address.removeprefix("data:image/png;base64,"))))
            assert (sent.format, sent.size) == ("PNG", (4, 6))
        with pytest.raises(DataError, match=r"image .*none.png: no such file"):
            PromptingPolicy("few-shot", Scripted("1")).act(
                [Trajectory([Turn("user", "go", images=(str(tmp_path / "none.png"),))])]
            )

    def test_an_environment_that_says_nothing(self):
        chat = Scripted("1")
        PromptingPolicy("few-shot", chat).act([Trajectory()])
        assert [message["role"] for message in chat.asked[0]] == ["system", "user"]

    def test_seeds_repeat(self):
        chat = Scripted(*"1" * 6)
        policy = PromptingPolicy("few-shot", chat)
        for seed in (4, 4, 5):
            policy.seed(seed)
            policy.act([START])
            policy.act([START])
        first, again, other = chat.seeds[:2], chat.seeds[2:4], chat.seeds[4:]
        assert first == again != other
        assert first[0] != first[1]


GAMES = [
    episode(("user", "guess\n"), ("assistant", f"{i}\n", float(r)), ("user", "no\n"))
    for i, r in enumerate([-3, 0, -1, 0, -2])
]


class TestExamples:
    def test_the_best_and_of_equals_the_first(self, tmp_path):
        write_trajectories(tmp_path / "games.jsonl", [*GAMES, GAMES[1]] * 200)
        best = best_examples(tmp_path / "games.jsonl", 3)
        assert [game.turns[1].text for game in best] == ["1\n", "3\n", "2\n"]
        assert best_examples(tmp_path / "games.jsonl", 0) == []
        with pytest.raises(ConfigError, match="shots: -1"):
            best_examples(tmp_path / "games.jsonl", -1)

    def test_whatever_the_order_against_sorting(self, tmp_path):
        """More distinct games than are held at a time."""
        games = [
            episode(("user", "guess\n"), ("assistant", f"{i}\n", float(i * 7919 % 1009)), ("user", "no\n"))
            for i in range(700)
        ]
        write_trajectories(tmp_path / "games.jsonl", games)
        expected = sorted(games, key=lambda game: -game.total_return)[:4]
        assert best_examples(tmp_path / "games.jsonl", 4) == expected

    def test_how_they_are_shown(self):
        for kind, speaker in (("react", "Action"), ("few-shot", "You")):
            policy = PromptingPolicy(kind, Scripted(), "Rules.", GAMES[:2])
            assert policy.system.endswith(
                "Rules.\n\nAn example of a good episode (return -3):\nEnvironment: guess\n"
                f"{speaker}: 0\nEnvironment: no\n\nAn example of a good episode (return 0):\nEnvironment: guess\n"
                f"{speaker}: 1\nEnvironment: no"
            )


class TestServed:
    def test_many_at_once_in_order(self):
        """As many requests as are allowed are under way together, and each answer comes back to its question."""
        together = threading.Barrier(4, timeout=20)
        with serve() as server:

            def answer(number, body):
                together.wait()
                return 200, reply("Action: " + body["messages"][-1]["content"].split()[-1])

            server.answer = answer
            policy = PromptingPolicy("react", EndpointChat(Endpoint(server.url, "m"), max_tokens=9, parallel=4))
            histories = [Trajectory([Turn("user", f"say {i}\n")]) for i in range(8)]
            assert policy.act(histories) == [f"{i}\n" for i in range(8)]
            assert {request["max_tokens"] for request in server.requests} == {9}
            assert not any("seed" in request for request in server.requests)

    def test_sampling_sends_a_seed_each(self):
        with serve() as server:
            chat = EndpointChat(Endpoint(server.url, "m"), temperature=0.7, parallel=1)
            chat([[{"role": "user", "content": "a"}]] * 3, 40)
            assert [request["seed"] for request in server.requests] == [40, 41, 42]
            assert {request["temperature"] for request in server.requests} == {0.7}

    def test_a_dead_endpoint_ends_it(self):
        with serve() as server:
            server.answer = lambda number, body: (401, b"")
            policy = PromptingPolicy("react", EndpointChat(Endpoint(server.url, "m"), parallel=2))
            with pytest.raises(EndpointError, match="HTTP 401"):
                policy.act([START] * 200)
            assert len(server.requests) <= 4

    def test_a_conversation_that_is_refused_is_one_episode_s_trouble(self):
        with serve() as server:
            server.answer = lambda number, body: (
                (400, b"") if "say 2" in str(body["messages"]) else (200, reply("Action: yes"))
            )
            policy = PromptingPolicy("react", EndpointChat(Endpoint(server.url, "m"), parallel=2))
            histories = [Trajectory([Turn("user", f"say {i}\n")]) for i in range(4)]
            with pytest.raises(UnansweredTurns, match="HTTP 400") as caught:
                policy.act(histories)
        assert caught.value.actions == ["yes\n", "yes\n", None, "yes\n"]
        assert list(caught.value.errors) == [2]

    def test_who_interrupts_does_not_wait_for_a_silent_endpoint(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        release = threading.Event()
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with serve() as server:
                server.answer = lambda number, body: (release.wait(60), (200, reply("late")))[1]
                chat = EndpointChat(Endpoint(server.url, "m", timeout=50), parallel=2)
                start = time.perf_counter()
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                with pytest.raises(KeyboardInterrupt):
                    chat([[{"role": "user", "content": "a"}]] * 9, 0)
                assert time.perf_counter() - start < 10
                release.set()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_whole_games(self):
        """It answers with the number of guesses so far plus one, so it plays as ``Counting`` does, in the same form."""
        with serve() as server:

            def answer(number, body):
                said = sum(message["role"] == "assistant" for message in body["messages"])
                return 200, reply(f"Thought: {said} were wrong.\nAction: {said + 1}")

            server.answer = answer
            policy = PromptingPolicy("react", EndpointChat(Endpoint(server.url, "m")), to_action=lambda line: line)
            played = list(rollout(policy, Guess, 20, 7, progress=False))
        for game in played:
            guesses = [int(turn.text) for turn in game.agent_turns]
            assert guesses == list(range(1, len(guesses) + 1))
            assert game.metadata["success"] == (guesses[-1] == game.metadata["secret"])
        assert {game.metadata["success"] for game in played} == {True, False}

    def test_words_of_wordle_are_spelt_for_the_model(self):
        env = make("wordle")
        policy = PromptingPolicy("few-shot", Scripted("crane"), to_action=env.typed_action)
        observation, _ = env.reset(seed=0)
        (action,) = policy.act([Trajectory([Turn("user", observation)])])
        assert action == "c r a n e\n"
        assert env.step(action)[0] != "\n"


class TestLocal:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("model")
        tokenizer = chat_tokenizer("chatml")
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        config = AutoConfig.for_model("qwen2", vocab_size=len(tokenizer), num_key_value_heads=1, **sizes)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
        tokenizer.save_pretrained(folder)
        return folder

    def test_a_batch_is_each_alone(self, folder):
        chat = LocalChat(str(folder), max_tokens=6)
        with pytest.raises(ConfigError, match="is shown texts alone; serve it, and give --endpoint"):
            PromptingPolicy("few-shot", chat).act(
                [Trajectory([Turn("user", "go", images=(png(np.zeros((4, 6, 3), np.uint8)),))])]
            )
        conversations = [
            [{"role": "system", "content": "Play."}, {"role": "user", "content": text}]
            for text in ("the cat", "sat on it a")
        ]
        together = chat(conversations, 0)
        assert together == [chat([conversation], 1)[0] for conversation in conversations]
        assert PromptingPolicy("few-shot", chat).act([START])

    def test_a_template_without_a_system(self, folder, tmp_path):
        """Such as Gemma's: what the system says stands at the head of what the user says."""
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        tokenizer = chat_tokenizer("chatml")
        plain = tokenizer.chat_template
        refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        tokenizer.chat_template = refuse + plain
        tokenizer.save_pretrained(tmp_path)
        said = [{"role": "user", "content": "Play."}, {"role": "assistant", "content": "the cat"}]
        conversation = [{"role": "system", "content": "sat on"}, *said, {"role": "user", "content": "it"}]
        same = [{"role": "user", "content": "sat on\n\nPlay."}, *conversation[2:]]
        chat, other = LocalChat(str(tmp_path), max_tokens=6), LocalChat(str(folder), max_tokens=6)
        read, expected = (
            model._rendered([messages])["input_ids"].tolist()
            for model, messages in ((chat, conversation), (other, same))
        )
        assert read == expected != other._rendered([conversation])["input_ids"].tolist()
        assert chat([conversation], 0) == other([same], 0)
        tokenizer.chat_template = "{{ raise_exception('never') }}"
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(
            ConfigError, match=r"its chat template refuses the conversation \(never\); give another model"
        ):
            LocalChat(str(tmp_path))([conversation], 0)

    def test_a_conversation_that_it_has_no_room_for(self, folder):
        chat = LocalChat(str(folder), max_tokens=8)
        most = max_positions(chat.model)
        short, long = ([{"role": "user", "content": "the cat " * count}] for count in (1, most))
        alone = chat([short], 0)
        first, second, third = chat([short, long, short], 0)
        assert first == third == alone[0] and isinstance(second, RefusedRequest)
        assert "tokens and 8 of the answer are more than its" in str(second)
        assert all(isinstance(answer, RefusedRequest) for answer in chat([long], 0))

    @pytest.mark.parametrize("temperature", [-1.0, float("nan"), float("inf")])
    def test_a_temperature_that_is_none(self, folder, temperature):
        with pytest.raises(ConfigError, match="temperature: .* must be finite and not negative"):
            LocalChat(str(folder), temperature=temperature)
        with pytest.raises(ConfigError, match="temperature: .* must be finite and not negative"):
            EndpointChat(Endpoint("http://localhost/v1", "m"), temperature)

    def test_sampling_repeats_with_a_seed(self, folder):
        chat = LocalChat(str(folder), temperature=2.0, max_tokens=8)
        conversations = [[{"role": "user", "content": "the cat"}]] * 3
        assert chat(conversations, 1) == chat(conversations, 1) != chat(conversations, 2)

    def test_a_model_that_does_not_chat(self, folder, tmp_path):
        tokenizer = chat_tokenizer("chatml")
        tokenizer.chat_template = None
        tokenizer.save_pretrained(tmp_path)
        with pytest.raises(ConfigError, match="no chat template"):
            LocalChat(str(tmp_path))
