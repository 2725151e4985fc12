"""From the folder of a run to a player."""

import json
import shutil

import pytest
import torch

from qsft.data import Trajectory, Turn, write_trajectories
from qsft.errors import CheckpointError, ConfigError
from qsft.models import Extraction, load_causal_lm
from qsft.policies import load_policy
from qsft.training import RunSettings, train
from tests.models import tiny

STAGE = {"max_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True, "logging_steps": 1, "save_strategy": "no"}
HISTORIES = [Trajectory([Turn("user", text)]) for text in ("a b\n", "c\n", "d e f\n")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    write_trajectories(folder / "data.jsonl", tiny.trajectories(12, seed=5))
    model = {"model_type": "gpt2", **tiny.SIZES["gpt2"]}
    for method in ("qsft", "sft"):
        stages = {"behaviour": STAGE, "likelihood": STAGE if method == "qsft" else {}}
        plan = RunSettings(method, folder / "data.jsonl", model, **stages)
        train(plan, folder / method, tokenizer=tiny.tokenizer(), quiet=True)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished / "qsft", tmp_path / "run")


def test_q_sft(finished):
    policy = load_policy(finished / "qsft")
    assert policy.name == "qsft"
    assert policy.temperature == 0.0
    assert policy.max_new_tokens == 4  # three letters and the end of the turn, as in the data
    assert policy.model.behaviour is None
    assert policy.model.config.dummy_token_id == 0
    replies = load_policy(finished / "qsft", temperature=0.0).act(HISTORIES)
    assert all(reply.endswith("\n") for reply in replies)
    value = load_policy(finished / "qsft", extraction=Extraction("value"), temperature=0.0)
    assert value.model.behaviour is not None
    assert value.q_values(HISTORIES[0])
    assert load_policy(finished / "qsft", with_behaviour=True).q_values(HISTORIES[0])


def test_the_seed_of_sampling(finished):
    games = [
        [load_policy(finished / "qsft", temperature=1.0, seed=seed).act(HISTORIES) for _ in range(2)] for seed in (1, 2)
    ]
    assert games[0][0] == games[0][1] != games[1][0]


@pytest.mark.parametrize("method", ["qsft", "ilql"])
def test_half_precision(method, finished, tmp_path):
    run = finished / "qsft"
    if method == "ilql":
        plan = RunSettings(
            method, finished / "data.jsonl", {"model_type": "gpt2", **tiny.SIZES["gpt2"]}, behaviour=STAGE, critic=STAGE
        )
        run = train(plan, tmp_path / "run", tokenizer=tiny.tokenizer(), quiet=True)
    policy = load_policy(run, dtype="bfloat16", with_behaviour=method == "qsft") if method == "qsft" else None
    policy = policy or load_policy(run, dtype="bfloat16")
    assert {p.dtype for p in policy.model.parameters()} == {torch.bfloat16}
    assert len(policy.act(HISTORIES)) == 3 and policy.q_values(HISTORIES[0])


def test_a_served_likelihood_model_plays_the_policy(finished, tmp_path):
    """Whatever sampling the first model's own settings asked for: they are not the policy's."""
    model = tiny.make("gpt2", seed=3)
    model.generation_config.update(repetition_penalty=5.0, no_repeat_ngram_size=1)
    model.save_pretrained(tmp_path / "base")
    plan = RunSettings("qsft", finished / "data.jsonl", str(tmp_path / "base"), behaviour=STAGE, likelihood=STAGE)
    run = train(plan, tmp_path / "run", tokenizer=tiny.tokenizer(), quiet=True)
    policy = load_policy(run)
    alone = load_causal_lm(run / "likelihood")
    assert alone.generation_config.eos_token_id == policy.tokenizer.end_of_turn_ids
    for history in HISTORIES:
        prompt = torch.tensor([policy.tokenizer.prompt(history)])
        said = alone.generate(prompt, max_new_tokens=policy.max_new_tokens, do_sample=False)[0, prompt.shape[1] :]
        assert policy.tokenizer.action_text(said.tolist()) == policy.act([history])[0]


def test_texts_of_another_environment_are_told_once(finished, caplog):
    policy = load_policy(finished / "sft")
    with caplog.at_level("WARNING", logger="qsft"):
        for text in ("a b\n", "Ä b\n", "Ö b\n"):
            policy.act([Trajectory([Turn("user", text)])])
    told = [record.getMessage() for record in caplog.records if record.name == "qsft"]
    assert len(told) == 1 and "are unknown to its tokenizer" in told[0]


def test_what_values_cannot_be_asked_with(finished):
    policy = load_policy(finished / "qsft", with_behaviour=True)
    assert policy.state_values([]) == []
    for action in (
        lambda: policy.q_values(HISTORIES[0], support=2.0),
        lambda: policy.state_values(HISTORIES, backup_beta=0.0),
        lambda: policy.state_values(HISTORIES, support=0.0),
    ):
        with pytest.raises(ConfigError, match="support|backup_beta"):
            action()


def test_another_decoding_has_the_same_seed(finished):
    policy = load_policy(finished / "sft", temperature=1.0, seed=5)
    other = policy.with_decoding(Extraction(), 1.0)
    assert policy.act(HISTORIES * 5) == other.act(HISTORIES * 5)


def test_sft(finished):
    policy = load_policy(finished / "sft", temperature=0.0)
    assert policy.name == "sft"
    assert type(policy.model.likelihood) is type(load_causal_lm(finished / "sft"))
    with pytest.raises(ConfigError, match="a run of sft has no Q-values"):
        load_policy(finished / "sft", extraction=Extraction("value"))


@pytest.mark.parametrize("method", ["qsft", "sft"])
def test_a_history_longer_than_the_model_loses_its_oldest_exchanges(method, finished):
    """Learnt positions end somewhere; an episode may go on for longer than any of the data."""
    policy = load_policy(finished / method)
    lived = [Turn("user", "a b\n"), Turn("assistant", "c d e\n", 0.0)] * 15
    asked = Turn("user", "d e f\n")
    (reply,) = policy.act([Trajectory([*lived, asked])])
    kept = policy.tokenizer.prompt(Trajectory([*lived, asked]), policy.max_new_tokens)
    assert len(kept) == 1 + 7 * 7 + 4 <= 64 - policy.max_new_tokens  # bos, the last seven exchanges, what was asked
    assert reply == policy.act([Trajectory([*lived[-14:], asked])])[0]


def test_sft_needs_no_dummy_token(finished, tmp_path):
    """As with GPT-2, whose only special token ends texts, and which has no unused row."""
    run = shutil.copytree(finished / "sft", tmp_path / "run")
    tokenizer = tiny.tokenizer()
    for name in ("pad_token", "unk_token", "bos_token"):
        setattr(tokenizer, name, tokenizer.eos_token)
    tokenizer.save_pretrained(run)
    policy = load_policy(run, temperature=0.0)
    assert policy.model.config.dummy_token_id is None
    assert policy.act(HISTORIES)[0].endswith("\n")


class TestErrors:
    def refused(self, match, *arguments, **keywords):
        with pytest.raises(CheckpointError, match=match) as raised:
            load_policy(*arguments, **keywords)
        assert "\n" not in str(raised.value)

    def test_no_run(self, tmp_path):
        self.refused("no run.json; give the folder of a run", tmp_path)
        self.refused("no run.json", tmp_path / "nowhere")

    @pytest.mark.parametrize("content", ["{", "[1]", "3", "{}", '{"finished": true, "settings": {}}'])
    def test_a_broken_record(self, content, run):
        (run / "run.json").write_text(content)
        self.refused("run.json: (cannot be read|is not the record of a run)", run)

    def test_unfinished(self, run):
        record = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**record, "finished": False}))
        self.refused("unfinished; continue it with `qsft train ... --resume`", run)

    @pytest.mark.parametrize("part", ["likelihood", "behaviour"])
    def test_a_model_is_missing(self, part, run):
        shutil.rmtree(run / part)
        self.refused(f"{part}: the folder is missing", run, with_behaviour=True)

    def test_no_tokenizer(self, run):
        for path in run.glob("tokenizer*"):
            path.unlink()
        self.refused("no tokenizer can be loaded", run)

    def test_weights_of_another_architecture(self, run):
        shutil.rmtree(run / "likelihood")
        tiny.make("llama").save_pretrained(run / "likelihood")
        config = json.loads((run / "likelihood" / "config.json").read_text())
        (run / "likelihood" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
        self.refused("do not fit the architecture", run)

    def test_a_layer_less_than_there_is(self, run):
        """Without a word it would play as another model."""
        shutil.rmtree(run / "likelihood")
        tiny.make("llama").save_pretrained(run / "likelihood")
        config = json.loads((run / "likelihood" / "config.json").read_text())
        assert config["num_hidden_layers"] == 2
        (run / "likelihood" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
        self.refused(r"likelihood: \d+ weights do not fit the architecture in config.json", run)

    def test_sizes_that_are_none(self, run):
        config = json.loads((run / "likelihood" / "config.json").read_text())
        (run / "likelihood" / "config.json").write_text(json.dumps({**config, "hidden_size": "two"}))
        self.refused("likelihood: cannot be loaded", run)

    def test_models_of_different_vocabularies(self, run):
        shutil.rmtree(run / "behaviour")
        tiny.make("gpt2", vocab_size=20).save_pretrained(run / "behaviour")
        self.refused("13 output tokens and the behaviour model 20", run, with_behaviour=True)

    def test_damaged_weights(self, run):
        (run / "likelihood" / "model.safetensors").write_bytes(b"\0" * 40)
        self.refused("cannot be loaded", run)
