"""Fold the last step of preprocessing into the first convolution: a product with one number a channel.

Zero padding stays zero under a product, so this is exact to rounding for every convolution. Subtracting the mean is
not: it stays in front.
"""

from __future__ import annotations

import onnx_ir as ir


def fold_input_scale(model: ir.Model, scale: str) -> bool:
    """Move a product with `scale` from a convolution's input to its weights, which onnxruntime computes while opening.

    Args:
        model: Changed in place; float32.
        scale: Name of an initializer, (1, C, 1, 1).

    Returns:
        Whether it was done; not where something else than one ungrouped convolution takes the product.
    """
    value = model.graph.initializers.get(scale)
    product = value.consumers()[0] if value is not None and len(value.consumers()) == 1 else None
    if value is None or product is None or product.op_type != "Mul" or value.dtype != ir.DataType.FLOAT:
        return False
    users = product.outputs[0].consumers()
    if len(users) != 1 or users[0].op_type != "Conv" or users[0].attributes.get_int("group", 1) != 1:
        return False
    conv, source = users[0], product.inputs[0]
    weight = conv.inputs[1]
    if weight is None or source is None or source is value:
        return False
    scaled = ir.node("Mul", [weight, value], name="scaled_weight", outputs=[ir.Value(name="scaled_weight")])
    model.graph.insert_before(conv, scaled)
    conv.replace_input_with(0, source)
    conv.replace_input_with(1, scaled.outputs[0])
    model.graph.remove(product, safe=True)
    return True
