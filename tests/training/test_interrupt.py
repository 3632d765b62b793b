"""Signals as wishes, also where one listener stands inside another."""

import signal

import pytest

from spikeless.training.interrupt import Interrupt, exit_code, stop_signals


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


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_what_a_process_was_started_to_ignore_it_ignores(name):
    """As under `nohup`."""
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(number)
        assert interrupt.signal_name is None
        assert number not in stop_signals()
    finally:
        signal.signal(number, before)
    assert number in stop_signals()


def test_exit_codes_are_those_of_a_shell():
    codes = {"SIGHUP": 129, "SIGINT": 130, "SIGUSR1": 138, "SIGTERM": 143}
    assert {each.name: exit_code(each.name) for each in stop_signals()} == codes
