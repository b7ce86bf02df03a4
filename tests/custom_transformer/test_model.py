import json

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.custom_transformer import AutogradTransformer
from n3r.custom_transformer.model import (
    CustomTransformer,
    CustomTransformerConfig,
    CustomTransformerWrapper,
    check_gradients,
)
from n3r.custom_transformer.optimizers import OPTIMIZERS

SMALL = {"vocab_size": 17, "max_seq_len": 10, "n_blocks": 2, "n_heads": 2, "d_model": 8, "d_ffn": 12}
CONFIG = CustomTransformerConfig(**SMALL)


def some_ids(n_rows: int = 3, n_tokens: int = 10, vocab_size: int = 17, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab_size, (n_rows, n_tokens), generator=torch.Generator().manual_seed(seed))


@given(
    n_blocks=st.integers(1, 3),
    n_heads=st.sampled_from([1, 2, 4]),
    d_ffn=st.integers(1, 9),
    shape=st.tuples(st.integers(1, 3), st.integers(2, 10)),
    seed=st.integers(0, 99),
)
def test_the_whole_is_the_same_model_in_modules_values_loss_and_gradients(
    n_blocks, n_heads, d_ffn, shape, seed
):
    sizes = {**SMALL, "n_blocks": n_blocks, "n_heads": n_heads, "d_ffn": d_ffn}
    config = CustomTransformerConfig(**sizes, dtype="float64", optimizer="sgd")
    wrapper = CustomTransformerWrapper(config, seed)
    modules = AutogradTransformer(config).double().copy_from(wrapper.model.parameters)
    ids = some_ids(*shape, seed=seed)
    logits = modules(ids)
    found = wrapper.forward(ids, ids)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert float((found["logits"] - logits.detach()).abs().max()) < 1e-8
    assert float(found["loss"]) == pytest.approx(loss.item(), abs=1e-8)
    loss.backward()
    torch.optim.SGD(modules.parameters(), lr=0.5).step()  # so that parameters show the gradients
    wrapper.train_step(ids, ids, 0.5)
    moved = AutogradTransformer(config).double().copy_from(wrapper.model.parameters).state_dict()
    differences = [(moved[name] - p).abs().max() for name, p in modules.state_dict().items()]
    assert float(max(differences)) < 1e-8


def test_every_parameter_agrees_with_autograd_and_with_finite_differences():
    labels = some_ids()
    labels[0, 4:] = -100
    table = check_gradients(CONFIG, some_ids(), labels)
    assert table["parameter"].to_list() == list(CustomTransformer(CONFIG).parameters)
    assert table["autograd"].max() < 1e-8
    assert table["finite difference"].max() < 1e-6
    assert table["norm"].min() > 1e-4  # nothing agrees because it is zero


def test_a_wrong_derivative_is_seen(monkeypatch):
    from n3r.custom_transformer.layers import LayerNorm

    right = LayerNorm.backward

    def without_the_variance(self, d_y, cache):
        n, r = cache
        d_n = d_y * self.gain
        return r * (d_n - d_n.mean(-1, keepdim=True)), right(self, d_y, cache)[1]

    monkeypatch.setattr(LayerNorm, "backward", without_the_variance)
    assert check_gradients(CONFIG, some_ids(), some_ids())["autograd"].max() > 1e-4


