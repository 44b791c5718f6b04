"""The faults there are, each one small function: what breaks before its ``yield``, and what heals after it."""

import os
import signal
import time
from contextlib import suppress
from random import Random

import psycopg2

from chaos.consumer import EXCHANGE, QUEUE
from chaos.fault import Breaking, BrokenRig, Catalogue, Target
from chaos.link_fault import put_link_faults
from chaos.rig import Rig
from chaos.servers import WAL_SENDER_TIMEOUT_S
from pgevents.demo.process import eventually

CATALOGUE = Catalogue()
put_link_faults(CATALOGUE)
fault = CATALOGUE.fault

STREAM, POSTGRES, BROKER = Target.STREAM, Target.POSTGRES, Target.BROKER

# As private nodes have them in their configuration.
_MEMORY_LIMIT = ("absolute", "1GB")
_DISK_LIMIT = "50MB"
_FAST_STOP_S = 12.0
# So long that everything in flight has been returned: what is written before the queue is bound again and looked at
# behind that overtakes what was returned, and no publisher can help it.
_UNBOUND_S = (4.0, 8.0)
_FEW = 20
_FULL = "full"
_ALTER_DEADLINE_S = 60.0


@fault("F01", "kill-stream", STREAM)
def kill_stream(rig: Rig, _chance: Random) -> Breaking:
    rig.stream.kill()
    rig.restart_stream()
    yield


@fault("F04", "stop-stream", STREAM)
def stop_stream(rig: Rig, _chance: Random) -> Breaking:
    rig.stream.stop()
    rig.restart_stream()
    yield


@fault("F06", "freeze-stream", STREAM, lasts_s=(WAL_SENDER_TIMEOUT_S + 1, WAL_SENDER_TIMEOUT_S + 4))
def freeze_stream(rig: Rig, _chance: Random) -> Breaking:
    """Longer than wal_sender_timeout."""
    rig.stream.send(signal.SIGSTOP)
    yield
    rig.stream.send(signal.SIGCONT)


@fault("F20", "terminate-walsender", POSTGRES)
def terminate_walsender(rig: Rig, _chance: Random) -> Breaking:
    rig.ask("SELECT pg_terminate_backend(%s)", rig.walsender)
    yield


@fault("F26", "freeze-walsender", POSTGRES, lasts_s=(2.0, 8.0))
def freeze_walsender(rig: Rig, _chance: Random) -> Breaking:
    pid = rig.walsender
    _signal(pid, signal.SIGSTOP)
    yield
    _signal(pid, signal.SIGCONT)


@fault("F21", "crash-postgres", POSTGRES)
def crash_postgres(rig: Rig, _chance: Random) -> Breaking:
    rig.postgres.restart("immediate")
    yield


@fault("F22", "restart-postgres", POSTGRES)
def restart_postgres(rig: Rig, _chance: Random) -> Breaking:
    """A fast shutdown waits for whoever reads a slot."""
    began = time.monotonic()
    rig.postgres.stop("fast")
    if (took_s := time.monotonic() - began) > _FAST_STOP_S:
        rig.delays.append(f"PostgreSQL took {took_s:.0f} s to stop")
    rig.postgres.start()
    yield


@fault("F25", "kill-backend", POSTGRES)
def kill_backend(rig: Rig, _chance: Random) -> Breaking:
    """After which PostgreSQL restarts all others."""
    _signal(
        rig.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'chaos-writer' LIMIT 1") or 0,
        signal.SIGKILL,
    )
    yield
    rig.ask("SELECT 1")


@fault("F47", "change-columns", POSTGRES, lasts_s=(1.0, 4.0))
def change_columns(rig: Rig, chance: Random) -> Breaking:
    kind = chance.choice(("text", "int NOT NULL DEFAULT 7", "jsonb", "numeric DEFAULT random()"))
    _alter(rig, f"ADD COLUMN extra {kind}")
    yield
    _alter(rig, "DROP COLUMN extra")


@fault("F99", "change-identity", POSTGRES, lasts_s=(1.0, 4.0))
def change_identity(rig: Rig, _chance: Random) -> Breaking:
    _alter(rig, "REPLICA IDENTITY FULL")
    yield
    _alter(rig, "REPLICA IDENTITY DEFAULT")


