"""The two ways in which work can go wrong, told apart for the command line's exit codes."""


class InputError(ValueError):
    """The input is wrong; the message is one line: what is wrong, where, and what to do (exit code 2)."""


class SimulationDivergedError(RuntimeError):
    """A simulated trajectory left the range of finite numbers (exit code 1)."""


class FirewallError(RuntimeError):
    """Training touched something it must not touch, such as a frozen array (exit code 1)."""


class TrainingFailedError(RuntimeError):
    """The training process ended without a result (exit code 1)."""
