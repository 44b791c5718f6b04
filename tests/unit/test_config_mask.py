import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.extensions import make_dsn

from pgevents.mask import mask_dsn, mask_url, mask_value


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://u:hunter2@h:5672/v?exchange=e", "amqp://u:***@h:5672/v?exchange=e"),
        ("amqps://u:hun@ter/2?@h/v", "amqps://u:***@h/v"),
        ("amqp://:hunter2@h", "amqp://:***@h"),
        ("amqp://u@h/v", "amqp://u@h/v"),
        ("amqp://h:5672/v", "amqp://h:5672/v"),
        ("https://h/hook?token=hunter2&a=b", "https://h/hook?token=***&a=b"),
        ("file:/var/lib/events.ndjson", "file:/var/lib/events.ndjson"),
        ("stdout:", "stdout:"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:hunter2@h/d", "postgresql://u:***@h/d"),
        ("postgres://u:hunter2@h1,h2:5433/d", "postgres://u:***@h1,h2:5433/d"),
        (
            "postgresql://h/d?user=u&password=hunter2&sslmode=require",
            "postgresql://h/d?user=u&password=***&sslmode=require",
        ),
        ("postgresql://h/d?sslpassword=hunter2", "postgresql://h/d?sslpassword=***"),
        ("postgresql://h/d?password=a#hun ter2;x&user=u", "postgresql://h/d?password=***&user=u"),
        ("host=h password=hunter2 dbname=d", "host=h password=*** dbname=d"),
        ("password = 'hun\\'ter2 x' host=h", "password = *** host=h"),
        ("host=h password=hun\\ ter2", "host=h password=***"),
        ("host=h PASSWORD=hunter2", "host=h PASSWORD=***"),
        ("host=h password='hunter2 and no end", "host=h password=***"),
        ("host=h sslpassword=hunter2", "host=h sslpassword=***"),
        ("dbname=postgresql://u:hunter2@h/d", "dbname=postgresql://u:***@h/d"),
        ("host=h passfile=/p", "host=h passfile=/p"),
    ],
)
def test_a_connection_string_is_shown_without_its_passwords(dsn: str, shown: str) -> None:
    assert mask_dsn(dsn) == shown


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_no_password_that_libpq_takes_is_shown(password: str) -> None:
    secret = f"<{password}>"

    assert secret not in mask_dsn(make_dsn(host="h", user="u", password=secret, dbname="d"))


@given(st.text())
def test_masking_never_raises(text: str) -> None:
    mask_dsn(text)
    mask_url(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("amqp://u:hunter2@h/v?exchange=e", "amqp://u:***@h/v?exchange=e"),
        ("amqp://u@h/v", "amqp://u@h/v"),
        ("amqp:/u:hunter2@h/v", "amqp:/u:***@h/v"),
        ("amqp//u:hunter2@h/v", "amqp//u:***@h/v"),
        ("u:hunter2@h/v", "u:***@h/v"),
        ("hun@ter2@h/v", "***@h/v"),
        ("amqp://h/v?passwrod=hunter2&exchange=e", "amqp://h/v?passwrod=***&exchange=e"),
        ("postgresql://u:hunter2@h/d?sslmode=require", "postgresql://u:***@h/d?sslmode=require"),
        ("host=h user=u@h password=hunter2", "host=h user=u@h password=***"),
        ("public.orders", "public.orders"),
        ("", ""),
    ],
)
def test_a_value_that_is_no_url_shows_no_password_either(value: str, shown: str) -> None:
    assert mask_value(value) == shown
