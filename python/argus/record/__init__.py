"""The record: a tamper-evident journal of decisions, and its verification."""
