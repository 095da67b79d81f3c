"""One step of training and of evaluation, as pure functions.

A batch holds `audio`, int16 PCM or float (B, N), and for training also `labels`, float32 (B, C). This is the
only place where training applies the network.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from rann_jax import losses
from rann_jax.augment import Policy
from rann_jax.features.front_ends.base import Inputs
from rann_jax.optimizer import update_ema
from rann_jax.state import TrainState, all_finite
from rann_jax.training.freezing import Freezing
from rann_jax.training.gradients import accumulated, grouped

Batch = dict[str, jax.Array]

LOSSES = {
    "classification": losses.categorical_cross_entropy,
    "tagging": losses.binary_cross_entropy,
}
NO_AUGMENTATION = Policy()
NOTHING_FROZEN = Freezing(head="")
PROBABILITIES = {"classification": jax.nn.softmax, "tagging": jax.nn.sigmoid}


def to_float(audio: jax.Array) -> jax.Array:
    """Convert int16 PCM to float32 in [-1, 1); return float audio unchanged."""
    if audio.dtype == jnp.int16:
        return audio.astype(jnp.float32) / 32768.0
    return audio


def make_train_step(
    model: nn.Module,
    front_end: Callable[[jax.Array], Inputs],
    tx: optax.GradientTransformation,
    *,
    task: str,
    ema_decay: float,
    augment: Policy = NO_AUGMENTATION,
    freezing: Freezing = NOTHING_FROZEN,
    accumulate: int = 1,
    batch_norm_groups: int = 1,
    whole: Callable[[Any], Any] = lambda params: params,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]:
    """Return the training step of a network behind a front end.

    Args:
      model: feature images (B, F, T) to logits (B, C).
      front_end: waveforms (B, N), float32, to feature images, also in float32.
      tx: the optimiser.
      task: "classification" (softmax) or "tagging" (sigmoid).
      ema_decay: decay of the moving averages of parameters and batch statistics.
      augment: augmentations of waveforms, features and labels, drawn as a function of the seed and the step.
      freezing: which frozen layers run in inference mode; the optimiser keeps their parameters fixed.
      accumulate: number of batch parts whose gradients are computed one after another (see `gradients`).
      batch_norm_groups: number of groups in each part, each normalised by its own statistics.
      whole: gathers parameters that are sharded across devices.

    Returns:
      (state, batch) -> (state, {"loss", "learning_rate", "finite"}), to be jitted by the caller. The loss is
      that of the state before the step; `finite` says whether all values of the state after it are finite.
    """
    loss_fn = LOSSES[task]

    def loss_and_statistics(
        params: Any, batch_stats: Any, features: Inputs, labels: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        with freezing.inference_where_frozen(params):
            logits, updated = model.apply(
                {"params": whole(params), "batch_stats": batch_stats},
                features,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
        return loss_fn(logits, labels).mean(), updated["batch_stats"]

    gradient = accumulated(grouped(loss_and_statistics, batch_norm_groups), accumulate)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key, network_key = jax.random.split(state.step_key)
        audio, labels = augment.on_audio(key, to_float(batch["audio"]), batch["labels"], state.step)
        features, labels = augment.on_features(key, front_end(audio), labels, state.step)
        (loss, batch_stats), gradients = gradient(
            state.params, state.batch_stats, features, labels, network_key
        )
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        ema_params, ema_batch_stats = update_ema(
            (state.ema_params, state.ema_batch_stats), (params, batch_stats), step, ema_decay
        )
        state = dataclasses.replace(
            state,
            step=step,
            params=params,
            batch_stats=batch_stats,
            ema_params=ema_params,
            ema_batch_stats=ema_batch_stats,
            opt_state=opt_state,
        )
        # The averages inherit any non-finite value of params and batch_stats, so checking them is enough.
        finite = all_finite((ema_params, ema_batch_stats, opt_state))
        learning_rate = opt_state.hyperparams["learning_rate"]
        return state, {"loss": loss, "learning_rate": learning_rate, "finite": finite}

    return train_step


def make_eval_step(
    model: nn.Module, front_end: Callable[[jax.Array], Inputs], *, task: str
) -> Callable[[dict[str, Any], jax.Array], jax.Array]:
    """Return the function (variables, audio (B, N)) -> class probabilities (B, C), float32."""
    probabilities = PROBABILITIES[task]

    def eval_step(variables: dict[str, Any], audio: jax.Array) -> jax.Array:
        logits = model.apply(variables, front_end(to_float(audio)), train=False)
        return probabilities(jnp.asarray(logits))

    return eval_step


def make_embed_step(
    model: nn.Module, front_end: Callable[[jax.Array], Inputs]
) -> Callable[[dict[str, Any], jax.Array], jax.Array]:
    """Return the function (variables, audio (B, N)) -> embeddings (B, D), float32.

    The embedding is the input of the network's last layer.
    """

    def embed_step(variables: dict[str, Any], audio: jax.Array) -> jax.Array:
        embeddings = model.apply(variables, front_end(to_float(audio)), train=False, method="embed")
        return jnp.asarray(embeddings)

    return embed_step