@pytest.mark.parametrize(("name", "theirs"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_updates_are_those_of_torchs_optimisers(name, theirs):
    generator = torch.Generator().manual_seed(1)
    ours = {"w": torch.randn(4, 3, generator=generator)}
    leaf = ours["w"].clone().requires_grad_()
    optimizer, reference = OPTIMIZERS[name](ours), theirs([leaf], lr=0.05)
    for _ in range(6):
        leaf.grad = torch.randn(4, 3, generator=generator)
        optimizer.step({"w": leaf.grad.clone()}, 0.05)
        reference.step()
    assert torch.allclose(ours["w"], leaf.detach(), atol=1e-6)


@given(place=st.integers(1, 9), seed=st.integers(0, 99))
def test_what_comes_later_changes_nothing_before(place, seed):
    model = CustomTransformer(CONFIG, seed)
    ids, other = some_ids(seed=seed), some_ids(seed=seed)
    other[:, place:] = some_ids(seed=seed + 1)[:, place:]
    one, two = model.forward(ids), model.forward(other)
    assert float((one - two)[:, :place].abs().max()) < 1e-6
    assert torch.equal(ids[:, :place], other[:, :place])


def test_a_row_depends_neither_on_its_batch_mates_nor_on_padding():
    wrapper = CustomTransformerWrapper(CONFIG)
    ids = some_ids(4)
    alone = wrapper.token_losses(ids[1:2, :6], ids[1:2, :6])
    padded = ids.clone()
    padded[:, 6:] = 0
    labels = padded.clone()
    labels[:, 6:] = -100
    together = wrapper.token_losses(padded, labels)
    assert torch.allclose(together[1, :6], alone[0], atol=1e-6)
    assert not together[:, 6:].any()


@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 3e-3), ("sgd", 0.3)])
def test_fifty_steps_on_one_batch_bring_the_loss_below_half(optimizer, rate):
    wrapper = CustomTransformerWrapper(CustomTransformerConfig(optimizer=optimizer))
    batch = some_ids(8, 32, 128)
    losses = [wrapper.train_step(batch, batch, rate)["loss"] for _ in range(50)]
    assert losses[-1] < losses[0] / 2
    assert float(wrapper.forward(batch, batch)["loss"]) < losses[0] / 2


