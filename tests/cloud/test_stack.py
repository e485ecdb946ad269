import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import boto3
import pytest
from botocore.exceptions import ClientError
from cfnlint.api import lint
from tests.cloud.deployment import Deployment, allows, deploy, listed
from tests.servers import answers, end_process_group, free_port

import loupe.cloud
from loupe.cloud.fleet import Fleet
from loupe.cloud.settings import load_policy, read_stack
from loupe.cloud.stack import template
from loupe.release.store import S3Store, StoreError

PROJECT = Path(__file__).parents[2]
ARN = "arn:aws:ec2:us-east-1:123456789012"  # moto's
RELEASE = (
    "releases/aliases/production.json",
    "releases/versions/1.0.0.json",
    "releases/versions/1.0.0-0f3a5b7c9d1e/MANIFEST.json",
    "releases/log/20260131T120000Z-production-000007.json",
    "releases/decisions/1.0.0-5d1c.json",
    "releases/index.html",
)


@pytest.fixture(scope="module")
def aws(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The environment of AWS's clients, for all of this file."""
    with pytest.MonkeyPatch.context() as patch:
        speak_to(s3_endpoint, patch, tmp_path_factory.mktemp("aws"))
        yield


@pytest.fixture(scope="module")
def deployment(aws: None) -> Deployment:
    """The stack, which tests look at and leave as it is."""
    return deploy()


def speak_to(endpoint: str, patch: pytest.MonkeyPatch, empty: Path) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(empty / "no-aws-config"),
        "NO_PROXY": "127.0.0.1",
    }.items():
        patch.setenv(name, value)


def arn(deployment: Deployment, key: str = "") -> str:
    return f"arn:aws:s3:::{deployment.outputs['Bucket']}" + (f"/{key}" if key else "")


def where(deployment: Deployment) -> dict[str, Any]:
    """What `loupe` reads to find the stack."""
    parameter = boto3.client("ssm").get_parameter(Name=deployment.outputs["Parameter"])
    found: dict[str, Any] = json.loads(parameter["Parameter"]["Value"])
    return found


# --- the template -----------------------------------------------------------------------------------------------------


def test_cfn_lint_has_nothing_to_say() -> None:
    assert [str(match) for match in lint(template(), regions=["us-east-1", "eu-central-1"])] == []


def test_the_template_is_small_enough_to_be_sent_as_it_is() -> None:
    assert len(template().encode()) < 51_200  # `aws cloudformation deploy` wants a bucket for more


