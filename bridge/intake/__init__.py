"""The upper half: listen, normalise, journal. It knows the journal and never a sink."""
