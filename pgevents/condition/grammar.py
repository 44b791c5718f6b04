"""The words of the grammar, and how tightly each operator binds.

Source of the levels: PostgreSQL manual, "Operator Precedence", and the %left and %nonassoc lines of its gram.y.
"""

from pgevents.condition.kind import CAST_NAMES

FUNCTIONS = {"lower": (1, 1), "upper": (1, 1), "length": (1, 1), "abs": (1, 1), "coalesce": (1, 100), "left": (2, 2)}
"""The functions a condition may call, with the fewest and most arguments."""

OR, AND, NOT, IS, COMPARISON, LIKE, EXTRACT, SUM, PRODUCT, COLLATE, MINUS, CAST = range(1, 13)
SIGNS = {
    **dict.fromkeys(("=", "<>", "!=", "<", "<=", ">", ">="), COMPARISON),
    **dict.fromkeys(("->", "->>"), EXTRACT),
    **dict.fromkeys(("+", "-"), SUM),
    **dict.fromkeys(("*", "/", "%"), PRODUCT),
    "::": CAST,
}
WORDS = {
    "or": OR,
    "and": AND,
    "is": IS,
    "isnull": IS,
    "notnull": IS,
    "not": LIKE,
    "in": LIKE,
    "between": LIKE,
    "like": LIKE,
    "ilike": LIKE,
    "collate": COLLATE,
}
KNOWN = (*WORDS, "null", "true", "false", "unknown", "distinct", "from", "escape", "cast", "as", "new", "old")
REFUSED_WORDS = {
    "case": "CASE",
    "select": "a subquery",
    "exists": "a subquery",
    "any": "ANY",
    "all": "ALL",
    "some": "SOME",
    "array": "an array",
    "row": "a row",
    "similar": "SIMILAR TO",
    "current_date": "current_date, which is another every day,",
    "current_timestamp": "current_timestamp, which is another every time,",
}
REFUSED_SIGNS = {
    "~": "a regular expression",
    "!~": "a regular expression",
    "~*": "a regular expression",
    "||": "||",
    "@>": "@>",
    "<@": "<@",
    "#>": "#>",
    "#>>": "#>>",
    "^": "^",
}

TYPE_WORDS = frozenset(name.split()[0] for name in CAST_NAMES)
