"""The one exception that means: the user's input is at fault, not the program."""


class InputError(Exception):
    """Bad input: a file, a value or an argument that cannot be used.

    The message is one line and says what was expected, what was found and where. The command line
    prints it without a traceback and ends with exit code 2.
    """
