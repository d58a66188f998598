"""What README.md says about the code is what the code says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from generated import ROOT, files

from bridge.delivery import sinks
from bridge.intake import providers
from bridge.settings import load

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize(("path", "content"), [pytest.param(*item, id=item[0].name) for item in files().items()])
def test_what_is_generated_is_up_to_date(path: Path, content: str) -> None:
    assert path.read_text() == content, "run `make docs`"


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
