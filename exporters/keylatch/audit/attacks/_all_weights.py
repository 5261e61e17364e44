"""All weights of a locked network, those included that the file has stand-ins for."""

from __future__ import annotations

from torch import nn

from keylatch.audit._target import Target
from keylatch.audit.attacks._free_gates import free_value
from keylatch.audit.attacks._withheld import withheld_weights
from keylatch.audit.onnx_network import OnnxNetwork

# A withheld layer is trained from scratch, the others are only adjusted.
_WITHHELD_SPEED = 4.0


def all_weights(network: OnnxNetwork, target: Target) -> tuple[nn.Parameter, ...]:
    """Every parameter of a network, after withheld weights have become parameters too.

    Args:
        network: A copy of the target's, changed in place.
        target: The locked model.
    """
    for name in withheld_weights(target):
        value = network.initializer(name)
        if value.is_floating_point():
            free_value(network, name, value, _WITHHELD_SPEED)
    return tuple(network.parameters())
