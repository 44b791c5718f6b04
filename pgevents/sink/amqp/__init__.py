"""RabbitMQ, over AMQP 0-9-1 with publisher confirms."""

from pgevents.sink.amqp.opening import open as open
