"""Recurrent networks."""

from __future__ import annotations

import numpy as np
from kit.layers import F32, Built, Layers

STEPS, HIDDEN = 5, 8


def _recurrent(kind: str, gates: int, directions: int) -> Built:
    net = Layers()
    x = net.input("x", F32, STEPS, "N", 6)
    hidden = HIDDEN
    operands = [
        net.dense(x, 6, 10),
        net.weight(directions, gates * hidden, 10),
        net.weight(directions, gates * hidden, hidden),
        net.const(net.draw(directions, 2 * gates * hidden), net.fresh("b")),
    ]
    attrs = {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward"}
    y = net.node(kind, operands, None, attrs, count=3 if kind == "LSTM" else 2).results[0]
    y = net.reshape(net.transpose(y, 0, 2, 1, 3), 0, 0, -1)
    feeds = {"x": np.random.default_rng(1).standard_normal((5, 2, 6)).astype(np.float32)}
    return net.done(net.dense(y, directions * hidden, 4)), feeds


def lstm() -> Built:
    return _recurrent("LSTM", 4, 2)


def gru() -> Built:
    return _recurrent("GRU", 3, 1)


def stacked() -> Built:
    """An LSTM with peepholes and learned initial states under a plain recurrent layer whose last state is read."""
    net = Layers()
    x = net.input("x", F32, STEPS, 2, 6)
    states = [net.const(net.draw(1, 2, HIDDEN), name) for name in ("h0", "c0")]
    weights = [net.weight(1, 4 * HIDDEN, 6), net.weight(1, 4 * HIDDEN, HIDDEN), net.weight(1, 8 * HIDDEN)]
    attrs = {"hidden_size": HIDDEN}
    operands = [x, *weights, None, *states, net.weight(1, 3 * HIDDEN)]
    y = net.op("Squeeze", [net.node("LSTM", operands, None, attrs, count=3).results[0], net.ints(1)])
    weights = [net.weight(1, 7, HIDDEN), net.weight(1, 7, 7), net.weight(1, 14)]
    last = net.node("RNN", [y, *weights], None, {"hidden_size": 7}, count=2).results[1]
    feeds = {"x": np.random.default_rng(1).standard_normal((STEPS, 2, 6)).astype(np.float32)}
    return net.done(net.linear(net.op("Squeeze", [last, net.ints(0)]), 7, 4)), feeds
