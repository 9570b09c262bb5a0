"""Services: the collector loop, replay, drill, doctor."""
