"""Patterns by which sinks choose events. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import translate
from typing import Annotated

from pydantic import Field

Pattern = Annotated[str, Field(min_length=1)]
"""`*` stands for any characters, `?` for one, `[ab]` for one of these."""


def any_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """What matches whole texts that fit one of the patterns."""
    return re.compile("|".join(map(translate, patterns)))
