"""One training step as a graph of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .distill import Objective

Step = Callable[[Sequence[Any], Sequence[Any]], tuple[Any, Any]]
"""Takes inputs and targets, one array each, (batch, ...); gives the loss of each output, and
whether the weights have moved."""


def compiled_step(
    forward: Callable[[Sequence[Any]], Sequence[Any]],
    objectives: Sequence[Objective],
    optimizer: Any,
    variables: Sequence[Any],
    states: Sequence[Any],
) -> Step:
    """Return a step that does nothing where its loss or a gradient is not finite.

    Args:
        forward: Computes the outputs in training mode.
        objectives: One per output; their means over the batch are summed.
        optimizer: A Keras optimizer, built.
        variables: What is trained.
        states: What else the forward pass changes, as moving statistics; they go back where the
            step does nothing.
    """
    import tensorflow as tf

    def step(inputs: Any, targets: Any) -> Any:
        before = [tf.identity(state.value) for state in states]
        with tf.GradientTape() as tape:
            outputs = forward(inputs)
            losses = [
                tf.reduce_mean(tf.cast(objective.loss(target, output), tf.float32))
                for objective, target, output in zip(objectives, targets, outputs, strict=True)
            ]
            loss = tf.add_n(losses)
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        moved = [
            (gradient, variable)
            for gradient, variable in zip(gradients, variables, strict=True)
            if gradient is not None
        ]
        sizes = [tf.reduce_sum(tf.abs(tf.cast(gradient, tf.float32))) for gradient, _ in moved]
        finite = tf.math.is_finite(loss)
        if sizes:
            finite = tf.logical_and(finite, tf.math.is_finite(tf.add_n(sizes)))

        def move() -> Any:
            optimizer.apply(*map(list, zip(*moved, strict=True)))
            return tf.constant(True)

        def go_back() -> Any:
            for state, value in zip(states, before, strict=True):
                state.assign(value)
            return tf.constant(False)

        return tf.stack(losses), tf.cond(finite, move, go_back)

    graph: Step = tf.function(step, autograph=False, jit_compile=False, reduce_retracing=True)
    return graph
