"""The team's MLflow server: its script over PostgreSQL and an S3-compatible bucket, with names and passwords."""

from __future__ import annotations

import configparser
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow import MlflowClient

from components.errors import UserError
from flows.server import HOST, answers, free_port
from flows.tracking import store, team
from flows.tracking.record import PipelineRecord
from flows.tracking.tracker import Tracker
from tests.postgres import PASSWORD, USER, binaries, postgres

SCRIPT = Path(__file__).parents[3] / "mlflow" / "team.sh"
ADMIN, SECRET, BUCKET = "admin-password-of-the-test", "s3-secret-of-the-test", "team"
STARTS_WITHIN = 180.0
GIVEN = {
    "MLFLOW_BACKEND_STORE_URI": "postgresql://mlflow:hidden@db/mlflow",
    "MLFLOW_ARTIFACTS_DESTINATION": "s3://bucket/path",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "hidden-for-the-admin",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "hidden-as-well",
}
_ENCODED = "mlflow:%5B50%25%2F%3F%23%3A@db:5433/mlflow?sslmode=require"


@dataclass
class Team:
    """A running server: its address, its folder, and its bucket."""

    address: str
    folder: Path
    database: str
    s3: Any
    process: subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The server that team.sh starts, over an empty database and an empty bucket."""
    for name in ("psycopg", "flask_wtf"):
        pytest.importorskip(name, reason=f"{name} is not installed; it comes with the extra 'team'")
    import boto3
    from moto.server import ThreadedMotoServer

    folder = tmp_path_factory.mktemp("team")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with postgres() as database:
        bucket = ThreadedMotoServer(HOST, 0, verbose=False)
        bucket.start()
        s3 = "http://{}:{}".format(*bucket.get_host_and_port())
        keys = {"aws_access_key_id": "the-id", "aws_secret_access_key": SECRET}
        client = boto3.client("s3", endpoint_url=s3, region_name="us-east-1", **keys)
        client.create_bucket(Bucket=BUCKET)
        process, port = start(folder, database, s3)
        try:
            wait(process, f"http://{HOST}:{port}/health", folder)
            yield Team(f"http://{HOST}:{port}", folder, database, client, process)
        finally:
            process.terminate()
            process.wait(timeout=20)
            bucket.stop()


def start(folder: Path, database: str, s3: str) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    settings = {
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/mlflow",
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "flask-key-of-the-test",
        "MLFLOW_S3_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "the-id",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_PORT": str(port),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"tracking.example,{HOST}:*",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "https://tracking.example",
        "MLFLOW_WORKERS": "1",
        "PYTHON": sys.executable,
    }
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            ["sh", str(SCRIPT)], cwd=folder, env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT
        )
    return process, port


def wait(process: subprocess.Popen[bytes], address: str, folder: Path) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while not answers(address):
        assert process.poll() is None, (folder / "server.log").read_text()
        assert time.monotonic() < deadline, "the team's server did not start"
        time.sleep(0.2)


@pytest.fixture
def as_admin(server: Team, monkeypatch: pytest.MonkeyPatch) -> Team:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ADMIN)
    return server


def test_a_run_is_published_and_read_back(as_admin: Team, one_model: PipelineRecord, tmp_path: Path) -> None:
    published = Tracker(tmp_path, "demo").publish(one_model)
    assert published.created
    assert published.registered_version == "1"
    again = Tracker(tmp_path, "demo").publish(one_model)
    assert (again.created, again.parent_run_id) == (False, published.parent_run_id)
    run = Tracker(tmp_path, "demo").client.get_run(published.runs["lora"])
    assert one_model.models[0].metrics.items() <= run.data.metrics.items()
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")  # clients need no key of the bucket
    stored = [item["Key"] for item in as_admin.s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert all(key.startswith("mlflow/") for key in stored)
    assert any(key.endswith("model.safetensors") for key in stored)
    assert any(key.endswith("comparison.md") for key in stored)


@pytest.mark.parametrize("password", [None, "a-wrong-password"])
def test_without_the_password_nothing_is_shown(
    as_admin: Team, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    if password:
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
    else:
        monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
        monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    with pytest.raises(UserError, match="401") as caught:
        Tracker(tmp_path, "demo").client  # noqa: B018
    assert caught.value.kind == "tracking"
    assert "a-wrong-password" not in str(caught.value)


def test_a_user_whom_the_admin_made_reads_but_does_not_change_what_others_own(
    as_admin: Team, one_model: PipelineRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.server import get_app_client

    users = get_app_client("basic-auth", tracking_uri=as_admin.address)
    users.create_user("ana", "first-password-of-ana")
    users.update_user_password("ana", "second-password-of-ana")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ana")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "second-password-of-ana")
    assert Tracker(tmp_path, "demo").client.get_experiment_by_name("demo")
    with pytest.raises(UserError, match="Permission denied"):
        Tracker(tmp_path, "demo").begin("other inputs", "ana's")


@pytest.mark.parametrize(
    ("host", "origin", "code"),
    [
        ("tracking.example", "https://tracking.example", 200),
        ("tracking.example", "https://elsewhere.example", 403),
        ("elsewhere.example", "https://tracking.example", 403),
    ],
)
def test_pages_behind_the_proxy_work_under_the_name_that_is_allowed(
    as_admin: Team, host: str, origin: str, code: int
) -> None:
    """A browser names the page's origin with every POST, to its own server too."""
    answer = requests.post(
        f"{as_admin.address}/ajax-api/2.0/mlflow/runs/search",
        json={"experiment_ids": ["0"]},
        headers={"Host": host, "Origin": origin},
        auth=("admin", ADMIN),
        timeout=20,
    )
    assert answer.status_code == code, answer.text


