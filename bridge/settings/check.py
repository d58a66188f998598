"""The only place where a configuration file becomes settings: every mistake is found at once, each with its line.

Any setting can be overridden by an environment variable such as `JOBBRIDGE__CONTROL__PORT` or
`JOBBRIDGE__SOURCES__AUVY_PROD__TOKEN`, where a `-` in a name is written `_`. Its value is text, or YAML where it
begins with a bracket, brace or quote; nothing, `~` and `null` stand for no value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bridge.errors import BridgeError
from bridge.plug import NAME
from bridge.secret import Referenced, References
from bridge.settings import yaml_source
from bridge.settings.shape import PLUGGED, Catalogue, Settings, fields
from bridge.settings.yaml_source import Document, Keys, Mistake, dotted

ENV_PREFIX = "JOBBRIDGE__"
MISTAKES_MAX = 100
"""Of one section, so that a file of rubbish cannot fill a screen for minutes."""

M = TypeVar("M", bound=BaseModel)


class ConfigError(BridgeError):
    """The configuration cannot be used: `mistakes` holds all that is wrong, the text one line for each."""

    reason = "config"

    def __init__(self, file: str, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = list(mistakes)
        super().__init__("\n".join(_line(file, mistake) for mistake in mistakes))


def load(path: Path, environ: Mapping[str, str], providers: Catalogue, sinks: Catalogue) -> Settings:
    """The settings in the file at `path`, with the overrides in `environ`. Raises `ConfigError`."""
    references = References(environ)
    document = yaml_source.read(path, references.expand)
    settings = None
    if document.data is not None:
        draft = _Draft(document, {"sources": providers, "sinks": sinks})
        overrides = [name for name in environ if name.upper().startswith(ENV_PREFIX)]
        for name in sorted(overrides, key=lambda name: (name.count("__"), name)):  # a whole before its parts
            draft.override(name, references.variable(name))
        settings = draft.settings()
    if settings is None or document.mistakes:
        mistakes = sorted(document.mistakes, key=lambda mistake: mistake.line or 0)
        raise ConfigError(str(path), [replace(each, text=references.hide(each.text)) for each in mistakes])
    return settings


class _Draft:
    """A document on its way to being settings. What is wrong with it is added to its mistakes."""

    def __init__(self, document: Document, catalogues: Mapping[str, Catalogue]) -> None:
        self._document = document
        self._catalogues = catalogues
        self._variables: dict[Keys, str] = {}
        """Which settings an environment variable has overridden."""

    def override(self, variable: str, text: Referenced) -> None:
        known = {_variable(keys): keys for keys in self._paths()}
        keys = known.get(variable.upper())
        if keys is None:
            self._wrong(variable, None, f"names no setting{_meant(variable.upper(), known)}")
            return
        value: Any = text
        if text[:1] in {"[", "{", '"', "'"} or text in {"", "~", "null"}:
            document = yaml_source.parse(text, Referenced)
            value = document.data
            for mistake in document.mistakes:
                self._wrong(variable, None, mistake.text)
        self._variables[keys] = variable
        self._forget(dotted(keys))
        place = self._document.data
        for key in keys[:-1]:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[keys[-1]] = value

    def settings(self) -> Settings | None:
        """The settings, or None; they are only as good as the document has no mistakes."""
        data = {section: options for section, options in self._document.data.items() if options is not None}
        return self._judge(Settings, data | {section: self._plugged(section) for section in PLUGGED}, ())

    def _paths(self) -> Iterable[Keys]:
        """Where every setting stands that this document has or could have."""
        yield from (keys for keys, _ in fields(Settings))
        for section, word in PLUGGED.items():
            entries = self._document.data.get(section)
            for name, options in entries.items() if isinstance(entries, dict) else ():
                kind = options.get(word) if isinstance(options, dict) else None
                plug = self._catalogues[section].get(kind) if isinstance(kind, str) else None
                yield from (keys for keys, _ in fields(plug.settings, (section, name))) if plug else ()

    def _plugged(self, section: str) -> dict[str, BaseModel]:
        entries = self._document.data.get(section)
        if not isinstance(entries, dict) or not entries:
            self._mistake((section,), "must name at least one, as a mapping from names to options")
            return {}
        judged = {name: self._plug(section, name, options) for name, options in entries.items()}
        return {name: options for name, options in judged.items() if options is not None}

    def _plug(self, section: str, name: str, options: Any) -> BaseModel | None:
        at, word, catalogue = (section, name), PLUGGED[section], self._catalogues[section]
        kinds = ", ".join(sorted(catalogue))
        if not re.fullmatch(NAME, name):
            self._mistake(at, "a name is 1 to 63 lower-case letters, digits and hyphens, and begins with no hyphen")
        elif not isinstance(options, dict):
            self._mistake(at, "must be a mapping of options")
        elif not isinstance(kind := options.get(word), str):
            self._mistake((*at, word), f"is required, one of: {kinds}")
        elif kind not in catalogue:
            self._mistake((*at, word), f"no {word} is called {kind!r}{_meant(kind, catalogue)} (there are: {kinds})")
        else:
            return self._judge(catalogue[kind].settings, options, at)
        return None

    def _judge(self, model: type[M], data: dict[str, Any], at: Keys) -> M | None:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for flaw in error.errors(include_url=False)[:MISTAKES_MAX]:
                keys = _place(flaw, data)
                self._mistake((*at, *keys), _sentence(flaw, keys, model))
            return None

    def _mistake(self, keys: Keys, text: str) -> None:
        wholes = [keys[:length] for length in range(len(keys), -1, -1)]
        for whole in wholes:
            if whole in self._variables:
                rest = dotted(keys[len(whole) :])
                self._wrong(self._variables[whole], None, f"{rest}: {text}" if rest else text)
                return
        line = next((self._document.lines[whole] for whole in wholes if whole in self._document.lines), None)
        self._wrong(dotted(keys), line, text)

    def _forget(self, path: str) -> None:
        """What is wrong in the file with a value that is overridden does not matter."""
        mistakes = self._document.mistakes
        mistakes[:] = [each for each in mistakes if not f"{each.path}.".startswith(f"{path}.")]

    def _wrong(self, path: str, line: int | None, text: str) -> None:
        if all(mistake.path != path for mistake in self._document.mistakes):  # what follows from the first is noise
            self._document.mistakes.append(Mistake(path, line, text))


def _variable(keys: Keys) -> str:
    return ENV_PREFIX + "__".join(map(str, keys)).replace("-", "_").upper()


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word[:100], known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _place(flaw: ErrorDetails, data: Any) -> Keys:
    """Where in the data a flaw is. Pydantic's own location also names the members of a union that were tried."""
    keys: list[str | int] = []
    for key in flaw["loc"]:
        inside = key in data if isinstance(data, dict) else isinstance(data, list) and isinstance(key, int)
        if inside:
            keys.append(key)
            data = data[key]
    if flaw["type"] == "missing":
        keys.append(flaw["loc"][-1])
    return tuple(keys)


