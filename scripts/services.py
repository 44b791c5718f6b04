"""Make sure that the servers the tests start are installed, or say in plain words what is missing."""

import sys

from pgevents.demo.install import install_packages, newest_wal2json_packages
from pgevents.demo.postgres_binaries import system_binaries
from pgevents.demo.rabbitmq import rabbitmq_scripts


def main() -> int:
    return 0 if _provide_wal2json() and _provide_rabbitmq() else 1


def _provide_wal2json() -> bool:
    if any(binaries.has_wal2json for binaries in system_binaries()):
        return True
    problem = install_packages(newest_wal2json_packages(), say=print)
    return _report("PostgreSQL with wal2json (Debian 12: postgresql-15-wal2json)", problem)


def _provide_rabbitmq() -> bool:
    if rabbitmq_scripts() is not None:
        return True
    return _report("rabbitmq-server", install_packages(["rabbitmq-server"], say=print))


def _report(wanted: str, problem: str) -> bool:
    if problem:
        print(f"The tests need {wanted}: {problem}", file=sys.stderr)
    return not problem


if __name__ == "__main__":
    sys.exit(main())
