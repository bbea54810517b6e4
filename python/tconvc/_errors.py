"""Exceptions, with the place in the model where the fault is."""

from __future__ import annotations


class TconvcError(Exception):
    """A model, an option or an array is at fault.

    :ivar node: name of the node at fault, where one is.
    :ivar operator: its operator, as ONNX spells it.
    :ivar attribute: the attribute at fault, as ONNX spells it.
    """

    node: str | None = None
    operator: str | None = None
    attribute: str | None = None


class ArgumentError(TconvcError, ValueError):
    """What a call was given does not fit the model, or is no value that is accepted."""
