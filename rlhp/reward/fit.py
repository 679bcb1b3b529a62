"""Fitting the reward ensemble to preferences, and publishing reward versions
(Christiano et al. 2017, section 2.2.3).

    fitter = Fitter(config, spaces=spaces, seed=0)
    fitter.observe(obs, encoded_actions)  # recent transitions fix the scale of inputs and rewards
    fitter.add(preferences)
    report = fitter.pretrain(config.pretrain_epochs)
    weights = fitter.publish(1)
    # and then, for as long as answers come: add, train(uses), publish(version)

The scale on which networks see observations is set when fitting begins, and moved along
with what is observed. Only an ensemble of MLPs can take up a change of scale, in its
first layer, and the optimizer's memory of that layer changes with it. Convolutions
cannot, where the scale is another at each place of the picture, and nobody knows how a
user's module would: for them the first scale stays.

Whether a reward needs the action differs from task to task. A cost of torque cannot be
seen in states, and an ensemble that does not see actions misses it. Where nothing is
paid for actions, whatever an ensemble says about them is an error that the policy
exploits at once. So both kinds are fitted to the same answers, and each new reward
version is the one that predicts the answers outside its members' bags better: the
answers decide, not a setting.

A reward is only known where somebody compared segments. A policy that leaves that
region is paid by extrapolation, and held-out answers cannot tell: they are from the
region too. So `novelty` says how far the policy's newest observations are from
everything that was ever asked about.

Shapes: M members, B preferences per minibatch (or newest observations), N all
preferences (or observations in answered segments), C candidates of the widest query, K
steps per segment, O observation as a row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhp.config.schema import RewardConfig
from rlhp.envs.spaces import Spaces
from rlhp.errors import RlhpError
from rlhp.models.architecture import Architecture
from rlhp.models.ensemble import Ensemble, Network, build, usable_device
from rlhp.models.normalizer import Moments, Reservoir
from rlhp.models.picture_ensemble import PictureEnsemble
from rlhp.reward import loss
from rlhp.reward.data import Batch, Subset, TrainingSet
from rlhp.reward.loss import FitReport, assess, losses, mean_known, numbers
from rlhp.reward.penalty import AdaptivePenalty
from rlhp.reward.versions import RewardPredictor, RewardWeights
from rlhp.system.memory import flushed
from rlhp.types import Array, Preference

REMEMBERED = {"exp_avg": 1, "exp_avg_sq": 2, "square_avg": 2}
"""What Adam and RMSprop keep of past gradients, and in which power."""


def optimizer_for(
    config: RewardConfig, parameters: list[torch.nn.Parameter]
) -> torch.optim.Optimizer:
    """Adam or RMSprop. Neither mixes members: what is stacked in one parameter is
    updated number by number.
    """
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=config.lr)
    return torch.optim.Adam(parameters, lr=config.lr, betas=(config.adam_beta1, 0.999))


def rescale_memory(optimizer: torch.optim.Optimizer, weight: Tensor, *, scale: Tensor) -> None:
    """Adjust to a weight [M, F, H] whose rows grew by scale [F]: the gradients of such
    a row are that much smaller.
    """
    memory = optimizer.state[weight]
    for name in memory.keys() & REMEMBERED.keys():
        memory[name].div_(scale[:, None] ** REMEMBERED[name])


SOME = 16
"""Preferences that stand in for transitions where none were observed yet."""


def scale_inputs(
    network: Network,
    reservoir: Reservoir,
    examples: TrainingSet,
    *,
    spaces: Spaces,
    optimizer: torch.optim.Optimizer,
    again: bool,
) -> None:
    """Standardize inputs by all that was observed, or by the preferences where nothing
    was yet.

    `again`: not the first time, so that rewards have to stay what they were.
    """
    if isinstance(network, PictureEnsemble):
        if not again:
            network.pixels.meet(_pictures(reservoir, examples).to(network.batches.device))
        return
    if not hasattr(network, "inputs"):  # a user's module for pictures, which it sees as 0 to 1
        return
    moments = _moments(reservoir, examples)
    mean, std = moments.mean.copy(), moments.std.copy()
    if spaces.action.choices:
        mean[spaces.obs.size :], std[spaces.obs.size :] = 0.0, 1.0
    # without the actions where the network does not standardize them
    size = len(network.inputs.mean)
    mean, std = mean[:size], std[:size]
    if not again:
        network.inputs.set(mean, std)
    elif isinstance(network, Ensemble):
        scale = network.rescale_inputs(mean, std)
        rescale_memory(optimizer, network.penalized()[0], scale=scale)


def _moments(reservoir: Reservoir, examples: TrainingSet) -> Moments:
    moments = reservoir.moments
    if moments.count == 0:
        everything = examples.batch(np.arange(len(examples)))
        inputs = torch.cat([everything.obs, everything.actions], -1)[everything.mask]
        moments = Moments(inputs.shape[1])
        moments.add(inputs.cpu().numpy())
    return moments


def _pictures(reservoir: Reservoir, examples: TrainingSet) -> Tensor:
    """uint8 [B, C, H, W]."""
    if len(reservoir):
        return torch.from_numpy(reservoir.rows()[0])
    some = examples.batch(np.arange(min(len(examples), SOME)))
    return some.obs[some.mask]


CLEARLY = 2.5
"""Standard errors by which an ensemble that sees actions has to be ahead before it
takes over; it goes when it is no longer ahead at all. On tasks that pay nothing for
actions the lead stayed below this over hundreds of answers.
"""
FACTORS = np.geomspace(0.03, 10.0, 26).tolist()
NEVER_SURE = 0.005
"""Probabilities stay this far from 0 and 1, so that a single answer decides nothing."""


def out_of_bag(returns_MNC: Tensor, part: Subset) -> Tensor:
    """Log-likelihood [N] of each answer under the members that were not trained on it;
    0 where all of them were.

    The members average their probabilities. Predicted returns are multiplied by the one
    factor under which all answers are likeliest: an ensemble may be sure beyond reason
    and still rank segments best, and rewards have no scale.
    """
    judges_MN1 = part.validation.to(returns_MNC.dtype)[..., None]
    count_N1 = judges_MN1.sum(0)
    found = []
    for factor in FACTORS:
        p_MNC = loss.log_odds(factor * returns_MNC, part.present).sigmoid()
        p_NC = (judges_MN1 * p_MNC).sum(0) / count_N1.clamp(min=1)
        p_NC = p_NC.clamp(NEVER_SURE, 1 - NEVER_SURE)
        if p_NC.shape[1] == 2:  # what one of a pair leaves is the other's, to the last bit
            p_NC = torch.stack([p_NC[:, 0], 1 - p_NC[:, 0]], -1)
        likely_N = (part.target * p_NC.log()).sum(-1)
        found.append(torch.where(count_N1[:, 0] > 0, likely_N, 0.0))
    return max(found, key=lambda likely_N: float(likely_N.sum()))


def sees_action(seeing_N: Tensor, blind_N: Tensor, *, now: bool) -> bool:
    """Whether the ensemble that sees actions is to be published, from what both make of
    each answer (`out_of_bag`).

    `now`: whether it is the one that is published so far.
    """
    lead_N = (seeing_N - blind_N)[(seeing_N != 0) & (blind_N != 0)]
    if now or len(lead_N) < 2:
        return now and float(lead_N.sum()) >= 0
    return bool(float(lead_N.sum()) > CLEARLY * float(lead_N.std()) * len(lead_N) ** 0.5)


FEWEST = 20
"""Different observations below which a distance between two of them says little."""
CLOSE = 0.25
"""Standard deviations per coordinate that are never called far, however densely was
asked.
"""


def novelty(newest_BO: Tensor, asked_NO: Tensor) -> float | None:
    """Median distance of the newest to the nearest that was asked about, in units of
    that among those asked about.

    About 1 where the policy does what was asked about, 2 where it is twice as far from
    it as asked segments are from each other. Those distances count as `CLOSE` at least,
    or the least move would be novel where few coordinates were asked about densely.
    None with too little to compare. Both in standardized coordinates, one observation
    per segment, of which some may be the same.
    """
    asked_NO = torch.unique(asked_NO, dim=0)
    if len(asked_NO) < FEWEST or len(newest_BO) == 0:
        return None
    among_NN = torch.cdist(asked_NO, asked_NO)
    among_NN.fill_diagonal_(torch.inf)
    spacing = float(among_NN.min(1).values.median())
    away = float(torch.cdist(newest_BO, asked_NO).min(1).values.median())
    return away / max(spacing, CLOSE * math.sqrt(asked_NO.shape[1]))


VALIDATE_EVERY = 10
"""Gradient steps between two looks at a validation minibatch; a look costs a third of a
step.
"""
PREFERENCES_PER_PASS = 128
PICTURE_PREFERENCES_PER_PASS = 16
"""When preferences are looked at."""
MOST_PICTURE_PREFERENCES = 256
"""Looked at: more would take longer than the fit that is to be judged."""
PICTURE_PREFERENCES_PER_PIECE = 2
"""Of a gradient step: few pictures at a time stay in the cache."""
EXPLAINED = 0.02
"""Training loss in nats above its floor, below which more fitting would only make the
ensemble surer of itself.
"""
NOVELTY_ROWS, NOVELTY_PREFERENCES = 256, 1000
"""Recent observations, and newest preferences, that are compared at a publication."""
SEEING, BLIND = 0, 1
"""The two ensembles of `reward.use_action: auto`, as `Architecture.sides` counts them.
"""
ASSESS_EVERY = 50
"""Gradient steps between two looks at the preferences, which cost as much as several
steps.
"""


class Fitter:
    """The ensemble, its optimizer and the preferences they are fitted to. Deterministic
    on the CPU for a seed.
    """

    def __init__(self, config: RewardConfig, *, spaces: Spaces, seed: int) -> None:
        self._config, self._spaces = config, spaces
        self._device = usable_device(config.device)
        self._architecture = Architecture.of(config, spaces=spaces)
        self._network = build(self._architecture, generator=torch.Generator().manual_seed(seed)).to(
            self._device
        )
        self._per_piece = (
            PICTURE_PREFERENCES_PER_PIECE if self._architecture.rows_apart else config.batch_size
        )
        self._dropout = torch.Generator(self._device).manual_seed(seed)
        self._draws = np.random.default_rng(seed)
        self._optimizer = optimizer_for(config, list(self._network.parameters()))
        self._penalty = AdaptivePenalty(config, members=self._architecture.members)
        self._no_examples = partial(
            TrainingSet,
            config,
            architecture=self._architecture,
            spaces=spaces,
            seed=seed,
            device=self._device,
        )
        # This is the ensemble that the newest version was made of. Labelers see states
        # and no actions, so a run begins with the ensemble that does not see actions,
        # where there are two.
        self._side = len(self._architecture.sides) - 1
        self._examples = self._no_examples()
        self._reservoir = Reservoir(
            config.reservoir, obs=spaces.obs, action_size=spaces.action.size
        )
        self._updates = 0
        # updates before the newest preferences, and how many there were then
        self._added, self._seen = 0, 0
        self._assessed = 0  # updates before the last report
        self._unused = 0.0  # label uses that fill no minibatch yet
        self._scaled = False  # whether the inputs have been given a scale
        self._correlation: float | None = None
        self._report: FitReport | None = None

    @property
    def size(self) -> int:
        """Preferences taken in."""
        return len(self._examples)

    @property
    def trainable(self) -> bool:
        """Whether any member has a preference to train on: a lone one may be out of
        every bag.
        """
        return any(len(rows) for rows in self._examples.train_rows)

    @property
    def updates(self) -> int:
        """Gradient steps so far."""
        return self._updates

    def add(
        self, preferences: Sequence[Preference], *, doubts: Mapping[str, float] | None = None
    ) -> int:
        """Take in preferences not known yet, by query and labeler; returns how many.
        ValueError for `incomparable`.

        After a restart add all of them in the same order: minibatches name them by
        their place. Queries in `doubts` count that much from now on, more than 0 and
        less than the 1 of all others.
        """
        new = self._examples.add(preferences, doubts=doubts)
        if self.size > self._seen:  # a restarted fitter is given again what it had
            self._added, self._seen = self._updates, self.size
        return new

    def observe(self, obs: Array, actions: Array) -> None:
        """Take in transitions of the current policy: observations [N, *O] and encoded
        actions [N, A].
        """
        self._reservoir.add(obs, actions)

    def forget_data(self) -> None:
        """Drop all preferences, when answers were retracted or revised; what was
        learned from them stays.

        Those added again find themselves in the same bags.
        """
        self._examples = self._no_examples()
        self._seen = 0

    def train(self, uses: float) -> FitReport:
        """Feed every member `uses` more preferences; what fills no minibatch is carried
        over to the next call.

        The report's losses and accuracies may be up to 50 gradient steps old;
        `report()` has new ones. ValueError without a preference to train on.
        """
        self._unused += uses
        steps = int(self._unused // self._config.batch_size)
        self._unused -= steps * self._config.batch_size
        self._take(steps)
        if self._report is None or self._updates - self._assessed >= ASSESS_EVERY:
            return self.report()
        return replace(self._report, updates=self._updates, preferences=self.size)

    def pretrain(self, epochs: int, *, early_stop: int = 0) -> FitReport:
        """Go `epochs` times through the preferences.

        Stops after `early_stop` epochs without a better validation loss (0: never), at
        the weights of the last epoch, not of the best.
        """
        steps_per_epoch = math.ceil(int((~self._examples.held_out).sum()) / self._config.batch_size)
        best, worse = math.inf, 0
        for _ in range(epochs):
            self._take(max(1, steps_per_epoch))
            if early_stop and (validation := self._validation_loss()) is not None:
                best, worse = (validation, 0) if validation < best else (best, worse + 1)
                if worse >= early_stop:
                    break
        return self.report()

    def publish(self, version: int, *, before: RewardWeights | None = None) -> RewardWeights:
        """The ensemble as it is, each member scaled to std 1 over the recent
        transitions.

        Their mean is 0, or (`reward.center: carried`) what the version `before` gives
        them: a jump of all rewards would be a hundred times as large in every return
        that the value network has learned. ValueError before the first transition.
        """
        if len(self._reservoir) == 0:
            raise ValueError(
                f"reward version {version} needs recent transitions to fix its scale, and none "
                "was observed; call observe() before publish()"
            )
        self._scale_inputs()
        self._choose_side()
        weights = self._weights(version)
        device, center = self._config.device, 0.0
        scores_MB = RewardPredictor(weights, device=device).score(*self._reservoir.rows())
        self._correlation = loss.member_correlation(torch.from_numpy(scores_MB))
        if before is not None and self._config.center == "carried":
            center = float(
                RewardPredictor(before, device=device).predict(*self._reservoir.rows()).mean()
            )
        return weights.scaled_to(scores_MB, center=center)

    def _choose_side(self) -> None:
        """Decide by the answers whether the ensemble that sees actions is published,
        where there are both.
        """
        sides = self._architecture.sides
        if len(sides) > 1:
            returns_MNC, part = self._look()
            seeing, blind = (out_of_bag(returns_MNC[side], part.of(side)) for side in sides)
            self._side = SEEING if sees_action(seeing, blind, now=self._side == SEEING) else BLIND

    def _weights(self, version: int) -> RewardWeights:
        """The ensemble that is to be published, without a scale."""
        network, number = self._network, self._side
        architecture = self._architecture.side(number)
        state = network.state_dict()
        if self._architecture.blind:
            assert isinstance(network, Ensemble)
            state = network.side(self._architecture.sides[number], blind=number == BLIND)
        return RewardWeights(
            version=version,
            architecture=architecture,
            state={name: value.detach().cpu().numpy().copy() for name, value in state.items()},
            member_mean=np.zeros(architecture.members, np.float32),
            member_std=np.ones(architecture.members, np.float32),
            target_std=self._config.target_std,
        )

    @property
    def explained(self) -> bool:
        """Whether the answers so far are explained, as of the last hundred gradient
        steps: nothing is left to fit.

        New answers are not, before all have been gone through once.
        """
        if (self._updates - self._added) * self._config.batch_size < self.size:
            return False
        train = self._penalty.train_loss
        return train is not None and train - self._loss_floor() < EXPLAINED

    def _loss_floor(self) -> float:
        """The training loss cannot fall below this, mistakes and ties being what they
        are.
        """
        if self._config.loss == "regression" or not self.size:
            return 0.0
        target, present = self._examples.target, self._examples.present
        rate = self._config.error_rate
        return float(loss.loss_floor(target, error_rate=rate, present=present).mean())

    @property
    def sees_action(self) -> bool:
        """Whether the ensemble that is published now depends on the action."""
        return self._architecture.side(self._side).action_size > 0

    def novelty(self) -> float | None:
        """How far recent observations are from those in the preferences
        (`rlhp.reward.fit`); None for pictures.
        """
        if not isinstance(self._network, Ensemble) or not self.size or not len(self._reservoir):
            return None
        inputs, size = self._network.inputs, self._spaces.obs.size
        mean_O, std_O = inputs.mean[:size], inputs.std[:size]
        newest, _ = self._reservoir.rows()
        some = newest[
            np.linspace(0, len(newest) - 1, min(len(newest), NOVELTY_ROWS)).astype(np.int64)
        ]
        asked = self._examples.middles(NOVELTY_PREFERENCES)
        return novelty(
            (torch.from_numpy(some).to(mean_O) - mean_O) / std_O, (asked - mean_O) / std_O
        )

    def report(self) -> FitReport:
        """What the ensemble knows now, by a look at the preferences."""
        returns_MNC, part = self._look()
        self._assessed = self._updates
        side = self._architecture.sides[self._side]
        self._report = assess(
            returns_MNC[side],
            part.of(side),
            config=self._config,
            updates=self._updates,
            preferences=self.size,
            l2=float(self._penalty.weights[side].mean()),
            member_correlation=self._correlation,
        )
        return self._report

    def state_dict(self) -> dict[str, Any]:
        """All but the preferences, as tensors and plain values, so
        `torch.load(weights_only=True)` reads it.

        A fitter that loads it and is given the same preferences in the same order goes
        on as if never interrupted.
        """
        return {
            "network": {name: value.clone() for name, value in self._network.state_dict().items()},
            "optimizer": deepcopy(self._optimizer.state_dict()),
            "penalty": self._penalty.state_dict(),
            "reservoir": self._reservoir.state_dict(),
            "dropout": self._dropout.get_state(),
            "draws": self._draws.bit_generator.state,
            "updates": self._updates,
            "added": self._added,
            "seen": self._seen,
            "unused": self._unused,
            "scaled": self._scaled,
            "correlation": self._correlation,
            "side": self._side,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`; ValueError if it comes from other networks, or
        from rlhp before 'side'.
        """
        try:
            if missing := self.state_dict().keys() - state.keys():
                raise ValueError(f"an earlier rlhp saved no {sorted(missing)[0]!r}")
            if state["side"] >= len(self._architecture.sides):
                raise ValueError("it has ensembles with and without actions")
            self._network.load_state_dict(state["network"])
            self._optimizer.load_state_dict(deepcopy(state["optimizer"]))
        except (RuntimeError, ValueError) as error:
            raise RlhpError(
                "the saved reward trainer has other networks than this config, so it cannot go on: "
                f"{str(error).splitlines()[-1].strip()}. Restore the reward section of its "
                "config, or start a new run."
            ) from error
        self._penalty.load_state_dict(state["penalty"])
        self._reservoir.load_state_dict(state["reservoir"])
        self._dropout.set_state(state["dropout"])
        self._draws.bit_generator.state = state["draws"]
        self._updates, self._unused = state["updates"], state["unused"]
        self._scaled, self._correlation = state["scaled"], state["correlation"]
        self._side, self._added, self._seen = state["side"], state["added"], state["seen"]

    def _take(self, steps: int) -> None:
        if steps and not self.trainable:
            raise ValueError(
                f"no preference to train on yet, of {self.size} taken in; add some before training"
            )
        if steps and not self._scaled:
            self._scale_inputs()
        with flushed():  # surely answered pairs leave gradients that would be slow zeros
            for _ in range(steps):
                self._step()

    def _step(self) -> None:
        """One gradient step of every member on a minibatch of its own."""
        self._network.train()
        self._optimizer.zero_grad(set_to_none=True)
        drawn, active_M = self._examples.minibatch(self._examples.train_rows, self._draws)
        *pieces, last = self._examples.pieces(drawn, most=self._per_piece)
        losses_M = torch.zeros_like(active_M, dtype=torch.float32)
        # a member with an empty bag takes no step, rather than one on answers it should
        # be judged by
        for piece in pieces:
            part_M = self._loss(piece) / (len(pieces) + 1)
            torch.autograd.backward(torch.where(active_M, part_M, 0.0).sum())
            losses_M += part_M.detach()
        total_M = losses_M = losses_M + self._loss(last) / (len(pieces) + 1)
        if penalized := self._network.penalized():
            weights_M = torch.from_numpy(self._penalty.weights).to(losses_M)
            total_M = losses_M + weights_M * loss.l2_penalty(penalized)
        torch.autograd.backward(torch.where(active_M, total_M, 0.0).sum())
        self._optimizer.step()
        self._updates += 1
        self._penalty.saw_training(numbers(losses_M, active_M))
        if self._penalty.adaptive and self._updates % VALIDATE_EVERY == 0:
            self._network.eval()
            drawn, active_M = self._examples.minibatch(self._examples.validation_rows, self._draws)
            with torch.no_grad():
                self._penalty.saw_validation(
                    numbers(self._loss(drawn), active_M), steps=VALIDATE_EVERY
                )

    def _loss(self, index_MB: Array) -> Tensor:
        """The loss [M], without the penalty, on these rows of each member."""
        returns_MBC = self._predict(batch := self._examples.batch(index_MB))
        if self._config.loss == "regression":
            return loss.regression_loss(returns_MBC, batch.returns, present=batch.present)
        return loss.preference_loss(
            returns_MBC,
            batch.target,
            error_rate=self._config.error_rate,
            weights=batch.weight,
            present=batch.present,
        )

    def _predict(self, batch: Batch) -> Tensor:
        """Predicted returns [M, B, C] of all candidates. One forward for all, so all see
        the same network.
        """
        own = batch.mask.ndim - 3  # 0: [B, C, K], 1: [M, B, C, K]
        obs, actions = batch.obs.flatten(own, own + 2), batch.actions.flatten(own, own + 2)
        rewards = self._network(obs, actions, self._dropout).unflatten(1, batch.mask.shape[own:])
        return loss.segment_returns(rewards, batch.mask)

    def _look(self) -> tuple[Tensor, Subset]:
        """Predicted returns [M, N, C], dropout off, over all preferences; with pictures,
        over some.
        """
        self._network.eval()
        size, seen = PREFERENCES_PER_PASS, np.arange(self.size)
        if self._architecture.picture is not None:
            size = PICTURE_PREFERENCES_PER_PASS
            if self.size > MOST_PICTURE_PREFERENCES:  # old ones and new
                seen = (
                    np.linspace(0, self.size - 1, MOST_PICTURE_PREFERENCES).round().astype(np.int64)
                )
        passes = [seen[start : start + size] for start in range(0, len(seen), size)]
        part = self._examples.part(seen)
        nothing = part.target.new_zeros(self._architecture.members, 0, part.target.shape[1])
        with torch.no_grad():
            found = [self._predict(self._examples.batch(index)) for index in passes]
        return torch.cat([nothing, *found], 1), part

    def _validation_loss(self) -> float | None:
        returns_MNC, part = self._look()
        return mean_known(losses(returns_MNC, part, config=self._config, weights=part.validation))

    def _scale_inputs(self) -> None:
        scale_inputs(
            self._network,
            self._reservoir,
            self._examples,
            spaces=self._spaces,
            optimizer=self._optimizer,
            again=self._scaled,
        )
        self._scaled = True
