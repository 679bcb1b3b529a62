"""Policies that see pictures: channel-first uint8 into RLlib's PPO module, with an
encoder of our own.

RLlib's encoder wants the channels last and scaled floats, which would be four bytes per
pixel from the env runner on.

Shapes: B rows, C x H x W pictures, E numbers that the encoder puts out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT, Encoder
from ray.rllib.core.models.configs import ModelConfig
from ray.rllib.core.models.torch.base import TorchModel
from torch import Tensor, nn

from rlhp.models.convolution import POLICY
from rlhp.models.pixels import Pixels


class PictureCatalog(PPOCatalog):  # type: ignore[misc]  # RLlib is untyped
    """RLlib's heads and distributions on our encoder.

    `conv_filters` of the model config is a name in `POLICY`, and what of pixels it
    sees: `learner.pixels`.
    """

    @classmethod
    def _get_encoder_config(
        cls, observation_space: Any, model_config_dict: dict[str, Any], action_space: Any = None
    ) -> PictureEncoderConfig:
        network, pixels = model_config_dict["conv_filters"]
        return PictureEncoderConfig(
            input_dims=observation_space.shape,
            network=network,
            standardize=pixels == "standardized",
            hidden=tuple(model_config_dict["fcnet_hiddens"]),
            activation=model_config_dict["fcnet_activation"],
        )


@dataclass
class PictureEncoderConfig(ModelConfig):  # type: ignore[misc]  # RLlib is untyped
    """What RLlib builds encoders from."""

    network: str = "cnn"
    standardize: bool = False
    hidden: tuple[int, ...] = ()
    activation: str = "relu"

    @property
    def output_dims(self) -> tuple[int]:
        """E."""
        return (self.hidden[-1] if self.hidden else POLICY[self.network].features(self.input_dims),)

    def build(self, framework: str = "torch") -> PictureEncoder:
        """The network."""
        return PictureEncoder(self)


class PictureEncoder(TorchModel, Encoder):  # type: ignore[misc]  # RLlib is untyped
    """uint8 pictures [B, C, H, W] -> [B, E]: pixels to scale, convolutions with ReLU,
    then dense layers.

    Weights begin orthogonal, as is usual for PPO on pictures.
    """

    def __init__(self, config: PictureEncoderConfig) -> None:
        TorchModel.__init__(self, config)
        Encoder.__init__(self, config)
        convolution = POLICY[config.network]
        factor = convolution.factor(config.input_dims)
        self.pixels = Pixels(config.input_dims, factor=factor, standardize=config.standardize)
        layers: list[nn.Module] = []
        channels = config.input_dims[0]
        for filters, kernel, stride in convolution.layers:
            layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
            channels = filters
        layers.append(nn.Flatten())
        sizes = (convolution.features(config.input_dims), *config.hidden)
        for fan_in, fan_out in pairwise(sizes):
            layers += [
                nn.Linear(fan_in, fan_out),
                nn.Tanh() if config.activation == "tanh" else nn.ReLU(),
            ]
        self.net = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.orthogonal_(layer.weight, 2**0.5)
                nn.init.constant_(layer.get_parameter("bias"), 0)

    def _forward(self, inputs: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        return {ENCODER_OUT: self.net(self.pixels(inputs[Columns.OBS]))}
