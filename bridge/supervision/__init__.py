"""Who keeps sessions alive: the only room that waits and tries again. It knows no half, only the shape of a session."""
