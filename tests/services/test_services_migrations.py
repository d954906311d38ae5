"""Schemas: from empty, and from what 0.1.0 left behind, on both engines.

``tests/data/schema-0.1.0`` holds the databases of a life that was played on 0.1.0, and what is
in it (``facts.json``).
"""

from __future__ import annotations

import importlib
import json
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import MetaData, inspect, select, text
from sqlalchemy.types import JSON, Boolean, DateTime

from services.common.clock import Clock
from services.common.database import Database
from services.common.migrations import STORES, SchemaError, _config, check, upgrade
from services.ecosystem import Ecosystem, load
from services.serve import StartError, create_app

OLD = Path(__file__).parents[1] / "data" / "schema-0.1.0"
FACTS: dict[str, Any] = json.loads((OLD / "facts.json").read_text())
ENGINES = ("sqlite", "postgresql")

Url = Callable[[], str]


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, on either engine."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    return f"sqlite:///{tmp_path}/empty.db"


def opened(url: str, kind: str, schema: str | None = None) -> Database:
    tables = importlib.import_module(STORES[kind]).TABLES
    return Database(url, tables.metadata, schema=schema or kind)


def versions(database: Database) -> list[str]:
    with database.engine.connect() as connection:
        return list(connection.scalars(text("SELECT version_num FROM alembic_version")))


@pytest.mark.parametrize("kind", STORES)
def test_from_empty_to_the_models(url: str, kind: str) -> None:
    """The migrations make what the code describes; a second time they change nothing."""
    database = opened(url, kind)
    upgrade(database, kind, step_by_step=True)
    check(database, kind)
    before = versions(database)
    assert len(before) == 1
    upgrade(database, kind)
    assert versions(database) == before
    database.close()


def _number(default: Any) -> str:
    """A default, whichever way PostgreSQL writes the number that it is."""
    return re.sub(r"'(\d+)'::\w+", r"\1", str(default))


def described(database: Database) -> dict[str, Any]:
    """What a database says of itself, names and defaults included; columns in any order."""
    found = inspect(database.engine)
    return {
        table: {
            "columns": sorted(
                (one["name"], str(one["type"]), one["nullable"], _number(one["default"]))
                for one in found.get_columns(table)
            ),
            "key": (
                found.get_pk_constraint(table)["name"],
                found.get_pk_constraint(table)["constrained_columns"],
            ),
            "indexes": sorted(
                (str(one["name"]), one["column_names"], one["unique"])
                for one in found.get_indexes(table)
            ),
            "unique": sorted(
                (str(one["name"]), one["column_names"])
                for one in found.get_unique_constraints(table)
            ),
            "references": sorted(
                (str(one["name"]), one["constrained_columns"], one["referred_table"])
                for one in found.get_foreign_keys(table)
            ),
        }
        for table in found.get_table_names()
    }


@pytest.mark.parametrize("kind", STORES)
def test_at_once_is_as_step_by_step(url: str, kind: str, tmp_path: Path) -> None:
    """What a new database is made as is what the migrations make of an empty one."""
    slow = opened(url, kind)
    upgrade(slow, kind, step_by_step=True)
    expected, version = described(slow), versions(slow)
    slow.close()
    sqlite = url.startswith("sqlite")
    fast = opened(f"sqlite:///{tmp_path}/new.db" if sqlite else url, kind, f"{kind}-new")
    upgrade(fast, kind)
    assert described(fast) == expected
    assert versions(fast) == version
    check(fast, kind)
    fast.close()


_UPGRADE = """
import importlib, sys
from services.common.database import Database
from services.common.migrations import STORES, upgrade
tables = importlib.import_module(STORES["mo"]).TABLES
database = Database(sys.argv[1], tables.metadata, schema="mo")
sys.stdin.readline()
upgrade(database, "mo")
"""


