"""The wires: ZeroMQ, the emitter, JSON lines."""
