"""Signals as wishes, also where one listener stands inside another."""

import signal

import pytest

from spikeless.training.interrupt import Interrupt


def test_what_stops_a_run_stops_the_grid_around_it():
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as grid:
        with Interrupt() as first:
            assert (first.signal_name, grid.signal_name) == (None, None)
            signal.raise_signal(signal.SIGTERM)
            assert (first.signal_name, grid.signal_name) == ("SIGTERM", "SIGTERM")
        with Interrupt() as second:
            assert second.signal_name is None
            signal.raise_signal(signal.SIGTERM)  # a grid passes on what it was told when no run listened
        assert (second.signal_name, grid.signal_name) == ("SIGTERM", "SIGTERM")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_ctrl_c_stops_at_once():
    with Interrupt() as grid, Interrupt() as run:
        signal.raise_signal(signal.SIGINT)
        assert (run.signal_name, grid.signal_name) == ("SIGINT", "SIGINT")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_that_nobody_inside_heard_is_the_grids_alone():
    with Interrupt() as grid:
        signal.raise_signal(signal.SIGTERM)
        with Interrupt() as run:
            assert run.signal_name is None
    assert grid.signal_name == "SIGTERM"
