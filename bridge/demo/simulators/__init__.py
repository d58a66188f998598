"""Simulated job APIs: real HTTP servers that speak the documented wire and misbehave as real ones do."""
