"""Exceptions whose one-line message is meant for users: it names the wrong value and says what would be right."""


class UserError(ValueError):
    """A mistake in the input of a user; the command line prints it and exits with code 2."""


class ArtifactError(UserError):
    """A saved directory is missing, damaged, or does not belong with the others."""


class DataError(UserError):
    """A data file does not have the expected format."""


class RecipeError(UserError):
    """A training recipe has an unknown key or a value outside its range."""


class TrainingError(UserError):
    """A loss, gradient or weight is not finite; the message says where, and what may help."""


class WeightsError(UserError):
    """Base weights or a data set cannot be found, downloaded or verified."""


class RequestError(UserError):
    """A recommendation request names something that does not exist or is out of bounds."""


class Interrupted(Exception):
    """A long task was interrupted and has saved its state; the command line exits with code 130."""
