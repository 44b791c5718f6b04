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
    "when": "WHEN before a condition",
    "where": "WHERE before a condition",
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
    "==": "==",
    "<=>": "<=>",
    "&&": "&&",
    "&": "&",
    "!": "!",
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

_ELEMENTS = "Write IN ('a', 'b') for one of several literals. What is in an array cannot be asked for."
_DOCUMENT = "Read from JSON with -> and ->>."
HINTS = {
    **dict.fromkeys(("any", "some", "array"), _ELEMENTS),
    "all": "Write NOT IN ('a', 'b') for none of several literals. What is in an array cannot be asked for.",
    **dict.fromkeys(("when", "where"), "Begin with what comes behind it."),
    "==": "Write = alone.",
    "<=>": "Write IS NOT DISTINCT FROM.",
    **dict.fromkeys(("&&", "&"), "Write AND between conditions. What is in an array cannot be asked for."),
    "!": "Write NOT, or <> for not equal.",
    "||": "Write OR between conditions. Texts cannot be put together.",
    **dict.fromkeys(("~", "!~", "~*"), "Use LIKE or ILIKE."),
    **dict.fromkeys(("@>", "<@", "#>", "#>>"), _DOCUMENT),
}
"""What to write in place of a word or sign that is refused."""

_OPERATIONS = 'Give the rule operations = ["insert"], or others.'
_TABLES = 'Give the rule tables = ["schema.table"].'
TRIGGER_WORDS = {
    "tg_op": _OPERATIONS,
    **dict.fromkeys(("tg_table_name", "tg_table_schema", "tg_relname", "tg_relid"), _TABLES),
}
"""Variables of a trigger function, and what says the same in a rule."""

TYPE_WORDS = frozenset(name.split()[0] for name in CAST_NAMES)
