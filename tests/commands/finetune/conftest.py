"""Ctrl-C for the tests that send it."""

import signal

import pytest


@pytest.fixture(autouse=True)
def ctrl_c_is_heeded():
    """A shell starts what runs in its background with Ctrl-C ignored, these tests among it: then none would arrive."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
