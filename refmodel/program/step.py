"""A step of a network between its input and its output."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation between tensors of the integer network.

    Attributes
    ----------
    op
        ``layer``, ``max_pool``, ``average_pool``, ``add``, ``clip``, ``rearrange``,
        ``concat``, ``multiply`` or ``table``.
    inputs, output
        Tensor names.
    params
        Parameters of the operation, as JSON values or int64 arrays. By operation, on codes a, b:

        ``layer``
            index, of the program's layers; a layer with ``residual`` has two inputs, the second
            being its residual operand.
        ``max_pool``
            kernel, stride, pads.
        ``average_pool``
            kernel, stride, pads, zero_in, multiplier (a number or [OH, OW]), shift, zero_out.
        ``add``
            zeros_in, multipliers, shift, zero_out, clip.
        ``clip``
            lo, hi.
        ``rearrange``
            index [values of the output], shape; and fill, the code where index is -1.
        ``concat``
            axis of (H, W, C), 0 to 2; zeros_in, multipliers (one to an input), shift, zero_out,
            clip. With one input it is a requantisation.

        ``multiply``
            zeros_in, multiplier, shift, zero_out, clip.
        ``table``
            tables [1 or channels, 256].

        :class:`refmodel.compression.quantize.QuantNetwork` gives the formulas.
    """

    op: str
    inputs: tuple[str, ...]
    output: str
    params: Mapping[str, Any] = field(default_factory=dict)
