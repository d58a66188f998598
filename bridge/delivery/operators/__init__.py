"""Operators' webhooks: who is told that an endpoint fails, was disabled, or recovered."""

from bridge.delivery.operators.operator import Operator
from bridge.delivery.operators.settings import OperatorSettings

__all__ = ["Operator", "OperatorSettings"]
