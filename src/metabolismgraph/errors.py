"""What can go wrong, told apart by the exit codes of the command line."""


class InputError(ValueError):
    """The input is wrong: a file, a key of the configuration, or data that cannot answer the question.

    The message is one line: what is wrong, where, and what to do. The command line ends with exit code 2.

    Example:
        >>> import metabolismgraph as mg
        >>> try:
        ...     mg.read("no_such.xml", "data.csv")
        ... except mg.InputError as error:
        ...     print(error)
        no_such.xml: no such file; check the path
    """


class SimulationDivergedError(RuntimeError):
    """A simulated trajectory left the range of finite numbers (exit code 1)."""


class FirewallError(RuntimeError):
    """Training touched something it must not touch, such as a frozen array (exit code 1)."""


class TrainingFailedError(RuntimeError):
    """The training process ended without a result (exit code 1)."""
