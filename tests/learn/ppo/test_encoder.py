"""Policies that see pictures: uint8 and channel first from the env runner to the
encoder.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from torch.nn import functional

from rlhp.envs.make import probe
from rlhp.learn.ppo.encoder import PictureCatalog, PictureEncoder, PictureEncoderConfig
from rlhp.learn.ppo.rllib import algorithm_config
from tests.small_runs import action_space, env_runner, small

DOT = small(env={"id": "MovingDot-v0", "kwargs": {"size": 12}, "max_episode_steps": 20})


def test_the_encoder_scales_pictures_and_leaves_the_given_ones_alone() -> None:
    encoder = PictureEncoder(
        PictureEncoderConfig(input_dims=(2, 12, 12), network="cnn_small", hidden=(8,))
    )
    pictures = torch.randint(0, 256, (5, 2, 12, 12), dtype=torch.uint8)
    before = pictures.clone()
    first, second, dense = (
        layer for layer in encoder.net if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)
    )
    assert isinstance(first, torch.nn.Conv2d)
    assert isinstance(second, torch.nn.Conv2d)
    hidden = functional.relu(functional.conv2d(pictures.float() / 255, first.weight, first.bias, 2))
    hidden = functional.relu(functional.conv2d(hidden, second.weight, second.bias, 2)).flatten(1)
    slow = functional.relu(functional.linear(hidden, dense.weight, dense.bias))
    torch.testing.assert_close(encoder({Columns.OBS: pictures})[ENCODER_OUT], slow)
    encoder({Columns.OBS: pictures.float()})
    assert torch.equal(pictures, before)
    kept = pictures.float()
    encoder({Columns.OBS: kept})
    assert torch.equal(kept, before.float()), "a float batch is somebody's too"


@pytest.mark.parametrize(
    ("network", "picture", "size"),
    [("cnn", (4, 84, 84), 64 * 7 * 7), ("cnn_small", (4, 84, 84), 16 * 9 * 9)],
)
def test_the_papers_network_is_the_papers(
    network: str, picture: tuple[int, int, int], size: int
) -> None:
    config = PictureEncoderConfig(input_dims=picture, network=network)
    assert config.output_dims == (size,)
    assert PictureEncoder(config)({Columns.OBS: torch.zeros(1, *picture, dtype=torch.uint8)})[
        ENCODER_OUT
    ].shape == (
        1,
        size,
    )


def test_policy_and_value_share_the_pictures_of_rllibs_module() -> None:
    spaces = probe(DOT.env).spaces
    settings = algorithm_config(DOT, spaces, action_space=action_space(DOT))
    assert settings.get_rl_module_spec().catalog_class is PictureCatalog
    assert not settings.rlhp.normalize_obs
    spec = settings.get_rl_module_spec(
        spaces={DEFAULT_MODULE_ID: (spaces.obs.flat_space(), action_space(DOT))}
    )
    spec.observation_space, spec.action_space = spaces.obs.flat_space(), action_space(DOT)
    module = spec.build()
    names = set(module.get_state())
    assert {name.split(".")[0] for name in names} == {"encoder", "pi", "vf"}
    assert not any("critic" in name for name in names)


@pytest.mark.usefixtures("ray_session")
def test_pictures_stay_bytes_up_to_the_learner() -> None:
    runner, source, basket = env_runner(DOT)
    episodes = runner.sample(num_timesteps=90)
    for episode in episodes:
        assert episode.get_observations().dtype == np.uint8
        assert episode.get_observations().shape[1:] == (2, 12, 12)
    assert source.obs[0].dtype == np.uint8
    assert basket.segments
    for segment in basket.segments:
        assert segment.obs[""].dtype == np.uint8
        assert segment.obs[""].shape[1:] == (2, 12, 12)
    runner.stop()


@pytest.mark.usefixtures("ray_session")
def test_the_first_batch_sets_the_scale_of_pixels_for_whoever_acts() -> None:
    config = small(
        env=DOT.env.model_dump(), labels={"source": "none"}, learner={"pixels": "standardized"}
    )
    spaces = probe(config.env).spaces
    built = algorithm_config(config, spaces, action_space=action_space(config)).build_algo()
    scales = []
    for _ in range(2):
        built.train()
        learner = built.learner_group._learner.module[DEFAULT_MODULE_ID].encoder.encoder.pixels
        acting = built.env_runner.module.encoder.encoder.pixels
        assert learner.known
        assert torch.equal(acting.rate, learner.rate)
        assert torch.equal(acting.shift, learner.shift)
        scales.append(learner.rate.clone())
    assert scales[0].std() > 0
    assert torch.equal(*scales)
    built.stop()
