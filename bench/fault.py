"""The one way a benchmark fails; missing a target is not one."""


class WrongRun(Exception):
    """A run did not do what it should have, so that its figures mean nothing."""
