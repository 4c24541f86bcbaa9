"""Exceptions of the package, with their exit codes on the command line."""


class InputError(ValueError):
    """An invalid input: a file, a key of the configuration, or data that are not sufficient.

    The message is one line: the problem, where it is, and what to do. Exit code 2 on the command line.

    Example:
        >>> import metabolismgraph as mg
        >>> try:
        ...     mg.read("no_such.xml", "data.csv")
        ... except mg.InputError as error:
        ...     print(error)
        no_such.xml: no such file; check the path
    """

    def __str__(self) -> str:
        # Names in foreign files can contain any character.
        return " ".join(super().__str__().splitlines())


def check_argument(name: str, value: object, expected: type, advice: str) -> None:
    """Check the class of an argument of a public function.

    Raises:
        InputError: it is of another class.

    Example:
        >>> check_argument("observations", "data.csv", dict, "read the files first")
        Traceback (most recent call last):
        metabolismgraph.errors.InputError: observations: expected dict, not str; read the files first
    """
    if not isinstance(value, expected):
        raise InputError(f"{name}: expected {expected.__name__}, not {type(value).__name__}; {advice}")


class SimulationDivergedError(RuntimeError):
    """A simulated trajectory diverged (exit code 1)."""


class FirewallError(RuntimeError):
    """Training changed or accessed something that is forbidden, such as a frozen array (exit code 1)."""


class TrainingFailedError(RuntimeError):
    """The training process ended without a result (exit code 1)."""


class TrainingLostError(TrainingFailedError):
    """The training process was killed from outside, or its disk is full: the training itself is not to blame."""