_SENTENCES = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text: put it in quotes",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
}


def _sentence(flaw: ErrorDetails, keys: Keys, model: type[BaseModel]) -> str:
    """Pydantic's finding as a plain sentence, without the value it speaks of."""
    if flaw["type"] == "extra_forbidden":
        siblings = [str(known[-1]) for known, _ in fields(model) if _stands_for(known[:-1], keys[:-1])]
        return f"is no setting here{_meant(str(keys[-1]), siblings)}"
    if flaw["input"] is None:
        return "has no value: give one, or leave the key out"
    if flaw["type"] in _SENTENCES:
        return _SENTENCES[flaw["type"]]
    return re.sub(r"^[A-Z]\w+ should ", "must ", re.sub(r"^(Value error|Assertion failed), ", "", flaw["msg"]))


def _stands_for(pattern: Keys, keys: Keys) -> bool:
    return len(pattern) == len(keys) and all(
        one == other or one in {"<name>", "<n>"} for one, other in zip(pattern, keys, strict=True)
    )


def _line(file: str, mistake: Mistake) -> str:
    where = "environment" if mistake.path.upper().startswith(ENV_PREFIX) else file
    parts = [where if mistake.line is None else f"{where}:{mistake.line}", mistake.path, mistake.text]
    return ": ".join(part for part in parts if part)
