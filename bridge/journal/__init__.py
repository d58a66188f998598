"""The middle: the durable log between the halves, and the only place where they touch."""
