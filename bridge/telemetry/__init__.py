"""How the service is seen: metrics and logs. Loops and control use it; plugs and the journal never do."""
