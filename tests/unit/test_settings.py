"""A configuration file becomes settings, or every one of its mistakes with its line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel, Field, SecretStr, model_validator

from bridge.delivery import sinks as real_sinks
from bridge.delivery.sink import SinkSettings
from bridge.intake import providers as real_providers
from bridge.intake.provider import SourceSettings
from bridge.plug import Plug
from bridge.secret import Secret
from bridge.settings import ConfigError, Settings, json_schema, load, settings_table

CONFIG = Path(__file__).parents[2] / "config"
HUSH = "s3cr3t-value-that-must-not-show"


class Rate(BaseModel, extra="forbid"):
    per_s: float = Field(5.0, gt=0, description="Requests a second.")


class Riverside(SourceSettings):
    token: Secret = Field(description="API key.")
    base_url: str = Field("https://riverside.example", description="Address | of the API.")
    rate: Rate | None = Field(None, description="Own limit.")

    @model_validator(mode="after")
    def _never_ftp(self) -> Riverside:
        if self.base_url.startswith("ftp:"):
            raise ValueError(f"base_url {self.base_url} must not be ftp")
        return self


class Drawer(SinkSettings):
    keys: list[Secret] = Field(default_factory=list, description="Keys of the drawer.")
    size_entries: int = Field(10, ge=1, description="How much goes in.")


class Shelf(SinkSettings):
    topic: str = Field("jobs", description="Where.")


def _built(*_: object) -> None:
    raise AssertionError("settings build no plugs")


PROVIDERS = {"riverside": Plug("riverside", Riverside, _built)}
SINKS = {"drawer": Plug("drawer", Drawer, _built), "shelf": Plug("shelf", Shelf, _built)}
ENVIRON = {"API_KEY": HUSH}

SOURCES = """\
sources:
  river-prod:
    provider: riverside
    token: ${API_KEY}
"""
GOOD = SOURCES + "sinks:\n  shelf: {kind: shelf}\n"


def settings(directory: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> Settings:
    path = directory / "config.yaml"
    path.write_text(text)
    return load(path, environ, PROVIDERS, SINKS)


def mistakes(directory: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> list[str]:
    """The lines of the error, without the directory."""
    with pytest.raises(ConfigError) as caught:
        settings(directory, text, environ)
    assert HUSH not in str(caught.value) + repr(caught.value) + repr(caught.value.mistakes)
    return str(caught.value).replace(f"{directory}/", "").splitlines()


def river(loaded: Settings) -> Riverside:
    source = loaded.sources["river-prod"]
    assert isinstance(source, Riverside)
    return source


def test_a_small_file_is_completed_with_defaults_and_the_plugs_own_models(tmp_path: Path) -> None:
    loaded = settings(tmp_path, GOOD)
    assert river(loaded).token.get_secret_value() == HUSH
    assert river(loaded).idle_timeout_s == 90
    assert isinstance(loaded.sinks["shelf"], Shelf)
    assert loaded.journal.url == "sqlite:////var/lib/jobbridge/journal.db"
    assert (loaded.control.host, loaded.control.port, loaded.control.token) == ("127.0.0.1", 8080, None)
    assert loaded.supervision.drain_timeout_s == 20
    assert (loaded.telemetry.log_level, loaded.telemetry.log_format) == ("info", "json")


def test_no_form_of_the_settings_shows_a_secret(tmp_path: Path) -> None:
    loaded = settings(tmp_path, GOOD + "control: {token: '${API_KEY}'}\n")
    shown = f"{loaded!r} {loaded} {loaded.model_dump()} {loaded.model_dump_json()} {river(loaded).model_dump_json()}"
    assert HUSH not in shown


EVERY_MISTAKE = """\
4: sources.river-prod.token: a secret is never written here: refer to it as ${NAME} or as {file: /path}
5: sources.river-prod.idel_timeout_s: is no setting here; did you mean idle_timeout_s?
7: sources.river-prod.rate.per_s: must be a number
8: sources.Other: a name is 1 to 63 lower-case letters, digits and hyphens, and begins with no hyphen
10: sources.third.provider: no provider is called 'rivrside'; did you mean riverside? (there are: riverside)
14: sinks.shelf.topic: must be text: put it in quotes
15: sinks.drawer.kind: is required, one of: drawer, shelf
18: control.port: must be less than or equal to 65535
19: control.token: environment variable NOWHERE is not set
20: jurnal: is no setting here; did you mean journal?
22: telemetry.log_level: must be 'debug', 'info', 'warning' or 'error'
23: supervision: backoff_base_s must not be greater than backoff_cap_s
"""


def test_every_mistake_is_found_at_once_and_has_its_line(tmp_path: Path) -> None:
    text = """\
