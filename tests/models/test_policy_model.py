"""The composite model generates what its definition says, in every decoding mode, and survives the disk."""

import copy
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

from qsft.errors import CheckpointError, ConfigError
from qsft.models import Extraction, QSFTPolicyModel, load_causal_lm
from tests.models import naive, tiny
from tests.models.test_extraction import EXTRACTIONS

DUMMY, EOS, PAD = 0, 3, 0
KINDS = ["gpt2", "llama", "qwen3"]
PROMPTS = [[1, 4, 5, 6, 7, 3], [1, 8, 9], [1, 10, 4, 4], [1, 12, 5, 7, 6, 9, 4, 3]]
COUNT = 6


@pytest.fixture(scope="module", params=KINDS)
def models(request):
    return tiny.make(request.param, seed=1), tiny.make(request.param, seed=2)


def left_padded(prompts):
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def generate(policy, prompts, **settings):
    inputs = left_padded(prompts)
    settings = {"do_sample": False, "eos_token_id": EOS, "pad_token_id": PAD, "max_new_tokens": COUNT, **settings}
    with torch.no_grad():
        return policy.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :].tolist()


def definition(models, extraction):
    behaviour = models[1] if extraction.needs_behaviour else None
    return lambda ids: naive.log_policy(models[0], behaviour, ids, extraction, DUMMY)


def compose(models, extraction):
    return QSFTPolicyModel.combine(*models, dummy_token_id=DUMMY, extraction=extraction)


@pytest.mark.parametrize("extraction", EXTRACTIONS, ids=str)
class TestGenerate:
    def test_greedy(self, models, extraction):
        expected = naive.greedy(definition(models, extraction), PROMPTS, COUNT, EOS, PAD)
        policy = compose(models, extraction)
        assert generate(policy, PROMPTS) == [row[: len(generate(policy, PROMPTS)[0])] for row in expected]
        for prompt, row in zip(PROMPTS, expected, strict=True):
            alone = generate(policy, [prompt])[0]
            assert alone == row[: len(alone)]
            assert alone == generate(policy, [prompt], use_cache=False)[0]

    def test_sampling(self, models, extraction):
        expected = naive.sampled(definition(models, extraction), PROMPTS, COUNT, EOS, PAD, 1.3, seed=5)
        torch.manual_seed(5)
        found = generate(compose(models, extraction), PROMPTS, do_sample=True, temperature=1.3, top_k=0, top_p=1.0)
        assert found == expected

    def test_beams(self, models, extraction):
        """Few beams against a naive search, and as many as make the search exhaustive."""
        policy, step = compose(models, extraction), definition(models, extraction)
        prompts = PROMPTS[1:3]
        for width, count in ((3, 4), (13, 2)):
            found = generate(policy, prompts, num_beams=width, max_new_tokens=count, eos_token_id=None)
            assert found == [naive.beams(step, prompt, count, width) for prompt in prompts]

    def test_logits_of_a_right_padded_batch(self, models, extraction):
        policy, step = compose(models, extraction), definition(models, extraction)
        width = max(map(len, PROMPTS))
        ids = torch.tensor([prompt + [PAD] * (width - len(prompt)) for prompt in PROMPTS])
        mask = torch.tensor([[1] * len(prompt) + [0] * (width - len(prompt)) for prompt in PROMPTS])
        with torch.no_grad():
            logits = policy(input_ids=ids, attention_mask=mask).logits
        for row, prompt in zip(logits, PROMPTS, strict=True):
            found = torch.log_softmax(row[len(prompt) - 1].double(), dim=0)
            torch.testing.assert_close(found, step(prompt), rtol=1e-4, atol=1e-4)


def test_the_cache_is_used(models):
    """With a cache each step runs both models on one new token."""
    policy = compose(models, Extraction("value"))
    lengths = []
    hooks = [
        model.register_forward_pre_hook(
            lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
        )
        for model in models
    ]
    generate(policy, PROMPTS[:1], eos_token_id=None)
    for hook in hooks:
        hook.remove()
    assert lengths == [len(PROMPTS[0])] * 2 + [1] * 2 * (COUNT - 1)


def test_the_dummy_token_is_never_drawn(models):
    with torch.no_grad():
        for extraction in EXTRACTIONS:
            logits = compose(models, extraction)(input_ids=torch.tensor(PROMPTS[:1])).logits
            assert torch.isneginf(logits[..., DUMMY]).all()
            assert torch.isfinite(logits[..., 1:].amax(dim=-1)).all()