@fault("F60", "kill-broker", BROKER)
def kill_broker(rig: Rig, _chance: Random) -> Breaking:
    rig.rabbitmq.kill()
    rig.rabbitmq.start()
    yield


@fault("F61", "stop-broker", BROKER, lasts_s=(0.0, 3.0))
def stop_broker(rig: Rig, _chance: Random) -> Breaking:
    rig.rabbitmq.ctl("stop_app")
    yield
    rig.rabbitmq.ctl("start_app")


@fault("F62", "close-connections", BROKER)
def close_connections(rig: Rig, _chance: Random) -> Breaking:
    rig.rabbitmq.ctl("close_all_connections", "--vhost", rig.name, "chaos")
    yield


@fault("F63", "memory-alarm", BROKER, lasts_s=(2.0, 9.0))
def memory_alarm(rig: Rig, _chance: Random) -> Breaking:
    rig.rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
    yield
    rig.rabbitmq.ctl("set_vm_memory_high_watermark", *_MEMORY_LIMIT)


@fault("F64", "disk-alarm", BROKER, lasts_s=(2.0, 9.0))
def disk_alarm(rig: Rig, _chance: Random) -> Breaking:
    rig.rabbitmq.ctl("set_disk_free_limit", "100000GB")
    yield
    rig.rabbitmq.ctl("set_disk_free_limit", _DISK_LIMIT)


@fault("F65", "delete-exchange", BROKER, Target.AMQP_LINK, lasts_s=_UNBOUND_S)
def delete_exchange(rig: Rig, _chance: Random) -> Breaking:
    """The stream declares it again by itself, with no queue bound to it."""
    rig.api("DELETE", f"/api/exchanges/{{vhost}}/{EXCHANGE}")
    yield
    rig.api("PUT", f"/api/exchanges/{{vhost}}/{EXCHANGE}", {"type": "topic", "durable": True})
    _bind(rig)


@fault("F66", "unbind-queue", BROKER, Target.AMQP_LINK, lasts_s=_UNBOUND_S)
def unbind_queue(rig: Rig, _chance: Random) -> Breaking:
    rig.api("DELETE", f"/api/bindings/{{vhost}}/e/{EXCHANGE}/q/{QUEUE}/%23")
    yield
    _bind(rig)


@fault("F70", "reject-publish", BROKER, lasts_s=(1.0, 6.0))
def reject_publish(rig: Rig, _chance: Random) -> Breaking:
    """Another queue that is full and nobody empties: it refuses what the consumer's queue has taken."""
    arguments = {"x-max-length": _FEW, "x-overflow": "reject-publish"}
    rig.api("PUT", f"/api/queues/{{vhost}}/{_FULL}", {"durable": True, "arguments": arguments})
    rig.api("POST", f"/api/bindings/{{vhost}}/e/{EXCHANGE}/q/{_FULL}", {"routing_key": "#"})
    yield
    rig.api("DELETE", f"/api/queues/{{vhost}}/{_FULL}")


@fault("F70", "fill-queue", BROKER, lasts_s=(1.0, 6.0), keeps_order=False)
def fill_queue(rig: Rig, _chance: Random) -> Breaking:
    """The consumer's own queue is full: it refuses an event, and takes one sent behind it once there is room."""
    rig.consumer.pause()
    limits = {"max-length": _FEW, "overflow": "reject-publish"}
    policy = {"pattern": f"^{QUEUE}$", "apply-to": "queues", "definition": limits}
    rig.api("PUT", "/api/policies/{vhost}/full", policy)
    yield
    rig.api("DELETE", "/api/policies/{vhost}/full")
    rig.consumer.resume()


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _alter(rig: Rig, action: str) -> None:
    """Change the table ``side``; whoever is in the way is waited for, but not for long at a time."""

    def altered() -> bool:
        try:
            rig.ask(f"SET lock_timeout = '1s'; ALTER TABLE side {action}")
        except (psycopg2.errors.LockNotAvailable, psycopg2.errors.DeadlockDetected):
            return False
        return True

    if not eventually(altered, deadline_s=_ALTER_DEADLINE_S):
        raise BrokenRig(f"ALTER TABLE side {action} gets no lock")


def _bind(rig: Rig) -> None:
    rig.api("POST", f"/api/bindings/{{vhost}}/e/{EXCHANGE}/q/{QUEUE}", {"routing_key": "#"})