sources:
  river-prod:
    provider: riverside
    token: written-down
    idel_timeout_s: 5
    rate:
      per_s: quick
  Other: {provider: riverside}
  third:
    provider: rivrside
sinks:
  shelf:
    kind: shelf
    topic: 7
  drawer:
    size_entries: 0
control:
  port: 70000
  token: ${NOWHERE}
jurnal: {}
telemetry:
  log_level: loud
supervision:
  backoff_base_s: 9
  backoff_cap_s: 3
"""
    assert mistakes(tmp_path, text) == [f"config.yaml:{line}" for line in EVERY_MISTAKE.splitlines()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [1\nb: 2\n", "config.yaml:2: is not valid YAML: expected ',' or ']', but got ':'"),
        ("sources:\n\ta: 1\n", "config.yaml:2: a tab cannot indent YAML: use spaces"),
        ("- a\n- b\n", "config.yaml:1: must be a mapping of sections such as `sources:` and `sinks:`"),
        ("just text", "config.yaml:1: must be a mapping of sections such as `sources:` and `sinks:`"),
        ("a: &x [1]\nb: [*x, *x]\n", "config.yaml:2: aliases (*name) are not used here: write the value out"),
        ("a: 1\nb: !!python/name:os.system x\n", "config.yaml:2: tags (!name) are not used here"),
        ("a: 1\n---\nb: 2\n", "config.yaml:2: is not valid YAML: but found another document"),
        ("a: 1\nb: \x07\n", "config.yaml:2: holds a character that YAML does not allow"),
        ("a: " + "[" * 200_000, "config.yaml:1: is nested too deeply"),
        ("#" * (1 << 20) + "\n", "config.yaml: is larger than 1048576 bytes"),
    ],
    ids=["syntax", "tab", "list", "text", "alias", "tag", "documents", "control character", "deep", "large"],
)
def test_what_is_no_configuration_at_all_is_one_line(tmp_path: Path, text: str, expected: str) -> None:
    assert mistakes(tmp_path, text) == [expected]


def test_a_file_that_cannot_be_read_or_decoded_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read: No such file or directory$"):
        load(path, {}, PROVIDERS, SINKS)
    path.write_bytes("a: 1\nb: é\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: is not UTF-8 text$"):
        load(path, {}, PROVIDERS, SINKS)


@pytest.mark.parametrize("text", ["", "sources:\nsinks:\n", "sources: {}\nsinks: []\n"])
def test_a_bridge_needs_a_source_and_a_sink(tmp_path: Path, text: str) -> None:
    found = mistakes(tmp_path, text)
    assert [line.partition(": must name")[0].rpartition(" ")[2] for line in found] == ["sources", "sinks"]


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    assert mistakes(tmp_path, GOOD + "control:\n  port: 1\n  port: 2\n") == [
        "config.yaml:9: control.port: is here twice; the first is on line 8"
    ]


def test_an_empty_section_is_the_same_as_none(tmp_path: Path) -> None:
    assert settings(tmp_path, GOOD + "control:\njournal: {}\n").control.port == 8080


def test_a_value_left_empty_is_not_taken_for_a_default(tmp_path: Path) -> None:
    assert mistakes(tmp_path, GOOD + "control:\n  port:\n") == [
        "config.yaml:8: control.port: has no value: give one, or leave the key out"
    ]


def test_words_of_old_yaml_stay_text(tmp_path: Path) -> None:
    loaded = settings(
        tmp_path, SOURCES + "    jobs: [no, on, 12:30, 2024-01-01, 0x1f, =, <<]\nsinks: {a: {kind: shelf}}"
    )
    assert river(loaded).jobs == ["no", "on", "12:30", "2024-01-01", "0x1f", "=", "<<"]


@pytest.mark.parametrize("value", [".inf", ".nan", "inf", "1e999"])
def test_a_duration_is_a_finite_number(tmp_path: Path, value: str) -> None:
    text = GOOD.replace("${API_KEY}", f"${{API_KEY}}\n    idle_timeout_s: {value}")
    assert len(mistakes(tmp_path, text + f"supervision: {{floor_max_s: {value}}}\n")) == 2


def test_references_are_replaced_anywhere_in_a_text(tmp_path: Path) -> None:
    (tmp_path / "zone").write_text("eu-1\n")
    text = GOOD.replace("kind: shelf", f'kind: shelf, topic: "${{A}}.$${{A}}.${{file:{tmp_path}/zone}}$"')
    sink = settings(tmp_path, text + "control: {port: '${PORT}'}\n", {**ENVIRON, "A": "${B}", "PORT": "81"})
    assert isinstance(sink.sinks["shelf"], Shelf)
    assert sink.sinks["shelf"].topic == "${B}.${A}.eu-1$"
    assert sink.control.port == 81


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("${NOWHERE}", "environment variable NOWHERE is not set"),
        ("a ${NOWHERE", "`${` is not closed with `}`; write `$${` for a plain `${`"),
        ("${A:-b}", "between `${` and `}` stands the name of an environment variable, or file:/path"),
        ("${}", "between `${` and `}` stands the name of an environment variable, or file:/path"),
        ("${file:/nowhere/x}", "/nowhere/x cannot be read: No such file or directory"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(tmp_path: Path, reference: str, expected: str) -> None:
    text = GOOD.replace("kind: shelf", f'kind: shelf, topic: "{reference}"')
    assert mistakes(tmp_path, text) == [f"config.yaml:6: sinks.shelf.topic: {expected}"]


@pytest.mark.parametrize("form", ["{{file: {}}}", '"${{file:{}}}"', "{{file: '${{RUN}}/key'}}"])
@pytest.mark.parametrize(("end", "kept"), [("", ""), ("\n", ""), ("\r\n", ""), ("\n\n", "\n"), (" ", " ")])
def test_a_secret_from_a_file_loses_one_line_end(tmp_path: Path, form: str, end: str, kept: str) -> None:
    (tmp_path / "key").write_bytes((HUSH + end).encode())
    text = GOOD.replace("${API_KEY}", form.format(tmp_path / "key"))
    loaded = settings(tmp_path, text, {"RUN": str(tmp_path)})
    assert river(loaded).token.get_secret_value() == HUSH + kept


def test_a_secret_file_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "large").write_text("x" * 65_537)
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "empty").write_text("\n")
    files = {"none": "cannot be read: No such file or directory", ".": "is not a regular file"}
    files |= {"large": "is larger than 65536 bytes", "bytes": "is not UTF-8 text"}
    keys = "".join(f"\n      - {{file: {tmp_path}/{name}}}" for name in (*files, "empty"))
    found = mistakes(tmp_path, SOURCES + f"sinks:\n  drawer:\n    kind: drawer\n    keys:{keys}\n")
    assert found == [
        *(f"config.yaml:{9 + n}: sinks.drawer.keys.{n}: {name} {why}" for n, (name, why) in enumerate(files.items())),
        "config.yaml:13: sinks.drawer.keys.4: the secret is empty",
    ]


@pytest.mark.parametrize(
    "value", ["written-down", "1234", "true", "[a]", "{a: b}", "{file: [x]}", "{file: x, more: y}"]
)
def test_a_secret_written_down_is_refused_and_not_repeated(tmp_path: Path, value: str) -> None:
    (line,) = mistakes(tmp_path, GOOD.replace("${API_KEY}", value))
    assert line.startswith("config.yaml:4: sources.river-prod.token: a secret is never written here")
    assert "written-down" not in line
    assert "1234" not in line


def test_a_secret_may_be_handed_over_in_code() -> None:
    assert Riverside(provider="riverside", token=SecretStr("x")).token.get_secret_value() == "x"


def test_a_plugs_own_sentence_is_kept_but_nothing_fetched_in_it(tmp_path: Path) -> None:
    text = GOOD.replace("${API_KEY}", "${API_KEY}\n    base_url: ftp://${API_KEY}@host")
    assert mistakes(tmp_path, text) == ["config.yaml:2: sources.river-prod: base_url ftp://…@host must not be ftp"]


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("JOBBRIDGE__CONTROL__PORT", "9090", lambda s: s.control.port == 9090),
        ("jobbridge__control__Port", '"9090"', lambda s: s.control.port == 9090),
        ("JOBBRIDGE__CONTROL__READY_NEEDS_SINKS", "true", lambda s: s.control.ready_needs_sinks),
        ("JOBBRIDGE__CONTROL__TOKEN", "{x", None),
        ("JOBBRIDGE__CONTROL__TOKEN", "a: b #c ${D} *e", lambda s: s.control.token == SecretStr("a: b #c ${D} *e")),
        ("JOBBRIDGE__CONTROL__TOKEN", "12345678", lambda s: s.control.token == SecretStr("12345678")),
        ("JOBBRIDGE__CONTROL__TOKEN", "", lambda s: s.control.token is None),
        ("JOBBRIDGE__CONTROL", "{port: 1, token: abc}", lambda s: s.control.token == SecretStr("abc")),
        ("JOBBRIDGE__JOURNAL__SYNCHRONOUS", "normal", lambda s: s.journal.synchronous == "normal"),
        (
            "JOBBRIDGE__SOURCES__RIVER_PROD__TOKEN",
            "other",
            lambda s: s.sources["river-prod"].token == SecretStr("other"),
        ),
        ("JOBBRIDGE__SOURCES__RIVER_PROD__JOBS", "[a, b]", lambda s: s.sources["river-prod"].jobs == ["a", "b"]),
        (
            "JOBBRIDGE__SOURCES__RIVER_PROD__RATE__PER_S",
            "2.5",
            lambda s: s.sources["river-prod"].rate == Rate(per_s=2.5),
        ),
        ("JOBBRIDGE__SOURCES__RIVER_PROD__RATE", "null", lambda s: s.sources["river-prod"].rate is None),
        ("JOBBRIDGE__SINKS__A__B__TOPIC", "t", lambda s: s.sinks["a--b"].topic == "t"),
    ],
)
def test_an_environment_variable_overrides_a_setting(tmp_path: Path, variable: str, value: str, read: Any) -> None:
    text = GOOD + "  a--b: {kind: shelf}\ncontrol: {token: '${API_KEY}'}\n"
    if read is None:
        assert mistakes(tmp_path, text, {**ENVIRON, variable: value})[0].startswith(f"environment: {variable}: ")
    else:
        assert read(settings(tmp_path, text, {**ENVIRON, variable: value}))


@pytest.mark.parametrize("variable", ["JOBBRIDGE__CONTROL__TOKEN", "JOBBRIDGE__CONTROL"])
def test_what_is_overridden_need_not_be_right_in_the_file(tmp_path: Path, variable: str) -> None:
    value = HUSH if variable.endswith("TOKEN") else f"{{token: {HUSH}}}"
    loaded = settings(tmp_path, GOOD + "control: {token: '${NOWHERE}'}\n", {**ENVIRON, variable: value})
    assert loaded.control.token == SecretStr(HUSH)


def test_a_whole_section_in_a_variable_comes_before_its_parts(tmp_path: Path) -> None:
    environ = {
        "JOBBRIDGE__SOURCES__X__TOKEN": HUSH,
        "JOBBRIDGE__SOURCES": "{x: {provider: riverside, jobs: [a]}}",
        "JOBBRIDGE__SINKS": "{s: {kind: shelf}}",
    }
    source = settings(tmp_path, "", environ).sources["x"]
    assert isinstance(source, Riverside)
    assert (source.token.get_secret_value(), source.jobs) == (HUSH, ["a"])


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("JOBBRIDGE__CONTROL__PROT", HUSH, "names no setting; did you mean JOBBRIDGE__CONTROL__PORT?"),
        ("JOBBRIDGE__SOURCES__ELSEWHERE__TOKEN", HUSH, "names no setting"),
        ("JOBBRIDGE__CONTROL__PORT", HUSH, "must be a whole number"),
        ("JOBBRIDGE__CONTROL__PORT", "", "has no value: give one, or leave the key out"),
        ("JOBBRIDGE__CONTROL", f"{{port: {HUSH}}}", "port: must be a whole number"),
        ("JOBBRIDGE__CONTROL__PORT", f"[{HUSH}", "is not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("JOBBRIDGE__SOURCES__RIVER_PROD__PROVIDER", HUSH, "no provider is called '…' (there are: riverside)"),
    ],
)
def test_an_override_that_is_wrong_is_named_by_its_variable(
    tmp_path: Path, variable: str, value: str, expected: str
) -> None:
    (line,) = mistakes(tmp_path, GOOD, {**ENVIRON, variable: value})
    assert line.startswith(f"environment: {variable}: {expected}")


def test_a_file_of_rubbish_is_refused_quickly_and_briefly(tmp_path: Path) -> None:
    rubbish = "".join(f"  k{n}: 1\n" for n in range(5_000))
    assert len(mistakes(tmp_path, GOOD + "control:\n" + rubbish)) == 100


def test_the_schema_for_editors_agrees_with_what_is_loaded(tmp_path: Path) -> None:
    schema = json_schema(PROVIDERS, SINKS)
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.Draft202012Validator(schema)
    good = [GOOD, GOOD + "control: {port: '${PORT}', token: {file: /x}}\n", GOOD.replace("shelf}", "shelf, topic: x}")]
    bad = [
        "sources: {}\nsinks: {a: {kind: shelf}}\n",
        GOOD.replace("${API_KEY}", "written-down"),
        GOOD.replace("riverside", "seaside"),
        GOOD.replace("river-prod", "River"),
        GOOD.replace("kind: shelf", "kind: shelf, size_entries: 3"),
        GOOD + "control: {port: high}\n",
        GOOD + "control: {porter: 1}\n",
        GOOD + "telemetry: {log_level: loud}\n",
        GOOD + "more: 1\n",
    ]
    assert [text for text in good if not judge.is_valid(yaml.safe_load(text))] == []
    assert [text for text in bad if judge.is_valid(yaml.safe_load(text))] == []
    for text in bad:
        mistakes(tmp_path, text)


def test_the_table_names_every_setting_once_with_its_default() -> None:
    table = settings_table(PROVIDERS, SINKS)
    rows = table.splitlines()[2:]
    assert "| `control.port` | whole number | `8080` | Port to listen on; 0 takes any free one. |" in rows
    assert "| `sources.<name>.token` | secret | required | API key. Only `riverside`. |" in rows
    assert any(r"Address \| of the API." in row for row in rows)
    names = [row.split("`")[1] for row in rows]
    assert len(names) == len(set(names))
    assert {"sources.<name>.discover.every_s", "sources.<name>.rate.per_s", "sinks.<name>.keys"} <= set(names)


def test_every_setting_of_every_plug_says_what_it_means() -> None:
    table = settings_table(real_providers.catalogue(), real_sinks.catalogue())
    assert [row for row in table.splitlines()[2:] if re.search(r"\|\s+(Only `[^`]+`\. )?\|$", row)] == []


EXAMPLES = sorted(CONFIG.glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_files_in_config_load_and_fit_the_schema(tmp_path: Path, path: Path) -> None:
    signing = "whsec_" + "QUJD" * 10 + "QUI="
    (tmp_path / "partner").write_text(signing)
    text = path.read_text().replace("/run/secrets/partner-signing-secret", str(tmp_path / "partner"))
    (tmp_path / path.name).write_text(text)
    names = ("AUVY_API_KEY", "KAFKA_BOOTSTRAP_SERVERS", "JOBBRIDGE_TOKEN")
    environ = dict.fromkeys(names, "localhost:9092") | {"WEBHOOK_SECRET": signing}
    load(tmp_path / path.name, environ, real_providers.catalogue(), real_sinks.catalogue())
    jsonschema.Draft202012Validator(json.loads((CONFIG / "schema.json").read_text())).validate(yaml.safe_load(text))


def test_the_example_shows_every_setting_with_its_default() -> None:
    text = (CONFIG / "jobbridge.example.yaml").read_text()
    table = settings_table(real_providers.catalogue(), real_sinks.catalogue())
    names = [row.split("`")[1].rpartition(".")[2] for row in table.splitlines()[2:]]
    assert [name for name in names if f"{name}:" not in text] == []


def test_the_schema_in_config_is_up_to_date() -> None:
    """Write it anew with `jobbridge schema config > config/schema.json`."""
    schema = json_schema(real_providers.catalogue(), real_sinks.catalogue())
    assert json.loads((CONFIG / "schema.json").read_text()) == schema


def test_a_source_and_a_sink_cannot_share_a_name(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, SOURCES + "sinks:\n  river-prod: {kind: shelf}\n")
    assert "share the name 'river-prod'" in line
