"""Sessions: exact money, identity of supervisors."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argus.errors import UsageError
from argus.guard import start_time_ns
from argus.services.sessions import own_identity, parse_usd


@given(st.integers(min_value=1, max_value=2**63 - 1))
def test_every_nano_usd_is_kept(nusd: int):
    assert parse_usd(f"{nusd // 10**9}.{nusd % 10**9:09d}", "budget") == nusd


@pytest.mark.parametrize("text", ["", "five", "nan", "inf", "-1", "0", "0.0000000001", "9223372037", "1,5"])
def test_an_impossible_amount_is_refused(text: str):
    with pytest.raises(UsageError, match="budget"):
        parse_usd(text, "budget")


def test_identity_is_pid_and_start_time():
    pid, start = own_identity()
    assert (pid, start) == (os.getpid(), start_time_ns(pid))
    assert start > 0
