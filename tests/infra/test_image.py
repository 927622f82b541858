"""The image: its content, its labels, and that it runs as platforms run it."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
import yaml
from cryptography import x509

from container import DOCKERFILE, Storage, runnable, running_container
from postgres import free_port, programs, running_postgres
from prop import ROOT, generate_key

RDS_CAS = ROOT / "docker" / "rds-ca.pem"
COMPOSE = ROOT / "docker" / "compose.yaml"

missing = runnable()
needs_containers = pytest.mark.skipif(missing is not None, reason=f"the image is built and run with buildah and runc: {missing}")
needs_postgres = pytest.mark.skipif(programs() is None, reason="there is no initdb")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    storage = Storage(tmp_path_factory.mktemp("containers"))
    yield storage
    storage.run("rm", "-rf", storage.directory / "images", storage.directory / "run")


@pytest.fixture(scope="module")
def image(storage: Storage) -> str:
    return storage.build()


def certificates() -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(RDS_CAS.read_bytes())


def name_of(certificate: x509.Certificate) -> str:
    return str(certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)


def test_rds_certificates_are_cas_that_last_another_year():
    assert certificates()
    for certificate in certificates():
        assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca, name_of(certificate)
        assert certificate.issuer == certificate.subject, f"{name_of(certificate)} is no root"
        certificate.verify_directly_issued_by(certificate)
        assert certificate.not_valid_before_utc < datetime.now(UTC)
        assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=365), "run scripts/refresh-rds-ca.sh"


def test_rds_certificates_are_of_every_region():
    names = [name_of(certificate) for certificate in certificates()]
    assert len(set(names)) == len(names)
    kinds = {kind: {name.split()[2] for name in names if f" {kind} " in name} for kind in ("RSA2048", "RSA4096", "ECC384")}
    assert kinds["RSA2048"] == kinds["RSA4096"] == kinds["ECC384"]
    assert "Amazon RDS ap-south-1 Root CA RSA2048 G1" in names
    assert kinds["RSA2048"] >= {"ap-south-1", "ap-southeast-1", "eu-central-1", "eu-west-1", "us-east-1", "us-west-2"}


def test_images_from_elsewhere_are_pinned():
    # Stages of the Dockerfile itself have no slash and no colon.
    used = re.findall(r"^FROM (\S+)|--from=(\S+)", DOCKERFILE.read_text(), re.MULTILINE)
    foreign = [name for pair in used for name in pair if re.search(r"[/:]", name)]
    assert len(foreign) == 3
    for name in foreign:
        assert re.search(r":[\w.-]+@sha256:[0-9a-f]{64}$", name), f"{name} is not pinned by tag and digest"


def test_the_build_has_every_file_that_the_source_includes():
    # .dockerignore lets in what it names. A file that is missing would be found by the release build only, minutes later.
    let_in = [ROOT / line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all(path.exists() for path in let_in)
    wanted = [ROOT / target["path"] for kind in ("bin", "lib") for target in targets(kind)]
    for source in [ROOT / "build.rs", *ROOT.glob("src/**/*.rs")]:
        wanted += [source.parent / path for path in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', source.read_text())]
        wanted += [ROOT / path for path in re.findall(r'embed_migrations!\("([^"]+)"', source.read_text())]
    assert ROOT / "migrations/postgres" in wanted
    for path in wanted:
        assert any(path.resolve().is_relative_to(place) for place in let_in), f".dockerignore keeps {path} out"


def test_the_empty_crate_has_every_target():
    # cargo wants the file of each target that Cargo.toml names, also to build the dependencies only.
    dockerfile = DOCKERFILE.read_text()
    assert targets("test")
    for kind in ("test", "bench", "example"):
        for target in targets(kind):
            assert target["path"] in dockerfile, f"the Dockerfile's empty crate has no {target['path']}"


def test_the_dependencies_are_built_with_the_flags_of_sqlite():
    # Cargo's configuration names them. Without it, the first build compiles another SQLite, and the second one compiles it again.
    dockerfile = DOCKERFILE.read_text()
    assert 0 < dockerfile.index("\nCOPY .cargo .cargo\n") < dockerfile.index("cargo build")


def targets(kind: str) -> list[dict[str, str]]:
    """What Cargo.toml names of this kind, as [[test]]."""
    named = tomllib.loads((ROOT / "Cargo.toml").read_text()).get(kind, [])
    return named if isinstance(named, list) else [named]


@needs_containers
def test_its_labels_describe_it_and_how_to_run_it(storage: Storage, image: str):
    config = storage.inspect(image)
    sha = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in config["Labels"].items()}
    assert labels["revision"].removesuffix("-dirty") == sha
    assert labels["version"] == version
    assert labels["source"] == "https://github.com/prop-ledger/prop"
    assert labels["title"] == "prop" and labels["licenses"] == "MIT" and labels["description"]
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/prop"] and not config.get("Cmd")
    assert config["Healthcheck"]["Test"] == ["CMD", "/prop", "healthcheck", "--live"]
    assert config["ExposedPorts"] == {"8080/tcp": {}}
    assert "PROP_ENVIRONMENT=production" in config["Env"]
    assert image.split(":")[1].startswith(f"{version}-{sha[:12]}")


@needs_containers
def test_nothing_but_prop_and_certificates_is_added_to_the_base(storage: Storage, image: str):
    container = storage.run("buildah", "from", image)
    root = storage.run("buildah", "mount", container)
    files = set(storage.run("find", root, "(", "-type", "f", "-o", "-type", "l", ")", "-printf", "/%P %m %U\\n").splitlines())
    base = {f"/{path.relative_to(storage.directory / 'rootfs')}" for path in (storage.directory / "rootfs").rglob("*") if path.is_file()}
    print(f"\n{image}, with a debug binary: {storage.run('buildah', 'images', '--format', '{{.Size}}', image)}")
    storage.run("buildah", "rm", container)
    added = {line for line in files if line.split()[0] not in base}
    assert {line.split()[0] for line in added} == {"/prop", "/etc/prop/rds-ca.pem"}
    for line in added:
        mode, owner = line.split()[1:]
        assert owner == "0" and int(mode, 8) & 0o022 == 0, f"prop can change {line}"


@needs_containers
@needs_postgres
def test_it_runs_read_only_as_its_user_on_postgres_by_verified_tls(storage: Storage, image: str):
    authority, key = trustme.CA(), generate_key()
    certificate = authority.issue_cert("database.example.org")
    settings = {
        "PROP_DATABASE__HOST": "database.example.org",
        "PROP_DATABASE__NAME": "prop",
        "PROP_DATABASE__USER": "prop",
        "PROP_DATABASE__SSLMODE": "verify-full",
        "PROP_DATABASE__CA_FILE": "/etc/prop/rds-ca.pem",
        "PROP_BOOTSTRAP_KEY": key,
    }
    hosts = {"/etc/hosts": "127.0.0.1 localhost database.example.org\n"}
    with running_postgres(certificate.cert_chain_pems[0].bytes(), certificate.private_key_pem.bytes()) as database:
        settings["PROP_DATABASE__PORT"] = str(database)
        # The certificates in the image can be read by its user, and are gone by: this server's is of nobody they know.
        with running_container(storage, image, free_port(), files=hosts, PROP_DATABASE__CONNECT_WAIT_SECONDS="0", **settings) as refused:
            assert refused.process.wait(timeout=60) == 1
            assert "certificate verify failed" in refused.output.read_text()

        ca = {"/etc/prop/rds-ca.pem": authority.cert_pem.bytes()}
        with running_container(storage, image, free_port(), files=hosts | ca, **settings) as container:
            container.wait_until_ready()
            for question in ([], ["--live"]):
                assert container.execute("/prop", "healthcheck", *question).returncode == 0
            assert container.get("/v1/status", key)[0] == 200
            assert container.get("/v1/status")[0] == 401

            state = json.loads(container.runc("state", container.name).stdout)
            status = storage.run("cat", f"/proc/{state['pid']}/status")
            assert re.search(r"^Uid:\s65532\s65532\s65532\s65532$", status, re.MULTILINE)
            assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE)
            mounts = storage.run("cat", f"/proc/{state['pid']}/mounts")
            assert re.search(r"^\S+ / \S+ ro[, ]", mounts, re.MULTILINE)

            for shell in ("/bin/sh", "/bin/bash", "/busybox/sh", "/usr/bin/apt-get"):
                assert "no such file" in container.execute(shell).stderr
            assert container.stop() < 5
    assert container.output.read_text().splitlines()[-1].count('"stopped"') == 1


@needs_containers
def test_one_docker_run_starts_a_ledger_that_a_volume_keeps(storage: Storage, image: str, tmp_path: Path):
    """As docs/releasing.md has it: `docker run -p 8080:8080 -v prop:/data -e PROP_ENVIRONMENT=development`."""
    volume, settings = tmp_path / "volume", {"PROP_ENVIRONMENT": "development"}
    with running_container(storage, image, free_port(), volumes={"/data": volume}, **settings) as first:
        first.wait_until_ready()
        key = re.search(r"export PROP_KEY=(prop_\w+)", first.output.read_text())[1]
        assert first.get("/v1/status", key)[0] == 200
        # Other addresses than 127.0.0.1 are the container's, as Docker forwards to them.
        listening = first.storage.run("cat", "/proc/net/tcp")
        assert re.search(rf" 00000000:{first.port:04X} 00000000:0000 0A ", listening)
        assert first.stop() < 5
    assert (volume / "prop.db").stat().st_uid == 65532
    with running_container(storage, image, free_port(), volumes={"/data": volume}, **settings) as second:
        second.wait_until_ready()
        assert second.get("/v1/status", key)[0] == 200, "the volume has kept the key"
        second.stop()


@needs_containers
def test_it_can_write_to_its_data_directory_only(storage: Storage, image: str):
    container = storage.run("buildah", "from", image)
    root = storage.run("buildah", "mount", container)
    owned = storage.run("find", root, "-user", "65532", "-printf", "/%P %y %m\\n").splitlines()
    storage.run("buildah", "rm", container)
    assert owned == ["/data d 755"]
    assert storage.inspect(image)["WorkingDir"] == "/data"


@needs_containers
def test_healthcheck_fails_when_prop_is_not_ready(storage: Storage, image: str):
    # Nobody listens at the database's port: prop waits for it, and its own port is not open yet.
    database = f"postgres://prop@127.0.0.1:{free_port()}/prop"
    with running_container(storage, image, free_port(), DATABASE_URL=database, PROP_BOOTSTRAP_KEY=generate_key()) as container:
        for _ in range(50):
            checked = container.execute("/prop", "healthcheck")
            if "prop:" in checked.stderr:
                break
        assert checked.returncode == 1, checked
        assert container.process.poll() is None


@needs_containers
@needs_postgres
def test_compose_starts_prop_with_a_key_to_begin_with(storage: Storage, image: str):
    service = yaml.safe_load(COMPOSE.read_text())["services"]["prop"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DOCKERFILE)
    with running_postgres() as database, running_container(
        storage,
        image,
        free_port(),
        files={"/etc/hosts": "127.0.0.1 localhost database\n"},
        **{name: value.replace("@database/", f"@database:{database}/") for name, value in service["environment"].items()},
    ) as container:
        container.wait_until_ready()
        key = re.search(r"export PROP_KEY=(prop_\w+)", container.output.read_text())[1]
        assert container.get("/v1/status", key)[0] == 200
        another = container.execute("/prop", "key", "create", "me", "--scope", "admin")
        assert container.get("/v1/keys", another.stdout.strip())[0] == 200
        container.stop()


def test_compose_waits_for_the_database_and_opens_to_nobody_else():
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    assert services["prop"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    assert services["prop"]["ports"] == ["127.0.0.1:8080:8080"]
    assert services["database"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]
    # Who waits for prop wants it ready; the image's own check only asks whether it is alive.
    assert services["prop"]["healthcheck"]["test"] == ["CMD", "/prop", "healthcheck"]
    assert "ports" not in services["database"]
    # Nothing that looks like a secret.
    assert not re.search(r"password:|secret:|prop_[A-Za-z0-9]{20}", COMPOSE.read_text(), re.IGNORECASE)


@needs_containers
def test_lambda_is_the_same_with_the_adapter(storage: Storage, image: str):
    function = storage.build("--target", "lambda")
    assert function.endswith("-lambda")
    plain, config = storage.inspect(image), storage.inspect(function)
    assert config["Entrypoint"] == plain["Entrypoint"] and config["User"] == plain["User"]
    assert set(config["Env"]) - set(plain["Env"]) == {
        "AWS_LWA_READINESS_CHECK_PATH=/readyz",
        "AWS_LWA_READINESS_CHECK_HEALTHY_STATUS=200",
        "PROP_DATABASE__POOL_SIZE=1",
    }
    container = storage.run("buildah", "from", function)
    root = Path(storage.run("buildah", "mount", container))
    storage.run("test", "-f", root / "opt/extensions/lambda-adapter")
    storage.run("buildah", "rm", container)
    with running_container(storage, function, free_port(), DATABASE_URL="sqlite:/tmp/prop.db", PROP_BOOTSTRAP_KEY=generate_key()) as container:
        container.wait_until_ready()
        container.stop()
