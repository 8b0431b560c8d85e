"""Documents, indexes and queries from a seed, with collisions on purpose: few fields, few values, every operator."""

from __future__ import annotations

import random
from typing import Any

FIELDS = ("a", "b", "c", "a.b", "a.c", "c.0", "b.a.c", "_id", "Zz", "é")
STRINGS = ("", "a", "A", "b", "ab", "aB", "é", "e", "z", "10", "9", "_x", "a\u0001", "<&>", "中")
SCALARS = (None, True, False, 0, 1, -1, 2, 5, 1.5, -0.0, 10**10, 2.5e25, *STRINGS)
PATTERNS = ("a", "^a", "b$", ".", "^.$", "[a-z]+", "(a|b)+", "^$", "\\d+", "\\w", "(?i)A", "(", "a{2", "é")


class Generator:
    """Everything that one differential case needs, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 2) -> Any:
        """A JSON value."""
        kind = self.random.random()
        if depth == 0 or kind < 0.6:
            return self.random.choice(SCALARS)
        if kind < 0.8:
            return [self.value(depth - 1) for _ in range(self.random.randrange(4))]
        return self.object(depth - 1)

    def object(self, depth: int = 2) -> dict[str, Any]:
        """A JSON object of the usual fields."""
        names = self.random.sample(("a", "b", "c", "Zz", "é"), self.random.randrange(5))
        return {name: self.value(depth) for name in names}

    def documents(self, count: int) -> dict[str, dict[str, Any]]:
        """Documents by key."""
        keys = self.random.sample([f"{one}{two}" for one in "aAbBéz0" for two in ("", "1", "a", "é", ":x")], count)
        return {key: self.object() for key in keys}

    def indexes(self) -> list[dict[str, Any]]:
        """Bodies of requests for indexes."""
        bodies = []
        for number in range(self.random.randrange(4)):
            fields = self.random.sample(("a", "b", "c", "a.b", "é"), self.random.randrange(1, 3))
            definition: dict[str, Any] = {"fields": fields}
            if self.random.random() < 0.2:
                definition["partial_filter_selector"] = {"a": {"$exists": True}}
            bodies.append({"index": definition, "ddoc": f"d{number % 2}", "name": f"n{number}", "type": "json"})
        return bodies

    def condition(self, depth: int) -> Any:
        """What stands behind a field."""
        random = self.random
        kind = random.random()
        if kind < 0.2:
            return self.value(1)
        if kind < 0.3 and depth:
            return {random.choice(("a", "b", "c", "0")): self.condition(depth - 1)}
        if kind < 0.35:
            return {"$gt": random.choice((None, 0, "a")), "$lt": random.choice(("b", 5, [], {}))}
        if kind < 0.4 and depth:
            return {"$not": self.condition(depth - 1)} if random.random() < 0.8 else {"$not": 1}
        if kind < 0.5 and depth:
            name = random.choice(("$elemMatch", "$allMatch", "$keyMapMatch"))
            inner = random.choice((self.selector, self.condition))(depth - 1)
            return {name: inner}
        name = random.choice(
            ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$all", "$exists", "$type", "$size", "$mod",
             "$regex", "$beginsWith", "$bad")
        )  # fmt: skip
        if random.random() < 0.03:
            return {name: self.value(1)}
        values = [self.value(1) for _ in range(random.randrange(4))]
        arguments = {
            "$in": values, "$nin": values, "$all": values, "$exists": random.random() < 0.5,
            "$type": random.choice(("null", "boolean", "number", "string", "array", "object", "x")),
            "$size": random.randrange(4), "$mod": [random.choice((1, 2, 3, -2)), random.choice((0, 1, -1))],
            "$regex": random.choice(PATTERNS), "$beginsWith": random.choice(STRINGS),
        }  # fmt: skip
        return {name: arguments.get(name, self.value(1))}

    def selector(self, depth: int = 3) -> dict[str, Any]:
        """A selector: mostly valid, sometimes not."""
        random = self.random
        kind = random.random()
        if depth and kind < 0.25:
            return {
                random.choice(("$and", "$or", "$nor")): [self.selector(depth - 1) for _ in range(random.randrange(4))]
            }
        if depth and kind < 0.32:
            return {"$not": self.selector(depth - 1)}
        if kind < 0.34:
            return {}
        names = random.sample(FIELDS, 1 if random.random() < 0.6 else 2)
        return {name: self.condition(depth) for name in names}

    def query(self) -> dict[str, Any]:
        """A query with options."""
        random = self.random
        query: dict[str, Any] = {"selector": self.selector(), "limit": random.choice((1, 2, 5, 100, 100, 100))}
        if random.random() < 0.3:
            fields = random.sample(("a", "b", "c", "a.b", "_id"), random.randrange(1, 3))
            descending = random.random() < 0.5
            query["sort"] = [{field: "desc"} for field in fields] if descending else list(fields)
        if random.random() < 0.25:
            query["fields"] = random.sample(("a", "b", "c", "a.b", "b.a", "_id"), random.randrange(4))
        if random.random() < 0.15:
            query["use_index"] = random.choice(("d0", "d1", "_design/d0", ["d0", "n0"], ["d1", "n1"], "none"))
        if random.random() < 0.1:
            query["skip"] = random.randrange(3)
        if random.random() < 0.03:
            query[random.choice(("sort", "fields", "use_index", "limit", "skip", "what"))] = random.choice(
                (1, "x", -1, {})
            )
        return query
