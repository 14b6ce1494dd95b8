"""Telling others how a run ended: a JSON summary to a webhook or a file."""
