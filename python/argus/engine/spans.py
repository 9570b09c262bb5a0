"""OTLP bodies read and mapped by the compiled core."""

from __future__ import annotations

from argus._core import OtlpDecoder, otlp_fate

__all__ = ["OtlpDecoder", "otlp_fate"]
