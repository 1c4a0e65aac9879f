"""compose.yaml against what it names: commands, ports, files, extras, and the environment."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from visxai.cli import app
from visxai.serve.config import Config

ROOT = Path(__file__).parents[1]
yaml = pytest.importorskip("yaml")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return found


def own(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The services that run visxai, with what their commands say."""
    group, made = typer.main.get_command(app), {}
    for name, service in compose["services"].items():
        if name == "postgres":
            continue
        verb, *words = service["command"]
        command = group.commands[verb]  # type: ignore[attr-defined]
        made[name] = {**service, "verb": verb, "options": command.make_context(verb, words).params}
    return made


def test_every_command_is_one_of_the_command_line(compose: dict[str, Any]) -> None:
    services = own(compose)
    assert {name: one["verb"] for name, one in services.items()} == {
        "api": "serve",
        "worker": "worker",
        "worker-gpu": "worker",
    }
    for service in services.values():
        options = service["options"]
        assert options["database"] == "postgresql://visxai@postgres/visxai"
        volumes = dict(one.rsplit(":/srv/visxai/", 1) for one in service["volumes"])
        assert volumes["data"] == options["data"]
        (settings,) = (one for one in volumes if one != "data")
        assert volumes[settings] == f"{options['config']}:ro"
        assert (ROOT / re.search(r":-(.+)}", settings).group(1)).is_file()  # type: ignore[union-attr]
    assert services["api"]["options"]["workers"] is False
    assert services["worker"]["options"]["lanes"] == "fast,precise"


def test_the_port_is_published_on_loopback_and_asked_for_health(compose: dict[str, Any]) -> None:
    api = own(compose)["api"]
    host, _, inside = (part for part in api["ports"][0].split(":"))
    assert host == "127.0.0.1"
    assert int(inside) == api["options"]["port"]
    assert api["options"]["host"] == "0.0.0.0"
    assert f"127.0.0.1:{inside}/readyz" in api["healthcheck"]["test"][-1]


def test_names_fit_together(compose: dict[str, Any]) -> None:
    services, postgres = own(compose), compose["services"]["postgres"]
    assert postgres["environment"]["POSTGRES_USER"] == "visxai"
    assert postgres["environment"]["POSTGRES_DB"] == "visxai"
    password = postgres["environment"]["POSTGRES_PASSWORD"]
    code = (ROOT / "visxai" / "cli" / "serve.py").read_text("utf-8")
    for service in services.values():
        assert service["environment"]["PGPASSWORD"] == password
        for name in set(service["environment"]) - {"PGPASSWORD"}:
            assert f'"{name}"' in code
        assert set(service["depends_on"]) <= set(compose["services"])
        for name in service["depends_on"]:
            assert "test" in compose["services"][name]["healthcheck"]
    named = {
        one.split(":")[0]
        for service in compose["services"].values()
        for one in service["volumes"]
        if not one.startswith("$")
    }
    assert named == set(compose["volumes"])


def test_images_are_built_from_files_that_install_the_service(compose: dict[str, Any]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    gpu = compose["services"]["worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["deploy"]["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    wanted = gpu["build"]["args"]["EXTRAS"].split(",")
    needed = {"serve", "hf", "tables"}  # what its settings can name: texts and rows of tables too
    assert needed <= set(wanted)
    assert set(wanted) <= set(extras)
    made = (ROOT / gpu["build"]["dockerfile"]).read_text()
    assert "ARG EXTRAS=" in made
    assert ".[$EXTRAS]" in made
    plain = (ROOT / "Dockerfile").read_text()
    (told,) = re.findall(r'"\.\[(.+)\]"', plain)
    assert needed == set(told.split(","))
    for text in (made, plain):
        assert re.search(r"mkdir --parents /srv/visxai/data .*\n.* chown --recursive visxai", text)
        assert "USER visxai\nWORKDIR /srv/visxai\n" in text
        for source in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
            assert all((ROOT / one).exists() for one in source.split())


def test_its_settings_and_those_of_the_page_are_right() -> None:
    Config.read(ROOT / "examples" / "service" / "moderation.toml")
    page = (ROOT / "docs" / "service.md").read_text("utf-8")
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    told = tomllib.loads(block)
    made = Config.of(told)
    assert made.webhooks[0].events == ("decision.overturned", "alert.raised")
    # What the page shows as defaults are the defaults.
    for part in ("tiers", "limits", "cache", "retention", "outside"):
        for name, value in told[part].items():
            default = getattr(getattr(Config(), part), name)
            if isinstance(value, dict):
                value, default = (
                    list(value.items()),
                    [(key, getattr(default, key)) for key in value],
                )
            assert default == (tuple(value) if value == [] else value), (part, name)
