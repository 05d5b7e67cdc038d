"""Noise is plain data, drawn from the given generator or from each environment's stream."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict

import pytest
import torch

from mjlab_rec.utils.noise import (
    ConstantNoiseCfg,
    GaussianNoiseCfg,
    NoiseModel,
    NoiseModelCfg,
    NoiseModelWithAdditiveBias,
    NoiseModelWithAdditiveBiasCfg,
    UniformNoiseCfg,
)
from mjlab_rec.utils.random import RandomStreams

DATA = torch.arange(6000.0).view(2000, 3)


def gen(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bias_cfg(**kwargs) -> NoiseModelWithAdditiveBiasCfg:
    return NoiseModelWithAdditiveBiasCfg(
        noise_cfg=ConstantNoiseCfg(0.0),
        bias_noise_cfg=UniformNoiseCfg(-1.0, 1.0),
        **kwargs,
    )


def test_constant_noise_adds_scales_or_replaces():
    data = torch.tensor([[1.0, 2.0]])
    assert ConstantNoiseCfg(0.5).apply(data).tolist() == [[1.5, 2.5]]
    assert ConstantNoiseCfg(3.0, operation="scale").apply(data).tolist() == [[3.0, 6.0]]
    assert ConstantNoiseCfg(3.0, operation="abs").apply(data).tolist() == [[3.0, 3.0]]
    assert ConstantNoiseCfg((1.0, -1.0)).apply(data).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("n_min,n_max", [(-0.5, 2.0), ((-0.5, 0.0, 5.0), (2.0, 0.0, 6.0))])
def test_uniform_noise_stays_in_its_bounds(n_min, n_max):
    noise = UniformNoiseCfg(n_min, n_max, operation="abs").apply(DATA, gen())
    low, high = torch.tensor(n_min).expand(3), torch.tensor(n_max).expand(3)
    assert (noise >= low).all() and (noise <= high).all()
    torch.testing.assert_close(noise.mean(0), (low + high) / 2, atol=0.1, rtol=0)
    torch.testing.assert_close(noise.std(0), (high - low) / 12**0.5, atol=0.05, rtol=0)


@pytest.mark.parametrize("mean,std", [(1.0, 2.0), ((0.0, 1.0, -1.0), (0.5, 0.0, 2.0))])
def test_gaussian_noise_has_its_moments(mean, std):
    noise = GaussianNoiseCfg(mean, std, operation="abs").apply(DATA, gen())
    torch.testing.assert_close(noise.mean(0), torch.tensor(mean).expand(3), atol=0.15, rtol=0)
    torch.testing.assert_close(noise.std(0), torch.tensor(std).expand(3), atol=0.15, rtol=0)


@pytest.mark.parametrize("make", [UniformNoiseCfg, GaussianNoiseCfg])
@pytest.mark.parametrize("params", [(0.1, 0.5), ((0.1, 0.1, 0.1), (0.5, 0.5, 0.6))])
def test_draws_use_only_the_generator(make, params):
    cfg = make(*params)
    before = torch.get_rng_state()
    first = cfg.apply(DATA, gen(1))
    assert torch.equal(first, cfg.apply(DATA, gen(1)))
    assert not torch.equal(first, cfg.apply(DATA, gen(2)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(cfg.apply(DATA), first)


def test_operations_use_the_same_draws():
    noise = UniformNoiseCfg(0.5, 2.0, operation="abs").apply(DATA, gen())
    assert torch.equal(UniformNoiseCfg(0.5, 2.0).apply(DATA, gen()), DATA + noise)
    scaled = UniformNoiseCfg(0.5, 2.0, operation="scale").apply(DATA, gen())
    assert torch.equal(scaled, DATA * noise)


def test_draws_do_not_depend_on_the_memory_layout_of_the_data():
    transposed = DATA.t().contiguous().t()
    cfg = UniformNoiseCfg(-1.0, 1.0)
    assert torch.equal(cfg.apply(transposed, gen()), cfg.apply(DATA, gen()))


def test_the_input_is_not_changed():
    data = DATA.clone()
    for cfg in (ConstantNoiseCfg(1.0), UniformNoiseCfg(-1.0, 1.0), GaussianNoiseCfg(0.0, 1.0)):
        for operation in ("add", "scale", "abs"):
            cfg.operation = operation
            result = cfg.apply(data, gen())
            result.fill_(0.0)
    assert torch.equal(data, DATA)


def test_cfgs_are_plain_data_even_after_use():
    used, unused = UniformNoiseCfg((0.0, 1.0, 2.0), 3.0), UniformNoiseCfg((0.0, 1.0, 2.0), 3.0)
    used.apply(DATA, gen())
    assert used == unused == deepcopy(used)
    assert asdict(used) == {"operation": "add", "n_min": (0.0, 1.0, 2.0), "n_max": 3.0}


def test_a_changed_cfg_takes_effect_at_once():
    cfg = ConstantNoiseCfg((1.0, 2.0, 3.0), operation="abs")
    cfg.apply(DATA)
    cfg.bias = (4.0, 5.0, 6.0)
    assert cfg.apply(DATA)[0].tolist() == [4.0, 5.0, 6.0]


def test_bad_noise_is_explained():
    with pytest.raises(ValueError, match="Unknown noise operation 'ad'.*Did you mean 'add'"):
        ConstantNoiseCfg(operation="ad")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"n_min \(1.0\) must be less than n_max \(1.0\)"):
        UniformNoiseCfg(1.0, 1.0)
    with pytest.raises(ValueError, match="n_min .* must be less"):
        UniformNoiseCfg((0.0, 2.0), 1.0)
    with pytest.raises(ValueError, match=r"std \(0.0\) must be positive"):
        GaussianNoiseCfg(0.0, 0.0)
    with pytest.raises(ValueError, match="std .* must be positive"):
        GaussianNoiseCfg(0.0, (1.0, -1.0))
    with pytest.raises(ValueError, match="2 values per observation.* has 3 elements"):
        ConstantNoiseCfg((1.0, 2.0)).apply(DATA)
    with pytest.raises(ValueError, match="needs a bias_noise_cfg"):
        NoiseModelWithAdditiveBiasCfg(noise_cfg=ConstantNoiseCfg(1.0))
    with pytest.raises(ValueError, match="needs a noise_cfg"):
        NoiseModel(NoiseModelCfg(noise_cfg=None), 2, "cpu")  # type: ignore[arg-type]


def test_cfgs_name_their_model():
    class Mine(NoiseModel):
        pass

    class MineCfg(NoiseModelCfg, class_type=Mine):
        pass

    class SameCfg(MineCfg):
        pass

    assert NoiseModelCfg.class_type is NoiseModel
    assert NoiseModelWithAdditiveBiasCfg.class_type is NoiseModelWithAdditiveBias
    assert MineCfg.class_type is Mine and SameCfg.class_type is Mine


def test_the_plain_model_is_its_noise():
    cfg = UniformNoiseCfg(-1.0, 1.0)
    model = NoiseModel(NoiseModelCfg(noise_cfg=cfg), len(DATA), "cpu")
    model.reset()
    assert torch.equal(model(DATA, gen()), cfg.apply(DATA, gen()))


def test_the_bias_stays_for_the_episode_and_is_new_in_the_next():
    rng = RandomStreams(4, "cpu", seed=0)
    model = NoiseModelWithAdditiveBias(bias_cfg(), 4, "cpu")
    data = torch.zeros(4, 3)
    model.reset(None, rng)
    first = model(data)
    assert first.unique().numel() == 12 and first.abs().max() <= 1.0
    assert torch.equal(model(data), first)
    for _ in range(50):
        rng.begin_episode(torch.tensor([1, 3]))
        model.reset(torch.tensor([1, 3]), rng)
        later = model(data)
        assert torch.equal(later[[0, 2]], first[[0, 2]])
        assert not (later[[1, 3]] == first[[1, 3]]).any()
        # A bias added to the last one would wander off.
        assert later.abs().max() <= 1.0


def test_the_bias_of_an_environment_comes_from_its_own_stream():
    data = torch.zeros(4, 3)
    results = []
    for together in (True, False):
        rng = RandomStreams(4, "cpu", seed=0)
        model = NoiseModelWithAdditiveBias(bias_cfg(), 4, "cpu")
        model.reset(torch.arange(4), rng)
        model(data)
        rng.begin_episode(torch.tensor([0, 2]))
        if together:
            model.reset(torch.tensor([0, 2]), rng)
        else:
            model.reset(torch.tensor([2]), rng)
            model(data)
            model.reset(torch.tensor([0]), rng)
        results.append(model(data))
    assert torch.equal(*results)


def test_the_first_episode_draws_as_any_other_does():
    cfg = bias_cfg()
    cfg.noise_cfg = UniformNoiseCfg(-1.0, 1.0)
    rng = RandomStreams(4, "cpu", seed=0)
    model = NoiseModelWithAdditiveBias(cfg, 4, "cpu")
    results = []
    for _ in range(2):
        rng.seed(5)
        model.reset(torch.arange(4), rng)
        rng.uniform(0.0, 1.0, (4, 1))
        results.append(model(torch.zeros(4, 3), gen()))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "ids", [torch.tensor([1, 2]), torch.tensor([False, True, True, False]), slice(1, 3)]
)
def test_rows_to_reset_come_in_any_form(ids):
    rng = RandomStreams(4, "cpu", seed=0)
    model = NoiseModelWithAdditiveBias(bias_cfg(), 4, "cpu")
    before = model(torch.zeros(4, 2))
    model.reset(ids, rng)
    if isinstance(ids, torch.Tensor):
        ids.zero_()
    changed = model(torch.zeros(4, 2)) != before
    assert changed.all(1).tolist() == [False, True, True, False]
    assert changed.any(1).tolist() == [False, True, True, False]


def test_one_bias_for_all_components():
    model = NoiseModelWithAdditiveBias(bias_cfg(sample_bias_per_component=False), 4, "cpu")
    biased = model(torch.zeros(4, 3), gen())
    assert (biased == biased[:, :1]).all()
    assert biased[:, 0].unique().numel() == 4


@pytest.mark.parametrize("shape,unique", [((4,), 4), ((4, 3), 12), ((4, 5, 3), 12)])
def test_the_bias_fits_data_of_any_rank(shape, unique):
    model = NoiseModelWithAdditiveBias(bias_cfg(), 4, "cpu")
    biased = model(torch.zeros(shape))
    assert biased.shape == shape
    assert biased.unique().numel() == unique


@pytest.mark.cuda
def test_noise_does_not_wait_for_the_gpu():
    rng = RandomStreams(4, "cuda", seed=0)
    model = NoiseModelWithAdditiveBias(
        NoiseModelWithAdditiveBiasCfg(
            noise_cfg=UniformNoiseCfg((-1.0, -2.0, -3.0), 1.0),
            bias_noise_cfg=GaussianNoiseCfg(0.0, (1.0, 2.0, 3.0)),
        ),
        4,
        "cuda",
    )
    data, ids = torch.zeros(4, 3, device="cuda"), torch.tensor([1, 3], device="cuda")
    generator = torch.Generator(device="cuda")
    model.reset(None, rng)
    model(data, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model.reset(ids, rng)
        noisy = model(data, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert noisy.isfinite().all()
