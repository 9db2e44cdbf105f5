"""Errors that speak to a person: one line, the value that was wrong, what would be right."""


class UserError(ValueError):
    """A mistake in what was asked or given; the command line prints it and exits with code 2."""


class ArtifactError(UserError):
    """A saved directory is missing, damaged, or does not belong with the others."""


class DataError(UserError):
    """A data file cannot be read as what it claims to be."""


class RecipeError(UserError):
    """A training recipe holds an unknown key or a value outside its range."""


class TrainingError(UserError):
    """Training left the finite numbers; it says where, and what may help."""


class WeightsError(UserError):
    """Base weights or a data set cannot be found, fetched or verified."""


class RequestError(UserError):
    """A recommendation request names something that does not exist or is out of bounds."""


class Interrupted(Exception):
    """Long work was asked to stop and has saved where it is; the command line exits with code 130."""
