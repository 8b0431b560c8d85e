"""For people who test what they build on sovchain.

General layout: `plugin` is the pytest plugin, which brings the fixture `sovchain_network`.
"""

__all__: list[str] = []
