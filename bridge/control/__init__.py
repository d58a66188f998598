"""The outside hand: health, metrics and the API. It looks on and steers; it carries no event."""
