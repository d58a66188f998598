"""What README.md says about the code is what the code says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import yaml
from generated import with_generated_parts

from bridge.delivery import sinks
from bridge.intake import providers
from bridge.settings import load

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_generated_tables_are_up_to_date() -> None:
    assert with_generated_parts(README) == README, "run `make docs`"


def test_the_example_configuration_loads(tmp_path: Path) -> None:
    text = README.partition("```yaml\n")[2].partition("```")[0]
    path = tmp_path / "jobbridge.yaml"
    path.write_text(text)
    environ = {
        "AUVY_API_KEY": "ak_live_x",
        "BILLING_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "JOBBRIDGE_TOKEN": "t",
    }
    settings = load(path, environ, providers.catalogue(), sinks.catalogue())
    assert set(settings.sinks) == set(yaml.safe_load(text)["sinks"])


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    reasons = README.partition("## What it stands on")[2].partition("\n## ")[0]
    missing = [name for line in needed if (name := line.partition(">")[0]) not in reasons]
    assert missing == []
