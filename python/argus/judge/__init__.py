"""Judgement: incidents and ranked causes, pure functions over records."""
