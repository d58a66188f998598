"""Demonstration rooms: simulators, a receiver and a broker, and the proof of what went through. Extra `demo`."""
