"""Kafka for whoever needs it: how clusters are reached, and what their failures mean for a loop."""
