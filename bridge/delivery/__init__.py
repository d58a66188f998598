"""The lower half: from the journal to the sinks. It knows the journal and never a provider."""
