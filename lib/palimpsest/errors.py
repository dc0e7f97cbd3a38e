"""The one exception for bad input: its message names what was found, what was wanted, why, and what to do next."""


class InputError(ValueError):
    """Raised for anything the user can mend: a study file, a data file, a model that does not fit.

    The command line prints the message without a traceback and exits with 2. Nothing already computed is removed.
    """
