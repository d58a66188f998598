"""The webhook sink: what a receiver is sent, what its answers mean, and how it is called."""

from bridge.delivery.sinks.webhook.plug import PLUG, WebhookSink, build
from bridge.delivery.sinks.webhook.settings import WebhookSettings

__all__ = ["PLUG", "WebhookSettings", "WebhookSink", "build"]
