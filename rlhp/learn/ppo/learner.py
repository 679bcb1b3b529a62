"""RLlib's PPO learner with a loop of its own over minibatches, a policy that begins as
asked for, and a whole state.

RLlib spends four fifths of a small minibatch's time beside the networks: it slices
batches of every column, logs a dozen metrics and looks at each gradient twice for each
of them. What is learned from comes from RLlib as ever: its connectors put episodes into
a batch and compute advantages. Here each minibatch is one loss, one backward pass and
one step of a fused optimizer, and the metrics are those of the last.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.torch_utils import explained_variance
from torch import Tensor

from rlhp.learn.ppo.loss import Losses, Weights, ppo_loss
from rlhp.models.pixels import Pixels

log = logging.getLogger(__name__)

KL_STATE = "rlhp_kl_coefficients"
LEARNED_FROM = ("actions", "action_logp", "advantages", "value_targets")
"""Columns of RLlib's batch, beside what the policy saw."""


class PPOLearner(PPOTorchLearner):  # type: ignore[misc]  # RLlib is untyped
    """One module, one optimizer."""

    def build(self) -> None:
        """Build as RLlib does, then start exploration where the config wants it."""
        super().build()
        start = self.config.policy_start
        for module in self.module._rl_modules.values():
            for name, parameter in module.named_parameters():
                if name.endswith("log_std"):
                    parameter.data.fill_(start.log_std_init)
                elif name.startswith("pi."):
                    parameter.data.mul_(start.head_scale)

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        """RLlib's Adam, all parameters in one call."""
        parameters = self.get_parameters(self._module[module_id])
        optimizer = torch.optim.Adam(parameters, fused=True)
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def update(
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, Any] | None = None,
        num_epochs: int = 1,
        minibatch_size: int,
        num_total_minibatches: int = 0,
        **_: Any,
    ) -> Any:
        """Go `num_epochs` times through these episodes, each time in another order;
        RLlib's metrics.

        `num_total_minibatches`: of several learners each takes as many, or they would
        wait for each other.
        """
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps or {})
        training_data.validate()
        training_data.solve_refs()
        self._weights_seq_no += 1
        batch = self._make_batch_if_necessary(training_data)
        ((name, columns),) = batch.policy_batches.items()
        rows = self._rows(columns)
        self.module[name].train()
        for part in self.module[name].modules():
            if isinstance(part, Pixels):  # those that the first batch shows
                part.meet(rows[Columns.OBS])
        for part in minibatches(
            rows, size=minibatch_size, epochs=num_epochs, total=num_total_minibatches
        ):
            losses, values = self._step(name, part)
        self._log_losses(name, losses, explained_variance(part["value_targets"], values.detach()))
        self._log_metrics(batch)
        self._log_steps_trained_metrics(batch)
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()

    def _rows(self, columns: Any) -> dict[str, Tensor]:
        """The real steps: RLlib adds one to each episode, for its value."""
        names = [Columns.OBS, *LEARNED_FROM]
        if self.config.use_kl_loss:
            names.append(Columns.ACTION_DIST_INPUTS)
        real = columns[Columns.LOSS_MASK]
        return {name: columns[name][real] for name in names}

    def _step(self, name: str, rows: dict[str, Tensor]) -> tuple[Losses, Tensor]:
        """One step of the optimizer; the losses and the values before it."""
        module, config = self.module[name], self.config
        # the public method switches every layer to training first
        out = module._forward_train(rows)
        plain = module.unwrapped()
        values = plain.compute_values(rows, embeddings=out[Columns.EMBEDDINGS])
        distribution = plain.get_train_action_dist_cls().from_logits
        weights = Weights(
            clip=config.clip_param,
            value=config.vf_loss_coeff,
            value_clip=config.vf_clip_param,
            entropy=self.entropy_coeff_schedulers_per_module[name].get_current_value(),
            kl=self.curr_kl_coeffs_per_module[name] if config.use_kl_loss else None,
        )
        then = distribution(rows[Columns.ACTION_DIST_INPUTS]) if config.use_kl_loss else None
        now = distribution(out[Columns.ACTION_DIST_INPUTS])
        losses = ppo_loss(rows, now=now, then=then, values_B=values, weights=weights)
        optimizer = self.get_optimizer(name)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(losses.total)
        bound = float("inf") if config.grad_clip is None else config.grad_clip
        norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], bound)
        if torch.isfinite(norm):
            optimizer.step()
        else:  # one step that cannot be taken, not a policy that is lost
            log.warning("a gradient of the policy was not finite: that minibatch is left out")
        return losses, values

    def _log_losses(self, name: str, losses: Losses, explained: Tensor) -> None:
        said = {
            self.TOTAL_LOSS_KEY: losses.total,
            "policy_loss": losses.policy,
            "vf_loss": losses.value,
            "vf_loss_unclipped": losses.value_unclipped,
            "entropy": losses.entropy,
            "mean_kl_loss": losses.kl,
        }
        values = {key: value.detach() for key, value in said.items()}
        self.metrics.log_dict({**values, "vf_explained_var": explained}, key=name, window=1)

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """RLlib's state; a whole one also holds the KL coefficients, which RLlib leaves
        out.
        """
        state: dict[str, Any] = super().get_state(
            components, not_components=not_components, **kwargs
        )
        if components is None:  # a weight sync asks for one component, and must stay small
            coefficients = self.curr_kl_coeffs_per_module.items()
            state[KL_STATE] = {module: float(value) for module, value in coefficients}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore RLlib's state and the KL coefficients."""
        super().set_state(state)
        for module, value in state.get(KL_STATE, {}).items():
            self.curr_kl_coeffs_per_module[module].data.fill_(value)


def minibatches(
    rows: dict[str, Tensor], *, size: int, epochs: int, total: int = 0
) -> Iterator[dict[str, Tensor]]:
    """`epochs` times all rows, each time in another order, in equal parts of about
    `size`; with `total`, that many.
    """
    count = len(rows["advantages"])
    per_epoch = max(1, round(count / size))
    wanted = total or epochs * per_epoch
    for number in range(wanted):
        if number % per_epoch == 0:
            order = torch.randperm(count).to(rows["advantages"].device)
            mixed = {
                name: torch.tensor_split(column[order], per_epoch) for name, column in rows.items()
            }
        yield {name: parts[number % per_epoch] for name, parts in mixed.items()}
