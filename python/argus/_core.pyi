# The compiled module, to the type checker: its classes are wrapped and typed in argus.engine, which alone imports it.
from typing import Any

def __getattr__(name: str) -> Any: ...