def test_starts_at_once_do_not_collide(url: str) -> None:
    """Of several processes that find an empty database, one makes the tables and the others find
    them; likewise several threads."""
    command_line = [sys.executable, "-I", "-c", _UPGRADE, url]
    processes = [
        subprocess.Popen(command_line, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    time.sleep(1.5)  # they are at the line that they wait for, or soon will be
    said = [one.communicate(b"go\n", timeout=60)[1].decode() for one in _told(processes)]
    assert [one.returncode for one in processes] == [0] * 4, said
    databases = [opened(url, "mo") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: upgrade(one, "mo"), databases))
    check(databases[0], "mo")
    for one in databases:
        one.close()


def _told(processes: list[subprocess.Popen[bytes]]) -> list[subprocess.Popen[bytes]]:
    for one in processes:
        assert one.stdin is not None
        one.stdin.write(b"go\n")
        one.stdin.flush()
    return processes


def test_a_migration_that_fails_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All revisions of a start are one transaction."""
    database = opened(url, "mo")
    command.upgrade(_config(database, "mo"), "mo_0001")
    tables = sorted(inspect(database.engine).get_table_names())

    def fails(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("in the middle")

    with monkeypatch.context() as patched:
        # The last thing that an upgrade to the present schema does on both engines.
        patched.setattr("alembic.runtime.migration.HeadMaintainer.update_to_step", fails)
        with pytest.raises(RuntimeError, match="in the middle"):
            upgrade(database, "mo")
    assert sorted(inspect(database.engine).get_table_names()) == tables
    upgrade(database, "mo")
    check(database, "mo")
    database.close()


def test_each_party_has_a_schema_of_its_own(postgresql: str) -> None:
    """Two of a kind, and of other kinds, share one database without seeing each other."""
    found = {}
    for name, kind in (("sun-mile", "mo"), ('grid "x"', "mo"), ("Pool", "rcp")):
        database = opened(postgresql, kind, name)
        upgrade(database, kind)
        check(database, kind)
        found[name] = versions(database)
        with database.engine.connect() as connection:
            assert connection.scalar(text("SELECT current_schema()")) == name
        database.close()
    assert found["sun-mile"] == found['grid "x"'] != found["Pool"]


@pytest.mark.parametrize("revision", ["rcp_9999", "oem_0001"])
def test_a_schema_of_a_newer_version_or_another_party(url: str, revision: str) -> None:
    database = opened(url, "rcp")
    upgrade(database, "rcp")
    with database.engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
        before = sorted(inspect(connection).get_table_names())
    with pytest.raises(SchemaError, match=f"{revision}.*newer version or by another kind") as said:
        upgrade(database, "rcp")
    assert "sesame" not in str(said.value)
    assert versions(database) == [revision]
    assert sorted(inspect(database.engine).get_table_names()) == before
    database.close()


# ------------------------------------------------------------------- 0.1.0


def old_ecosystem(folder: Path) -> Ecosystem:
    """The parties of 0.1.0, at the instant at which their data were put away, on free ports: so
    that nobody answers for revocation where their certificates say."""
    whole = load(data=folder)
    names = [name for name in whole.parties if name in FACTS["secrets"]]
    assert len(names) == len(FACTS["secrets"])
    parties = {name: whole.parties[name] for name in names}
    stood = datetime.fromisoformat(FACTS["clock"]).astimezone(UTC) + timedelta(minutes=5)
    kept = replace(
        whole, parties=parties, cars=(), clock_offset=Clock.showing(stood).setting.offset
    )
    return kept.on_free_ports().with_policies(
        {"contract_revocation": "ignore", "oem_revocation": "ignore"}
    )


def restored(ecosystem: Ecosystem) -> None:
    """Put the data of 0.1.0 where the parties look for theirs (SQLite)."""
    for name, secret in FACTS["secrets"].items():
        party = ecosystem.party(name)
        path = Path(party.database.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript((OLD / f"{name}.sql").read_text())
        party.secret_file.write_bytes(bytes.fromhex(secret))
        party.secret_file.chmod(0o600)


def copied(ecosystem: Ecosystem, url: str, old: Path) -> Ecosystem:
    """The same data as 0.1.0 would have left them on PostgreSQL: its tables, made by its
    migrations, with the rows of the SQLite files in ``old``."""
    moved = ecosystem.on_database(url)
    for name in FACTS["secrets"]:
        kind = moved.party(name).kind
        database = opened(url, kind, name)
        command.upgrade(_config(database, kind), f"{kind.replace('-', '_')}_0001")
        tables = MetaData()
        tables.reflect(database.engine)
        with (
            closing(sqlite3.connect(old / f"{name}.db")) as source,
            database.engine.begin() as connection,
        ):
            source.row_factory = sqlite3.Row
            if kind == "mo":  # SQLite took what was one character longer than its column
                connection.execute(text("ALTER TABLE invoices ALTER emaid TYPE VARCHAR(15)"))
            for table in tables.sorted_tables:
                if table.name == "alembic_version":
                    continue
                rows = source.execute(f'SELECT * FROM "{table.name}"').fetchall()
                if rows:
                    connection.execute(
                        table.insert(),
                        [
                            {c.name: _converted(row[c.name], c.type) for c in table.columns}
                            for row in rows
                        ],
                    )
                for column in table.primary_key.columns:
                    if column.autoincrement is True or column.server_default is not None:
                        connection.execute(
                            text(
                                f"SELECT setval(pg_get_serial_sequence('\"{table.name}\"', "
                                f"'{column.name}'), coalesce(max({column.name}), 0) + 1, false) "
                                f'FROM "{table.name}"'
                            )
                        )
        database.close()
    return moved


def _converted(value: Any, wanted: Any) -> Any:
    if value is None:
        return None
    if isinstance(wanted, DateTime):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    if isinstance(wanted, JSON):
        return json.loads(value)
    return bool(value) if isinstance(wanted, Boolean) else value


@pytest.fixture(params=ENGINES)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Ecosystem:
    """An ecosystem whose data are of 0.1.0, on either engine."""
    ecosystem = old_ecosystem(tmp_path)
    restored(ecosystem)
    if request.param == "postgresql":
        ecosystem = copied(ecosystem, request.getfixturevalue("postgresql"), tmp_path)
    return ecosystem


def rows_of(database: Database) -> dict[str, int]:
    found = {}
    with database.engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            count = connection.scalar(text(f'SELECT count(*) FROM "{table}"'))
            found[table] = int(count or 0)
    return found


@pytest.mark.parametrize("name", FACTS["secrets"])
def test_an_upgrade_keeps_every_row(old: Ecosystem, name: str) -> None:
    """Every row of 0.1.0 is there after the upgrade, and the schema is the present one."""
    party = old.party(name)
    database = opened(party.database, party.kind, name)
    before = rows_of(database)
    assert sum(before.values()) > 3
    upgrade(database, party.kind)
    check(database, party.kind)
    after = rows_of(database)
    assert {table: after.get(table) for table in before} == before
    database.close()
    # Its keys still open under its secret.
    found = create_app(old, name).state.party
    with found.database.engine.connect() as connection:
        rows = connection.execute(select(found.tables.key_row.__table__)).all()
    for row in rows:
        found.keys._unseal(row.reference, row.sealed)
    found.database.close()


def test_a_life_of_0_1_0_goes_on(old: Ecosystem, serve: Any) -> None:
    """Balances, contracts, invoices; the contract in the car pays, the one that waits in the
    pool is installed, the revoked one stays revoked, and new ones are made."""
    with serve(old) as world:
        driver = world.ok("sunmile", "GET", f"/drivers/{FACTS['driver']}")
        assert driver["balance"] == FACTS["balance"]
        assert world.ok("sunmile", "GET", "/invoices") == [FACTS["invoice"]]
        assert world.ok("sunmile", "GET", "/ledger")["total_cents"] == 0
        status = {
            key: world.ok("sunmile", "GET", f"/contracts/{FACTS[key]}")["status"]
            for key in ("installed", "waiting", "revoked")
        }
        assert status == {"installed": "active", "waiting": "active", "revoked": "revoked"}
        charging = FACTS["invoice"]["charging"]
        assert world.ok("plugpark", "GET", "/receivables") == {"sunmile": charging}

        paid = world.charge(FACTS["pcid"], installation="never")
        assert (paid["outcome"], paid["emaid"]) == ("charged", FACTS["installed"]), paid
        newly = world.charge(FACTS["other_pcid"])
        assert (newly["outcome"], newly["installed"]) == ("charged", True), newly
        assert newly["emaid"] == FACTS["waiting"]

        car = world.car()
        contract = world.contract(car["pcid"], FACTS["driver"])
        assert world.charge(car["pcid"])["emaid"] == contract["emaid"]
        invoices = world.ok("sunmile", "GET", "/invoices")
        assert [one["number"] for one in invoices] == [1, 2, 3, 4]
        ledger = world.ok("sunmile", "GET", "/ledger")
        assert ledger["total_cents"] == 0
        serials = [one["serial"] for one in world.ok("sunmile", "GET", "/certificates")]
        assert len(serials) == len(set(serials))


def test_data_of_a_newer_version_stop_a_start(old: Ecosystem, serve: Any) -> None:
    party = old.party("contract-pool")
    database = opened(party.database, party.kind, "contract-pool")
    with database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'ccp_0999'"))
    before = rows_of(database)
    with pytest.raises(StartError, match=r"contract-pool: .*'ccp_0999'.*newer version"), serve(old):
        pass
    assert rows_of(database) == before
    database.close()
