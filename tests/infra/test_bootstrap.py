"""scripts/bootstrap.sh with the real AWS CLI, against moto."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from scripts import run
from stack import REGION, stand_in

TLS_ONLY = "TLSOnly"


class Account:
    """One AWS account of the stand-in: its clients, and the script run in it."""

    def __init__(self, endpoint: str, key: str = "test", secret: str = "test", token: str | None = None):
        self.environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        settings = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
        session = boto3.Session(region_name=REGION, **settings)
        self.s3, self.dynamodb, self.sts = (session.client(name, endpoint_url=endpoint) for name in ("s3", "dynamodb", "sts"))

    def bootstrap(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return run("bootstrap.sh", *arguments, **{**self.environment, **environment})

    def make_bucket(self, name: str) -> None:
        self.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def buckets(self) -> list[str]:
        return [bucket["Name"] for bucket in self.s3.list_buckets()["Buckets"]]

    def tables(self) -> list[str]:
        return self.dynamodb.list_tables()["TableNames"]

    def policy(self, bucket: str) -> list[dict]:
        return json.loads(self.s3.get_bucket_policy(Bucket=bucket)["Policy"])["Statement"]


@pytest.fixture(scope="module")
def account(tmp_path_factory) -> Iterator[Account]:
    """An account in a stand-in of its own: here accounts are kept apart, as AWS keeps them and moto by default doesn't."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_S3_ALLOW_CROSSACCOUNT_ACCESS", "false")
        with stand_in(tmp_path_factory.mktemp("moto") / "log") as url:
            yield Account(url)


@pytest.fixture
def names() -> dict[str, str]:
    """Of a bucket and a table that nobody has yet."""
    unique = uuid.uuid4().hex[:12]
    return {"STATE_BUCKET": f"state-{unique}", "LOCK_TABLE": f"locks-{unique}"}


def test_a_dry_run_prints_every_call_and_makes_none(account, names):
    result = account.bootstrap("--dry-run", **names)
    assert result.returncode == 0, result.stderr
    for call in (
        f"aws s3api create-bucket --bucket {names['STATE_BUCKET']} --create-bucket-configuration LocationConstraint={REGION}",
        "aws s3api put-public-access-block",
        "aws s3api put-bucket-versioning",
        "aws s3api put-bucket-encryption",
        "aws s3api put-bucket-policy",
        "aws s3api put-bucket-tagging",
        "aws s3api put-bucket-lifecycle-configuration",
        f"aws dynamodb create-table --table-name {names['LOCK_TABLE']}",
    ):
        assert f"would run: {call}" in result.stderr
    assert "nothing was changed" in result.stderr
    assert names["STATE_BUCKET"] not in account.buckets()
    assert names["LOCK_TABLE"] not in account.tables()


