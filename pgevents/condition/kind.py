"""The types a condition knows, by the OIDs of pg_type, and how PostgreSQL groups them."""

from typing import NamedTuple

BOOL, BYTEA, INT8, INT2, INT4, TEXT, JSON, FLOAT4, FLOAT8 = 16, 17, 20, 21, 23, 25, 114, 700, 701
UNKNOWN, BPCHAR, VARCHAR, DATE, TIME, TIMESTAMP, TIMESTAMPTZ = 705, 1042, 1043, 1082, 1083, 1114, 1184
NUMERIC, UUID, JSONB, OID = 1700, 2950, 3802, 26
INET, CIDR = 869, 650
FIRST_CUSTOM = 16_384

# What the input functions skip at both ends.
SPACE = " \t\n\v\f\r"

INTEGERS = (INT2, INT4, INT8)
# Each converts implicitly to those behind it.
NUMBERS = (INT2, INT4, INT8, NUMERIC, FLOAT4, FLOAT8)
FLOATS = (FLOAT4, FLOAT8)
TEXTS = (TEXT, VARCHAR, BPCHAR)
MOMENTS = (DATE, TIMESTAMP, TIMESTAMPTZ)

CAST_NAMES = {
    "bool": BOOL,
    "boolean": BOOL,
    "int2": INT2,
    "smallint": INT2,
    "int": INT4,
    "int4": INT4,
    "integer": INT4,
    "int8": INT8,
    "bigint": INT8,
    "numeric": NUMERIC,
    "decimal": NUMERIC,
    "float4": FLOAT4,
    "real": FLOAT4,
    "float": FLOAT8,
    "float8": FLOAT8,
    "double precision": FLOAT8,
    "text": TEXT,
    "varchar": VARCHAR,
    "character varying": VARCHAR,
    "date": DATE,
    "time": TIME,
    "time without time zone": TIME,
    "timestamp": TIMESTAMP,
    "timestamp without time zone": TIMESTAMP,
    "timestamptz": TIMESTAMPTZ,
    "timestamp with time zone": TIMESTAMPTZ,
    "uuid": UUID,
}

# Types of which two values are equal exactly when PostgreSQL prints them alike: oid, xid, cid, xid8, pg_lsn, "char",
# name, bit, varbit, macaddr, macaddr8, inet, cidr, ranges of whole numbers and days.
_SCALARS_EQUAL_AS_PRINTED = frozenset(
    {OID, 28, 29, 5069, 3220, 18, 19, 1560, 1562, 829, 774, 869, 650, 3904, 3926, 3912}
)
# Arrays of boolean, smallint, integer, bigint, text, varchar, uuid, date, timestamp, timestamptz, time, bytea.
_ARRAYS_EQUAL_AS_PRINTED = frozenset({1000, 1005, 1007, 1016, 1009, 1015, 2951, 1182, 1115, 1185, 1183, 1001})
EQUAL_AS_PRINTED = _SCALARS_EQUAL_AS_PRINTED | _ARRAYS_EQUAL_AS_PRINTED


class Enum(NamedTuple):
    """An enum's name, for a message, and its labels in their order."""

    name: str
    labels: tuple[str, ...]