def test_the_bucket_keeps_to_itself_and_clears_up() -> None:
    # moto's CloudFormation makes no more of a bucket than its encryption, so the text itself is looked at
    resources = json.loads(template())["Resources"]
    bucket = resources["Bucket"]
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    assert set(bucket["Properties"]["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}
    rules = bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = {rule["Prefix"]: rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule}
    assert expiring == {"ec2/runs/": 30, "ec2/inputs/": 30, "ec2/checkpoints/": 30}
    [unfinished] = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]
    assert "Prefix" not in unfinished and unfinished["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 3}
    [statement] = resources["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert len(statement["Resource"]) == 2  # the bucket, and what is in it


def test_machines_reach_the_web_and_nobody_reaches_them() -> None:
    resources = json.loads(template())["Resources"]
    group = resources["SecurityGroup"]["Properties"]
    assert "SecurityGroupIngress" not in group
    assert [(rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) for rule in group["SecurityGroupEgress"]] == [
        ("tcp", 443, 443),
        ("tcp", 80, 80),
    ]
    subnets = [found["Properties"] for found in resources.values() if found["Type"] == "AWS::EC2::Subnet"]
    assert [subnet["MapPublicIpOnLaunch"] for subnet in subnets] == [True] * 3


def test_its_defaults_and_those_of_ec2_yaml_agree() -> None:
    parameters = json.loads(template())["Parameters"]
    policy = load_policy(PROJECT / "ec2.yaml")
    assert policy.parameter == f"/{parameters['ProjectName']['Default']}/ec2"
    allowed = parameters["InstanceTypes"]["Default"].split(",")
    assert [kind for kind in policy.types if not any(fnmatchcase(kind, pattern) for pattern in allowed)] == []


def test_the_manual_names_each_parameter_with_its_default() -> None:
    manual = (PROJECT / "docs/operations-ec2.md").read_text()
    for name, parameter in json.loads(template())["Parameters"].items():
        [row] = [line for line in manual.splitlines() if line.startswith("| `") and f"`{name}`" in line.split("|")[1]]
        assert str(parameter["Default"]) in row.split("|")[2]


# --- the account, once it is deployed ---------------------------------------------------------------------------------


def test_loupe_finds_the_stack_by_one_parameter(deployment: Deployment) -> None:
    found = where(deployment)
    assert found.keys() == {"project", "region", "bucket", "prefix", "launch_template", "subnets"}
    assert deployment.outputs["Parameter"] == f"/{found['project']}/ec2"
    assert (found["region"], found["prefix"], found["bucket"]) == ("us-east-1", "ec2", deployment.outputs["Bucket"])
    assert deployment.outputs["Store"] == f"s3://{found['bucket']}/releases"
    assert deployment.outputs["DvcRemote"] == f"s3://{found['bucket']}/dvc"
    subnets = boto3.client("ec2").describe_subnets(SubnetIds=found["subnets"])["Subnets"]
    assert len({subnet["AvailabilityZone"] for subnet in subnets}) == 3
    boto3.client("s3").put_object(Bucket=found["bucket"], Key="ec2/bootstrap/x", Body=b"")  # it is there
    encryption = boto3.client("s3").get_bucket_encryption(Bucket=found["bucket"])
    [rule] = encryption["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"


def test_the_launch_template_is_strict(deployment: Deployment) -> None:
    ec2 = boto3.client("ec2")
    found = ec2.describe_launch_template_versions(
        LaunchTemplateId=where(deployment)["launch_template"], Versions=["$Latest"]
    )["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert found["MetadataOptions"]["HttpTokens"] == "required"
    assert found["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert found["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert "KeyName" not in found and "UserData" not in found
    [disk] = found["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/sda1"
    assert disk["Ebs"] == {"Encrypted": True, "DeleteOnTermination": True, "VolumeSize": 150, "VolumeType": "gp3"}
    [group] = ec2.describe_security_groups(GroupIds=found["SecurityGroupIds"])["SecurityGroups"]
    assert group["IpPermissions"] == []
    profile = found["IamInstanceProfile"]["Arn"].rpartition("/")[2]
    [role] = boto3.client("iam").get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
    assert role["RoleName"] == deployment.role
    trusted = role["AssumeRolePolicyDocument"]["Statement"]
    assert [statement["Principal"] for statement in trusted] == [{"Service": "ec2.amazonaws.com"}]
    assert Fleet(read_stack(deployment.outputs["Parameter"])).check_template() == []
    tagged = {kind["ResourceType"]: kind["Tags"] for kind in found["TagSpecifications"]}
    project = [{"Key": "loupe:project", "Value": where(deployment)["project"]}]
    assert tagged == {"instance": project, "volume": project, "network-interface": project}


def test_a_network_that_is_there_is_used(aws: None) -> None:
    ec2 = boto3.client("ec2")
    there, networks = ec2.describe_subnets()["Subnets"], len(ec2.describe_vpcs()["Vpcs"])
    subnets = [subnet["SubnetId"] for subnet in there if subnet["VpcId"] == there[0]["VpcId"]][:2]
    deployment = deploy(VpcId=there[0]["VpcId"], SubnetIds=",".join(subnets))
    assert where(deployment)["subnets"] == subnets
    assert len(ec2.describe_vpcs()["Vpcs"]) == networks


def test_two_zones_where_a_region_has_no_more(aws: None) -> None:
    assert len(where(deploy(Zones="2"))["subnets"]) == 2


def test_sessions_only_where_they_are_wanted(deployment: Deployment) -> None:
    assert deployment.policies.keys() == {"launcher", "instance", "promoter"}
    open_one = deploy(AllowSessions="true")
    sessions = open_one.policies["sessions"]
    attached = boto3.client("iam").list_attached_role_policies(RoleName=open_one.role)["AttachedPolicies"]
    assert len(attached) == 2
    anywhere = [statement for statement in sessions["Statement"] if listed(statement["Resource"]) == ["*"]]
    actions = [action for statement in anywhere for action in listed(statement["Action"])]
    assert all(re.fullmatch(r"ssmmessages:(Create|Open)(Control|Data)Channel", action) for action in actions)
    assert not allows(sessions, "ssm:GetParameter", "arn:aws:ssm:us-east-1:123456789012:parameter/x")


# --- rights -----------------------------------------------------------------------------------------------------------


def test_nothing_but_describing_is_allowed_on_everything(deployment: Deployment) -> None:
    assert deployment.policies.keys() == {"launcher", "instance", "promoter"}
    for name, policy in deployment.policies.items():
        for statement in policy["Statement"]:
            for action in listed(statement["Action"]):
                assert "*" not in action, (name, action)
                for resource in listed(statement["Resource"]):
                    assert resource.startswith("arn:aws:") or re.fullmatch(r"ec2:Describe\w+", action), (name, action)


def test_what_the_code_describes_may_be_described_and_nothing_else(deployment: Deployment) -> None:
    operations = boto3.client("ec2").meta.method_to_api_mapping
    called = {
        f"ec2:{operations[word]}"
        for path in Path(loupe.cloud.__path__[0]).glob("*.py")
        for word in re.findall(r"\bdescribe_[a-z_]+", path.read_text())
        if word in operations
    }
    statements = deployment.policies["launcher"]["Statement"]
    actions = {action for statement in statements for action in listed(statement["Action"])}
    assert {action for action in actions if action.startswith("ec2:Describe")} == called


def test_one_role_can_be_passed_and_to_ec2_alone(deployment: Deployment) -> None:
    role = f"arn:aws:iam::123456789012:role/{deployment.role}"
    to_ec2, launcher = {"iam:PassedToService": "ec2.amazonaws.com"}, deployment.policies["launcher"]
    assert allows(launcher, "iam:PassRole", role, to_ec2)
    assert not allows(launcher, "iam:PassRole", f"{role}-of-somebody", to_ec2)
    assert not allows(launcher, "iam:PassRole", "arn:aws:iam::123456789012:role/admin", to_ec2)
    assert not allows(launcher, "iam:PassRole", role, {"iam:PassedToService": "lambda.amazonaws.com"})
    assert not allows(launcher, "iam:PassRole", role)
    for name in ("instance", "promoter"):
        assert not allows(deployment.policies[name], "iam:PassRole", role, to_ec2)


@pytest.mark.parametrize("action", ["ec2:TerminateInstances", "ec2:GetConsoleOutput"])
def test_machines_of_the_project_alone_can_be_ended_and_read(deployment: Deployment, action: str) -> None:
    machine, ours = f"{ARN}:instance/i-1", {"aws:ResourceTag/loupe:project": where(deployment)["project"]}
    assert allows(deployment.policies["launcher"], action, machine, ours)
    assert not allows(deployment.policies["launcher"], action, machine, {"aws:ResourceTag/loupe:project": "another"})
    assert not allows(deployment.policies["launcher"], action, machine)
    assert not allows(deployment.policies["instance"], action, machine, ours)
    assert not allows(deployment.policies["promoter"], action, machine, ours)


def launch(deployment: Deployment, **changes: str | None) -> list[str]:
    """The kinds of things that the launcher would lack in a launch, which `changes` makes another one."""
    stack = where(deployment)
    template_arn = f"{ARN}:launch-template/{stack['launch_template']}"
    ec2 = boto3.client("ec2")
    version = ec2.describe_launch_template_versions(LaunchTemplateId=stack["launch_template"], Versions=["$Latest"])
    [group] = version["LaunchTemplateVersions"][0]["LaunchTemplateData"]["SecurityGroupIds"]
    context = {
        "ec2:LaunchTemplate": template_arn,
        "aws:RequestTag/loupe:project": stack["project"],
        "ec2:MetadataHttpTokens": "required",
        "ec2:Encrypted": "true",
        "ec2:InstanceType": "g5.xlarge",
        "ec2:Owner": "amazon",
    } | {key: value for key, value in changes.items() if value}
    context = {key: value for key, value in context.items() if changes.get(key, "") is not None}
    things = {
        "image": "arn:aws:ec2:us-east-1::image/ami-1",
        "instance": f"{ARN}:instance/*",
        "launch-template": template_arn,
        "network-interface": f"{ARN}:network-interface/*",
        "security-group": f"{ARN}:security-group/{group}",
        "spot-instances-request": f"{ARN}:spot-instances-request/*",
        "subnet": f"{ARN}:subnet/{stack['subnets'][0]}",
        "volume": f"{ARN}:volume/*",
    }
    things |= {kind: changes[kind] or "" for kind in changes if kind in things}
    launcher = deployment.policies["launcher"]
    return [kind for kind, thing in things.items() if not allows(launcher, "ec2:RunInstances", thing, context)]


def test_a_launch_is_as_the_template_wants_it(deployment: Deployment) -> None:
    assert launch(deployment) == []
    without_template = launch(deployment, **{"ec2:LaunchTemplate": None})
    assert {"instance", "volume", "image", "subnet", "security-group", "network-interface"} <= set(without_template)
    another = f"{ARN}:launch-template/lt-of-somebody"
    assert "instance" in launch(deployment, **{"ec2:LaunchTemplate": another, "launch-template": another})
    assert launch(deployment, **{"ec2:MetadataHttpTokens": "optional"}) == ["instance"]
    assert launch(deployment, **{"ec2:Encrypted": "false"}) == ["volume"]
    assert launch(deployment, **{"ec2:InstanceType": "p5.48xlarge"}) == ["instance"]
    assert launch(deployment, **{"ec2:Owner": "210987654321"}) == ["image"]
    assert launch(deployment, **{"aws:RequestTag/loupe:project": None}) == ["instance", "volume"]
    assert launch(deployment, **{"aws:RequestTag/loupe:project": "another"}) == ["instance", "volume"]
    assert launch(deployment, **{"security-group": f"{ARN}:security-group/sg-open"}) == ["security-group"]


def test_no_key_pair_comes_with_a_machine(deployment: Deployment) -> None:
    context = {"ec2:LaunchTemplate": f"{ARN}:launch-template/{where(deployment)['launch_template']}"}
    assert not allows(deployment.policies["launcher"], "ec2:RunInstances", f"{ARN}:key-pair/mine", context)


@pytest.mark.parametrize("kind", ["instance", "volume", "network-interface", "spot-instances-request"])
def test_tags_are_written_at_launch_alone(deployment: Deployment, kind: str) -> None:
    launcher, thing = deployment.policies["launcher"], f"{ARN}:{kind}/x"
    ours = {"aws:RequestTag/loupe:project": where(deployment)["project"]}
    assert allows(launcher, "ec2:CreateTags", thing, ours | {"ec2:CreateAction": "RunInstances"})
    assert not allows(launcher, "ec2:CreateTags", thing, ours)  # else any machine could be made ours, and ended
    assert not allows(launcher, "ec2:CreateTags", thing, {"ec2:CreateAction": "RunInstances"})


def test_who_launches_cannot_change_what_is_launched(deployment: Deployment) -> None:
    launcher, stack = deployment.policies["launcher"], where(deployment)
    for action in ("CreateLaunchTemplateVersion", "ModifyLaunchTemplate", "DeleteLaunchTemplate", "DeleteTags"):
        assert not allows(launcher, f"ec2:{action}", f"{ARN}:launch-template/{stack['launch_template']}")
    parameter = f"arn:aws:ssm:us-east-1:123456789012:parameter/{stack['project']}/ec2"
    assert allows(launcher, "ssm:GetParameter", parameter)
    assert not allows(launcher, "ssm:PutParameter", parameter)
    assert not allows(launcher, "ssm:GetParameter", "arn:aws:ssm:us-east-1:123456789012:parameter/password")
    assert allows(launcher, "ssm:GetParameter", "arn:aws:ssm:us-east-1::parameter/aws/service/deeplearning/ami/x")


@pytest.mark.parametrize("key", RELEASE)
def test_releases_are_the_promoters(deployment: Deployment, key: str) -> None:
    writes = {
        name: [
            action
            for action in ("PutObject", "PutObjectAcl", "DeleteObject", "DeleteObjectVersion", "AbortMultipartUpload")
            if allows(policy, f"s3:{action}", arn(deployment, key))
        ]
        for name, policy in deployment.policies.items()
    }
    removable = key.startswith("releases/versions/")  # what `loupe registry verify` clears
    assert writes == {
        "launcher": [],
        "instance": [],
        "promoter": ["PutObject", *(["DeleteObject"] if removable else []), "AbortMultipartUpload"],
    }
    reads = {name: allows(policy, "s3:GetObject", arn(deployment, key)) for name, policy in deployment.policies.items()}
    assert reads == {"launcher": True, "instance": False, "promoter": True}


def test_a_machine_writes_its_results_and_gives_no_orders(deployment: Deployment) -> None:
    machine = deployment.policies["instance"]
    assert {action.partition(":")[0] for one in machine["Statement"] for action in listed(one["Action"])} == {"s3"}
    for key in ("status.json", "log/0001-000001.txt", "result.json", "result/metrics/train/x.json"):
        assert allows(machine, "s3:PutObject", arn(deployment, f"ec2/runs/R/{key}"))
    assert allows(machine, "s3:PutObject", arn(deployment, "ec2/checkpoints/KEY/rdn/last.pt"))
    assert allows(machine, "s3:PutObject", arn(deployment, "dvc/files/md5/00/11"))
    for key in ("order.json", "code.bundle", "changes.patch", "attempts/0001.json", "launcher.json"):
        assert not allows(machine, "s3:PutObject", arn(deployment, f"ec2/runs/R/{key}"))
        assert allows(machine, "s3:GetObject", arn(deployment, f"ec2/runs/R/{key}"))
    for key in ("ec2/bootstrap/x.py", "ec2/inputs/MD5/x", "reports/x"):
        assert not allows(machine, "s3:PutObject", arn(deployment, key))
    for key in ("dvc/x", "ec2/runs/R/status.json", "ec2/checkpoints/x"):
        assert not allows(machine, "s3:DeleteObject", arn(deployment, key))


def test_policies_fit_into_iam(deployment: Deployment) -> None:
    def size(policy: Any) -> int:
        return len(re.sub(r"\s", "", json.dumps(policy)))

    assert {name: size(policy) for name, policy in deployment.policies.items() if size(policy) > 6144} == {}


# --- rights, as a server enforces them --------------------------------------------------------------------------------


@pytest.fixture
def strict_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A moto server of its own: whether it asks IAM is a setting of its whole process. It does after `enforce`."""
    port = free_port()
    url, report = f"http://127.0.0.1:{port}", tmp_path / "moto.log"
    with report.open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    speak_to(url, monkeypatch, tmp_path)
    try:
        assert answers(f"{url}/moto-api/", server), report.read_text()
        yield url
    finally:
        end_process_group(server)


def enforce(endpoint: str) -> None:
    """From now on moto looks into the policies of whoever asks; into actions and resources, not into conditions."""
    asked = Request(f"{endpoint}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"})
    with build_opener(ProxyHandler({})).open(asked, timeout=30) as answer:
        assert answer.status == 200


def keys_of(deployment: Deployment, name: str) -> dict[str, str]:
    """Credentials with the rights of a policy, as variables of the environment."""
    if name == "instance":
        role = f"arn:aws:iam::123456789012:role/{deployment.role}"
        given = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName="i-0123")["Credentials"]
        session = {"AWS_SESSION_TOKEN": given["SessionToken"]}
    else:
        iam = boto3.client("iam")
        iam.create_user(UserName=name)
        iam.attach_user_policy(UserName=name, PolicyArn=deployment.outputs[f"{name.title()}Policy"])
        given, session = iam.create_access_key(UserName=name)["AccessKey"], {}
    return {"AWS_ACCESS_KEY_ID": given["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"]} | session


def test_a_server_lets_each_do_its_work_and_no_more(
    strict_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deploy()
    people = {name: keys_of(deployment, name) for name in ("launcher", "promoter", "instance")}
    bucket = deployment.outputs["Bucket"]
    enforce(strict_server)

    def become(name: str) -> Any:
        monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
        for key, value in people[name].items():
            monkeypatch.setenv(key, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps the credentials that it has found
        return boto3.client("s3")

    def refused(client: Any, operation: str, key: str, **more: Any) -> None:
        with pytest.raises(ClientError, match="AccessDenied"):
            getattr(client, operation)(Bucket=bucket, Key=key, **more)

    become("promoter")
    store, alias = S3Store(deployment.outputs["Store"]), "aliases/production.json"
    store.put("versions/1.0.0-0f3a/MANIFEST.json", io.BytesIO(b"{}"))
    assert store.swap(alias, b"1", None)
    now = store.read(alias)
    assert now is not None and store.swap(alias, b"2", now.tag)
    store.remove("versions/1.0.0-0f3a/MANIFEST.json")
    assert store.names("versions/") == []
    with pytest.raises(StoreError, match="AccessDenied"):
        store.remove(alias)

    s3 = become("launcher")
    store = S3Store(deployment.outputs["Store"])
    there = store.read(alias)
    assert there is not None and there.data == b"2"
    with pytest.raises(StoreError, match="AccessDenied"):
        store.swap(alias, b"3", there.tag)
    s3.put_object(Bucket=bucket, Key="ec2/runs/R/order.json", Body=b"{}", IfNoneMatch="*")
    with pytest.raises(ClientError, match="NoSuchKey"):  # not AccessDenied: absence must be seen
        s3.get_object(Bucket=bucket, Key="ec2/runs/R/status.json")

    s3 = become("instance")
    assert s3.get_object(Bucket=bucket, Key="ec2/runs/R/order.json")["Body"].read() == b"{}"
    s3.put_object(Bucket=bucket, Key="ec2/runs/R/status.json", Body=b"{}")
    refused(s3, "put_object", "ec2/runs/R/order.json", Body=b"mine")
    refused(s3, "put_object", f"releases/{alias}", Body=b"mine")
    refused(s3, "get_object", f"releases/{alias}")
    refused(s3, "delete_object", "ec2/runs/R/status.json")
    with pytest.raises(ClientError, match="AccessDenied"):
        boto3.client("ec2").describe_instances()


def test_dvc_needs_no_more_than_a_machine_may(strict_server: str, tmp_path: Path) -> None:
    deployment = deploy()
    rights = keys_of(deployment, "instance")
    enforce(strict_server)
    project = tmp_path / "project"
    project.mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")} | rights
    environment |= {"DVC_NO_ANALYTICS": "1", "DVC_DAEMON": "1"}  # nothing is detached that outlives the test
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        environment[name] = str(tmp_path / name.lower())

    def dvc(*arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    dvc("init", "--no-scm", "--quiet")
    dvc("remote", "add", "--default", "s3", deployment.outputs["DvcRemote"])
    dvc("remote", "modify", "s3", "endpointurl", strict_server)
    (project / "weights").mkdir()
    (project / "weights/a").write_text("a")
    (project / "weights/b").write_text("b")
    dvc("stage", "add", "--quiet", "--run", "--name", "train", "--outs", "models", "cp -r weights models")
    dvc("push", "--quiet", "--run-cache")
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "models")
    dvc("pull", "--quiet", "--run-cache")
    assert (project / "models/b").read_text() == "b"