def test_it_makes_what_terraform_needs(account, names):
    result = account.bootstrap(**names)
    assert result.returncode == 0, result.stderr
    assert "scripts/infra.sh staging plan" in result.stderr

    bucket = {"Bucket": names["STATE_BUCKET"]}
    assert account.s3.get_bucket_location(**bucket)["LocationConstraint"] == REGION
    assert account.s3.get_bucket_versioning(**bucket)["Status"] == "Enabled"
    [rule] = account.s3.get_bucket_encryption(**bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert all(account.s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"].values())
    [statement] = account.policy(names["STATE_BUCKET"])
    arn = f"arn:aws:s3:::{names['STATE_BUCKET']}"
    assert statement == {
        "Sid": TLS_ONLY,
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    assert {"Key": "Project", "Value": "prop"} in account.s3.get_bucket_tagging(**bucket)["TagSet"]
    [lifecycle] = account.s3.get_bucket_lifecycle_configuration(**bucket)["Rules"]
    assert lifecycle["Status"] == "Enabled" and lifecycle["NoncurrentVersionExpiration"]["NoncurrentDays"] == 90

    table = account.dynamodb.describe_table(TableName=names["LOCK_TABLE"])["Table"]
    assert table["KeySchema"] == [{"AttributeName": "LockID", "KeyType": "HASH"}]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["SSEDescription"]["Status"] == "ENABLED"
    assert table["DeletionProtectionEnabled"] is True
    tags = account.dynamodb.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"]
    assert {"Key": "Project", "Value": "prop"} in tags


def test_a_second_run_keeps_what_is_there_and_puts_settings_right(account, names):
    assert account.bootstrap(**names).returncode == 0
    bucket = {"Bucket": names["STATE_BUCKET"]}
    # Somebody works with it: a policy and a tag of their own, a state, and settings that should not have been touched.
    theirs = {"Sid": "Auditors", "Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{names['STATE_BUCKET']}/*"}
    account.s3.put_bucket_policy(**bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [theirs]}))
    account.s3.put_bucket_tagging(**bucket, Tagging={"TagSet": [{"Key": "Team", "Value": "platform"}]})
    account.s3.put_object(**bucket, Key="staging/terraform.tfstate", Body=b"a state")
    account.s3.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Suspended"})
    account.s3.delete_public_access_block(**bucket)
    account.dynamodb.update_table(TableName=names["LOCK_TABLE"], DeletionProtectionEnabled=False)
    account.dynamodb.put_item(TableName=names["LOCK_TABLE"], Item={"LockID": {"S": "held"}})

    result = account.bootstrap(**names)
    assert result.returncode == 0, result.stderr
    assert [statement["Sid"] for statement in account.policy(names["STATE_BUCKET"])] == ["Auditors", TLS_ONLY]
    tags = {tag["Key"]: tag["Value"] for tag in account.s3.get_bucket_tagging(**bucket)["TagSet"]}
    assert tags == {"Team": "platform", "Project": "prop", "ManagedBy": "bootstrap.sh"}
    assert account.s3.get_bucket_versioning(**bucket)["Status"] == "Enabled"
    assert all(account.s3.get_public_access_block(**bucket)["PublicAccessBlockConfiguration"].values())
    assert account.dynamodb.describe_table(TableName=names["LOCK_TABLE"])["Table"]["DeletionProtectionEnabled"] is True
    assert account.dynamodb.scan(TableName=names["LOCK_TABLE"])["Count"] == 1
    assert account.s3.get_object(**bucket, Key="staging/terraform.tfstate")["Body"].read() == b"a state"


def test_a_bucket_of_another_account_is_left_alone(account, names):
    assumed = account.sts.assume_role(RoleArn="arn:aws:iam::999999999999:role/other", RoleSessionName="other")["Credentials"]
    other = Account(account.environment["AWS_ENDPOINT_URL"], assumed["AccessKeyId"], assumed["SecretAccessKey"], assumed["SessionToken"])
    other.make_bucket(names["STATE_BUCKET"])
    result = account.bootstrap(**names)
    assert result.returncode == 4
    assert "belongs to another account" in result.stderr and "STATE_BUCKET=" in result.stderr
    assert "Status" not in other.s3.get_bucket_versioning(Bucket=names["STATE_BUCKET"])
    assert names["LOCK_TABLE"] not in account.tables()


def test_a_table_that_is_not_for_locks_is_left_alone(account, names):
    account.dynamodb.create_table(
        TableName=names["LOCK_TABLE"],
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    result = account.bootstrap(**names)
    assert result.returncode == 4
    assert "LockID" in result.stderr
    assert not account.dynamodb.describe_table(TableName=names["LOCK_TABLE"])["Table"].get("DeletionProtectionEnabled")


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        (["--force"], {}, "unknown option '--force'"),
        ([], {"STATE_BUCKET": "Prop_State"}, "'Prop_State' is not a valid bucket name"),
        ([], {"STATE_BUCKET": "ab"}, "is not a valid bucket name"),
        ([], {"STATE_BUCKET": "a..b"}, "is not a valid bucket name"),
        ([], {"LOCK_TABLE": "a table"}, "is not a valid table name"),
    ],
)
def test_wrong_names_and_options_are_rejected_before_any_call(arguments, environment, message):
    # No endpoint: nothing may be called.
    result = run("bootstrap.sh", *arguments, **environment)
    assert result.returncode == 2
    assert message in result.stderr


def test_missing_credentials_are_reported(account, tmp_path):
    result = run("bootstrap.sh", HOME=str(tmp_path), AWS_EC2_METADATA_DISABLED="true", AWS_ENDPOINT_URL=account.environment["AWS_ENDPOINT_URL"])
    assert result.returncode == 3
    assert "Cannot identify the AWS account" in result.stderr


def test_a_missing_tool_is_reported(tmp_path):
    for tool in ("bash", "dirname", "basename", "mktemp", "rm"):
        (tmp_path / tool).symlink_to(next(path for path in (Path("/bin") / tool, Path("/usr/bin") / tool) if path.exists()))
    result = subprocess.run(
        ["bash", Path(__file__).parents[2] / "scripts" / "bootstrap.sh"], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 3
    assert "aws jq" in result.stderr


def test_help_names_everything():
    result = run("bootstrap.sh", "--help")
    assert result.returncode == 0
    for text in ("STATE_BUCKET", "LOCK_TABLE", "STATE_REGION", "--dry-run", "Exit codes:", "Examples:"):
        assert text in result.stdout