def test_no_secret_is_in_the_log_or_on_a_command_line(as_admin: Team) -> None:
    import psutil

    server = psutil.Process(as_admin.process.pid)
    told = [" ".join(process.cmdline()) for process in (server, *server.children(recursive=True))]
    told.append((as_admin.folder / "server.log").read_text())
    for secret in (PASSWORD, "100%25-secret", ADMIN, SECRET, "flask-key-of-the-test"):
        assert not any(secret in text for text in told)
    assert any(f"--host {HOST}" in text for text in told)


def test_only_the_owner_reads_the_file_with_the_address_of_the_database(as_admin: Team) -> None:
    file = as_admin.folder / ".stillhouse/mlflow/basic_auth.ini"
    assert file.stat().st_mode & 0o777 == 0o600
    assert ADMIN not in file.read_text()


def test_a_second_server_over_the_same_database_finds_it_ready(as_admin: Team) -> None:
    """What an upgrade or a restart does: nothing that is there is lost."""
    file = configparser.ConfigParser()
    file.read(as_admin.folder / ".stillhouse/mlflow/basic_auth.ini")
    before = len(MlflowClient(as_admin.address).search_experiments())
    team.prepare_database(file["mlflow"]["database_uri"])
    assert len(MlflowClient(as_admin.address).search_experiments()) == before > 1


def test_a_backup_is_restored_into_another_database_of_a_plain_user(as_admin: Team, tmp_path: Path) -> None:
    """The commands of mlflow/README.md."""
    import psycopg

    with psycopg.connect(as_admin.database, autocommit=True) as connection:
        connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        host, port = connection.info.host, str(connection.info.port)
    as_owner = os.environ | {"PGHOST": host, "PGPORT": port, "PGUSER": "plain", "PGPASSWORD": "plain"}
    as_user = as_owner | {"PGUSER": USER, "PGPASSWORD": PASSWORD}
    dump = str(tmp_path / "mlflow.dump")
    run("pg_dump", "--format=custom", f"--file={dump}", "postgres", env=as_user)
    run("createdb", "--owner=plain", "mlflow-restored", env=as_user)
    run("pg_restore", "--no-owner", "--exit-on-error", "--dbname=mlflow-restored", dump, env=as_owner)
    restored = team.settings(
        GIVEN | {"MLFLOW_BACKEND_STORE_URI": f"postgresql://plain:plain@{host}:{port}/mlflow-restored"}
    )["MLFLOW_BACKEND_STORE_URI"]
    team.prepare_database(restored)
    with psycopg.connect(restored.replace("+psycopg", "")) as connection:
        users = connection.execute("SELECT username FROM users").fetchall()
        connection.execute("UPDATE alembic_version SET version_num = 'of-the-future'")
    assert ("admin",) in users
    with pytest.raises(UserError, match="can't be used: Can't locate revision") as caught:
        team.prepare_database(restored)
    assert "newer" in caught.value.remedy


def run(program: str, *arguments: str, env: Mapping[str, str]) -> None:
    done = subprocess.run([binaries() / program, *arguments], env=env, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("name", GIVEN)
def test_a_missing_secret_is_named_and_there_is_no_default(name: str) -> None:
    with pytest.raises(UserError, match=name) as caught:
        team.settings({**GIVEN, name: ""})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_BACKEND_STORE_URI", "mysql://hidden@db/mlflow"),
        ("MLFLOW_BACKEND_STORE_URI", "hidden"),
        ("MLFLOW_BACKEND_STORE_URI", "postgresql://mlflow:hidden@db:hidden/mlflow"),
        ("MLFLOW_BACKEND_STORE_URI", "postgresql://mlflow:hid@hidden@db/mlflow"),
        ("MLFLOW_BACKEND_STORE_URI", "postgresql://mlflow:hid@den/hidden@db/mlflow"),
        ("MLFLOW_ARTIFACTS_DESTINATION", "/hidden/folder"),
        ("MLFLOW_AUTH_ADMIN_PASSWORD", "hidden"),
    ],
)
def test_a_setting_of_another_kind_is_refused_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(UserError, match=name) as caught:
        team.settings({**GIVEN, name: value})
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("postgresql://mlflow:hidden@db/mlflow", "mlflow:hidden@db/mlflow"),
        ("postgres://mlflow:[50%/?#:@db:5433/mlflow?sslmode=require", _ENCODED),
        (f"postgresql+psycopg://{_ENCODED}", _ENCODED),
        ("postgresql:///mlflow", "/mlflow"),
    ],
)
def test_the_address_is_given_to_the_driver_that_is_installed(given: str, written: str) -> None:
    found = team.settings(GIVEN | {"MLFLOW_BACKEND_STORE_URI": given})["MLFLOW_BACKEND_STORE_URI"]
    assert found == f"postgresql+psycopg://{written}"
    assert "50" not in store.shown(found)


def test_a_database_that_does_not_answer_is_a_message_without_the_password() -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed; it comes with the extra 'team'")
    address = f"postgresql+psycopg://mlflow:hidden@{HOST}:{free_port()}/mlflow"
    with pytest.raises(UserError, match="can't be used") as caught:
        team.prepare_database(address)
    assert "hidden" not in str(caught.value)


def test_a_rights_file_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"basic_auth\.ini can't be written"):
        team.write_rights(tmp_path / "file/basic_auth.ini", GIVEN["MLFLOW_BACKEND_STORE_URI"], "READ")