def test_bfloat16_with_a_large_vocabulary_stays_finite_and_learns():
    sizes = {"vocab_size": 50_257, "max_seq_len": 32, "n_blocks": 2, "d_model": 32, "d_ffn": 32}
    low, high = (
        CustomTransformerWrapper(CustomTransformerConfig(**sizes, dtype=dtype))
        for dtype in ("bfloat16", "float32")
    )
    ids = some_ids(4, 32, 50_257)
    losses = [[wrapper.train_step(ids, ids, 1e-3)["loss"] for _ in range(4)] for wrapper in (low, high)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert losses[0][-1] < losses[0][0]
    out = low.forward(ids, ids)
    assert out["logits"].dtype == torch.bfloat16
    tensors = [*low.model.parameters.values(), *low.model.optimizer.state.values(), *out.values()]
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


def test_huge_logits_give_finite_losses():
    wrapper = CustomTransformerWrapper(CONFIG)
    wrapper.model.head.weight.mul_(1e6)
    assert torch.isfinite(wrapper.forward(some_ids(), some_ids())["loss"])
    wrapper.train_step(some_ids(), some_ids(), 1e-3)
    assert all(torch.isfinite(p).all() for p in wrapper.model.parameters.values())


def test_small_updates_of_bfloat16_parameters_add_up():
    parameters = {"w": torch.ones(3, dtype=torch.bfloat16)}
    optimizer = OPTIMIZERS["sgd"](parameters)
    for _ in range(100):
        optimizer.step({"w": torch.ones(3, dtype=torch.bfloat16)}, 1e-3)  # 1 - 0.001 is 1 in bfloat16
    assert parameters["w"].tolist() == pytest.approx([0.9] * 3, abs=0.004)


def test_no_tensor_is_watched_by_autograd_and_none_is_kept_without_a_backward_pass():
    wrapper = CustomTransformerWrapper(CONFIG)
    wrapper.train_step(some_ids(), some_ids(), 1e-3)
    logits = wrapper.forward(some_ids())["logits"]
    assert logits.grad_fn is None and not logits.requires_grad
    assert not any(p.requires_grad for p in wrapper.model.parameters.values())
    assert wrapper.model.caches == []


def test_generation_is_the_same_with_the_same_seed_and_greedy_at_temperature_0():
    wrapper = CustomTransformerWrapper(CONFIG)
    prompt = some_ids(3, 4)
    draws = [wrapper.generate(prompt, 10, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert draws[0].shape == (3, 10) and torch.equal(draws[0][:, :4], prompt)
    greedy = [wrapper.generate(prompt, 10, temperature=0) for _ in range(2)]
    assert torch.equal(*greedy)
    assert torch.equal(greedy[0], wrapper.generate(prompt, 10, top_k=1))
    assert torch.equal(greedy[0], wrapper.generate(prompt, 10, temperature=1e-6, seed=1))
    for place in range(4, 10):
        likeliest = wrapper.forward(greedy[0][:, :place])["logits"][:, -1].argmax(-1)
        assert torch.equal(greedy[0][:, place], likeliest)


def test_top_k_draws_from_the_likeliest_only():
    wrapper = CustomTransformerWrapper(CONFIG)
    prompt = some_ids(1, 3).expand(500, -1)
    drawn = set(wrapper.generate(prompt, 4, top_k=3, seed=0)[:, -1].tolist())
    assert drawn == set(wrapper.forward(prompt[:1])["logits"][0, -1].topk(3).indices.tolist())


def test_a_row_that_has_ended_is_filled_and_generation_stops_when_all_have():
    wrapper = CustomTransformerWrapper(CONFIG)
    prompt = some_ids(40, 2)
    drawn = wrapper.generate(prompt, 10, eos_token_id=3, seed=0)
    assert 2 < drawn.shape[1] <= 10
    for row in drawn[:, 2:].tolist():
        if 3 in row:
            assert set(row[row.index(3) :]) == {3}
    wrapper.model.head.bias[3] = 100.0  # all end at once
    assert wrapper.generate(prompt, 10, eos_token_id=3).shape == (40, 3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_checkpoint_goes_on_in_a_fresh_process_as_if_nothing_had_happened(dtype, tmp_path, run_fresh):
    wrapper = CustomTransformerWrapper(CONFIG.model_copy(update={"dtype": dtype}))
    ids = some_ids()
    for _ in range(3):
        wrapper.train_step(ids, ids, 1e-2)
    wrapper.save_checkpoint(tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "config.json",
        "model.safetensors",
        "optimizer.safetensors",
    ]
    expected = [wrapper.train_step(ids, ids, 1e-2)["loss"] for _ in range(3)]
    code = (
        "import sys, torch; from n3r.custom_transformer.model import CustomTransformerWrapper as W; "
        "w = W.from_checkpoint(sys.argv[1]); ids = torch.tensor(eval(sys.argv[2])); "
        "print([w.train_step(ids, ids, 1e-2)['loss'] for _ in range(3)])"
    )
    assert json.loads(run_fresh(code, tmp_path / "a", ids.tolist())) == expected


def test_information_and_the_published_dimensions():
    config = CustomTransformerConfig()
    assert (config.vocab_size, config.max_seq_len, config.n_blocks) == (128, 128, 8)
    assert (config.n_heads, config.d_model, config.d_ffn) == (4, 128, 128)
    wrapper = CustomTransformerWrapper(CONFIG)
    info = wrapper.get_model_info()
    n = 17 * 8 + 10 * 8 + 2 * (4 * 8 + 8 * 24 + 24 + 8 * 8 + 8 + 8 * 12 + 12 + 12 * 8 + 8) + 16 + 8 * 17 + 17
    assert info["n_parameters"] == wrapper.count_parameters() == n
    assert sum(info["parameters_by_layer"].values()) == n
    assert info["bytes"] == 4 * n and info["vocab_size"] == 17 and info["n_steps"] == 0


WRONG = {
    "ids run from 1 to 17; the vocabulary has the ids 0 to 16": lambda w: w(torch.tensor([[1, 17]])),
    "ids run from -1 to 2": lambda w: w(torch.tensor([[-1, 2]])),
    "sequences of 11 tokens; max_seq_len is 10": lambda w: w(torch.zeros(1, 11, dtype=torch.int64)),
    r"ids must be integers \(B, T\)": lambda w: w(torch.zeros(3, dtype=torch.int64)),
    "at least 1, not float32": lambda w: w(torch.zeros(1, 3)),
    "B and T at least 1": lambda w: w(torch.zeros(1, 0, dtype=torch.int64)),
    r"labels must be integers of the ids' shape \(3, 10\), not int64 \(3, 9\)": lambda w: w.train_step(
        some_ids(), some_ids(3, 9), 1e-3
    ),
    r"not float32 \(3, 10\)": lambda w: w.train_step(some_ids(), some_ids().float(), 1e-3),
    "labels run from": lambda w: w.train_step(some_ids(), some_ids() + 17, 1e-3),
    "no label to predict": lambda w: w.train_step(some_ids(), torch.full((3, 10), -100), 1e-3),
    "labels run from -2 to -2": lambda w: w.train_step(some_ids(), torch.full((3, 10), -2), 1e-3),
    "max_length 11 .* max_seq_len is 10": lambda w: w.generate(some_ids(2, 4), 11),
    "it counts the prompt too": lambda w: w.generate(some_ids(2, 4), 4),
    "temperature -1.0": lambda w: w.generate(some_ids(2, 4), 8, temperature=-1.0),
    "temperature nan": lambda w: w.generate(some_ids(2, 4), 8, temperature=float("nan")),
    "top_k 0": lambda w: w.generate(some_ids(2, 4), 8, top_k=0),
    "call forward first": lambda w: w.model.backward(torch.zeros(3, 10, 17)),
    "call backward first": lambda w: w.model.update_parameters(0.1),
    "d_model 30 is not divisible by n_heads 4": lambda w: CustomTransformerConfig(d_model=30, n_heads=4),
    "d_modell": lambda w: CustomTransformerConfig(d_modell=3),
    "n_blocks": lambda w: CustomTransformerConfig(n_blocks=0),
    "dtype": lambda w: CustomTransformerConfig(dtype="float16"),
    "device 'cuda:99' cannot be used": lambda w: CustomTransformerWrapper(
        CONFIG.model_copy(update={"device": "cuda:99"})
    ),
    "device 'abacus' cannot be used": lambda w: CustomTransformerWrapper(
        CONFIG.model_copy(update={"device": "abacus"})
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_is_refused_and_changes_nothing(message):
    wrapper = CustomTransformerWrapper(CONFIG)
    before = {name: p.clone() for name, p in wrapper.model.parameters.items()}
    with pytest.raises(ValueError, match=message):
        WRONG[message](wrapper)
    assert all(torch.equal(p, before[name]) for name, p in wrapper.model.parameters.items())


def test_checkpoints_that_cannot_be_loaded(tmp_path):
    wrapper = CustomTransformerWrapper(CONFIG)
    with pytest.raises(FileNotFoundError, match=r"not a checkpoint, it has no config\.json"):
        wrapper.load_checkpoint(tmp_path)
    wrapper.save_checkpoint(tmp_path / "a")
    other = CustomTransformerWrapper(CONFIG.model_copy(update={"d_ffn": 13, "dtype": "float64"}))
    with pytest.raises(
        ValueError, match="of another config: d_ffn 12, here 13; dtype 'float32', here 'float64'"
    ):
        other.load_checkpoint(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "d_ffn": 13}))
    with pytest.raises(ValueError, match="does not hold the tensors that its config describes"):
        CustomTransformerWrapper.from_checkpoint(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(json.dumps({**config, "heads": 13}))
    with pytest.raises(ValueError, match="unknown key 'heads'"):
        CustomTransformerWrapper.from_checkpoint(tmp_path / "a")
    for damaged in ("[]", "{}", "{"):
        (tmp_path / "a" / "config.json").write_text(damaged)
        with pytest.raises(ValueError, match="config.json"):
            CustomTransformerWrapper.from_checkpoint(tmp_path / "a")
    wrapper.save_checkpoint(tmp_path / "a")
    model = tmp_path / "a" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-5])
    with pytest.raises(ValueError, match="model.safetensors cannot be read"):
        wrapper.load_checkpoint(tmp_path / "a")
    model.unlink()
    with pytest.raises(FileNotFoundError, match="no model.safetensors"):
        wrapper.load_checkpoint(tmp_path / "a")


def test_a_checkpoint_that_cannot_be_read_changes_nothing(tmp_path):
    wrapper = CustomTransformerWrapper(CONFIG)
    wrapper.train_step(some_ids(), some_ids(), 1e-2)
    wrapper.save_checkpoint(tmp_path / "a")
    (tmp_path / "a" / "optimizer.safetensors").unlink()
    fresh = CustomTransformerWrapper(CONFIG, seed=3)
    before = fresh.model.head.weight.clone()
    with pytest.raises(FileNotFoundError):
        fresh.load_checkpoint(tmp_path / "a")
    assert torch.equal(fresh.model.head.weight, before)


def test_a_config_is_asked_by_name_for_its_device_and_for_its_number_type():
    config = CustomTransformerConfig(dtype="bfloat16")
    assert (config.get_device(), config.get_dtype()) == (torch.device("cpu"), torch.bfloat16)
    assert (config.get("n_heads"), config.get("n_layers"), config.get("n_layers", 3)) == (4, None, 3)
