"""The C++ core behind typed Python: the only package that imports argus._core."""