def test_product_runs_the_likelihood_model_alone(models, monkeypatch):
    policy = compose(models, Extraction("product"))
    monkeypatch.setattr(policy.behaviour, "forward", lambda *a, **k: pytest.fail("the behaviour model ran"))
    generate(policy, PROMPTS)
    generate(policy, PROMPTS[:1], num_beams=2)


def test_extraction_can_be_changed_and_is_checked(models):
    policy = compose(models, Extraction("product"))
    product = generate(policy, PROMPTS)
    policy.extraction = Extraction("value", beta=30.0, eta=0.0)
    assert generate(policy, PROMPTS) != product
    assert policy.config.extraction["kind"] == "value"
    alone = QSFTPolicyModel.combine(models[0], None, dummy_token_id=DUMMY)
    with pytest.raises(ConfigError, match="with_behaviour=True"):
        alone.extraction = Extraction("value")


def test_what_is_read_off_both_models(models):
    """Also of a left-padded batch, where positions count from the first real token."""
    extraction = Extraction("value", beta=8.0, support=0.2)
    policy = compose(models, extraction)
    padded = left_padded(PROMPTS)
    ratios, prior, logits = whole = policy.read(**padded)
    for all_places, last in zip(whole, policy.read(**padded, logits_to_keep=1), strict=True):
        torch.testing.assert_close(last, all_places[:, -1:])
    for i, prompt in enumerate(PROMPTS):
        p, pi = (torch.tensor(naive._probabilities(model, prompt)) for model in models)
        torch.testing.assert_close(ratios[i, -1], p / pi, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(prior[i, -1].exp(), pi, rtol=1e-3, atol=1e-5)
        expected = naive.log_policy(*models, prompt, extraction, DUMMY).exp().float()
        torch.testing.assert_close(logits[i, -1].softmax(-1), expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(ConfigError, match="with_behaviour=True"):
        QSFTPolicyModel.combine(models[0], None, dummy_token_id=DUMMY).read(padded["input_ids"])


def test_it_ends_where_the_likelihood_model_does(models):
    """A checkpoint's own generation says where turns end; its config may name another token, as base models' do."""
    likelihood = copy.deepcopy(models[0])
    likelihood.generation_config = GenerationConfig(pad_token_id=PAD)
    prompt = torch.tensor(PROMPTS[:1])
    first = QSFTPolicyModel.combine(likelihood, None, dummy_token_id=DUMMY).generate(prompt, max_new_tokens=COUNT)
    assert first.shape[1] == prompt.shape[1] + COUNT
    end = int(first[0, prompt.shape[1]])
    likelihood.generation_config = GenerationConfig(eos_token_id=[9, end], pad_token_id=PAD, do_sample=True)
    policy = QSFTPolicyModel.combine(likelihood, None, dummy_token_id=DUMMY)
    assert policy.generate(prompt, max_new_tokens=COUNT)[0, prompt.shape[1] :].tolist() == [end]
    assert not policy.generation_config.do_sample, "how it samples is the policy's own"


class TestDisk:
    @pytest.fixture
    def saved(self, models, tmp_path):
        policy = QSFTPolicyModel.combine(
            *models,
            dummy_token_id=DUMMY,
            extraction=Extraction("value", 9.0, 2.0, 0.1),
            return_range=(-6.0, -1.0),
            weight_temperature=0.3,
        )
        policy.save_pretrained(tmp_path / "p")
        return policy, tmp_path / "p"

    def test_round_trip(self, saved):
        policy, folder = saved
        for loaded in (QSFTPolicyModel.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)):
            assert isinstance(loaded, QSFTPolicyModel)
            assert loaded.extraction == policy.extraction
            assert loaded.config.return_range == (-6.0, -1.0)
            assert loaded.config.weight_temperature == 0.3
            assert loaded.config.dummy_token_id == DUMMY
            assert not loaded.training
            expected = policy.state_dict()
            assert {name: torch.equal(p, expected[name]) for name, p in loaded.state_dict().items()} == dict.fromkeys(
                expected, True
            )
            assert generate(loaded, PROMPTS) == generate(policy, PROMPTS)

    def test_product_does_not_even_need_the_folder_of_the_behaviour_model(self, saved):
        policy, folder = saved
        shutil.rmtree(folder / "behaviour")
        loaded = QSFTPolicyModel.from_pretrained(folder, extraction=Extraction("product"))
        assert loaded.behaviour is None
        policy.extraction = Extraction("product")
        assert generate(loaded, PROMPTS) == generate(policy, PROMPTS)

    def test_product_does_not_load_the_behaviour_model(self, saved):
        _, folder = saved
        assert QSFTPolicyModel.from_pretrained(folder, extraction=Extraction("product")).behaviour is None
        with_it = QSFTPolicyModel.from_pretrained(folder, extraction=Extraction("product"), with_behaviour=True)
        assert with_it.behaviour is not None

    def test_the_likelihood_model_is_an_ordinary_checkpoint(self, saved, models):
        _, folder = saved
        plain = AutoModelForCausalLM.from_pretrained(folder / "likelihood")
        assert type(plain) is type(models[0])
        ids = torch.tensor(PROMPTS[:1])
        torch.testing.assert_close(plain(ids).logits, models[0](ids).logits)


class TestErrors:
    @pytest.fixture(scope="class")
    def whole(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("whole")
        models = tiny.make("llama", seed=1), tiny.make("llama", seed=2)
        QSFTPolicyModel.combine(*models, dummy_token_id=0, extraction=Extraction("value")).save_pretrained(folder)
        return folder

    @pytest.fixture
    def folder(self, whole, tmp_path):
        return shutil.copytree(whole, tmp_path / "policy")

    def refused(self, folder, match, load=QSFTPolicyModel.from_pretrained):
        with pytest.raises(CheckpointError, match=match) as raised:
            load(folder)
        assert "\n" not in str(raised.value)
        assert str(folder) in str(raised.value)

    def test_no_folder(self, tmp_path):
        self.refused(tmp_path / "nowhere", "no config.json")

    def test_another_model(self, whole):
        self.refused(whole / "likelihood", "'llama' model, not a Q-SFT policy")

    def test_config_is_not_json(self, folder):
        (folder / "config.json").write_text("{")
        self.refused(folder, "config.json")

    def test_config_of_another_version(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["extraction"]["gamma"] = 3
        (folder / "config.json").write_text(json.dumps(config))
        self.refused(folder, "extraction")

    @pytest.mark.parametrize("part", ["likelihood", "behaviour"])
    def test_a_part_is_missing(self, folder, part, monkeypatch):
        """A name such as run/behaviour must not be taken for a model on the hub."""
        monkeypatch.chdir(folder.parent)
        shutil.rmtree(folder / part)
        self.refused(folder, f"{part}.*missing")
        with pytest.raises(CheckpointError, match="missing"):
            QSFTPolicyModel.from_pretrained("policy")

    @pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\0" * 64, lambda data: b""])
    def test_damaged_weights(self, folder, damage):
        file = folder / "likelihood" / "model.safetensors"
        file.write_bytes(damage(file.read_bytes()))
        self.refused(folder, "cannot be loaded")

    def test_weights_are_missing(self, folder):
        (folder / "behaviour" / "model.safetensors").unlink()
        self.refused(folder, "cannot be loaded")

    @pytest.mark.parametrize("load", [QSFTPolicyModel.from_pretrained, lambda f: load_causal_lm(f / "likelihood")])
    def test_weights_of_another_architecture(self, folder, load):
        path = folder / "likelihood" / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "num_hidden_layers": 3, "layer_types": None}))
        self.refused(folder, "do not fit", load)

    def test_weights_of_another_size(self, folder):
        path = folder / "likelihood" / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "intermediate_size": 20}))
        self.refused(folder, "cannot be loaded|do not fit")

    def test_one_tensor_is_missing(self, folder):
        file = folder / "likelihood" / "model.safetensors"
        tensors = load_file(file)
        tensors.pop("model.norm.weight")
        save_file(tensors, file, metadata={"format": "pt"})
        self.refused(folder, "do not fit.*model.norm.weight")

    def test_vocabularies_that_differ(self, folder):
        shutil.rmtree(folder / "behaviour")
        tiny.make("llama", vocab_size=17).save_pretrained(folder / "behaviour")
        with pytest.raises(CheckpointError, match="13 output tokens and the behaviour model 17"):
            QSFTPolicyModel.from_pretrained(folder)
        with pytest.raises(CheckpointError, match="13 output tokens"):
            QSFTPolicyModel.combine(tiny.make("gpt2"), tiny.make("gpt2", vocab_size=17), dummy_token_id=0)

    def test_a_cache_of_another_extraction(self):
        models = tiny.make("llama", seed=1), tiny.make("llama", seed=2)
        policy = QSFTPolicyModel.combine(*models, dummy_token_id=0)
        ids = torch.tensor(PROMPTS[:1])
        cache = policy(input_ids=ids, use_cache=True).cache
        policy.extraction = Extraction("value")
        with pytest.raises(ConfigError, match="start generation again"):
            policy(input_ids=ids, cache=cache)
