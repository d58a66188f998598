"""The control room, over real sockets."""
