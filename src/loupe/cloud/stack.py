"""The account's set-up as one CloudFormation template: stack.yaml with the policies put in.

    stack.yaml                 bucket, network, launch template, roles, and the parameter by which loupe finds them
    policies/launcher.json     whoever launches: `loupe ec2 launch`, the flow retrain
    policies/instance.json     the machine
    policies/promoter.json     whoever promotes: the only one who may move an alias
    policies/sessions.json     the machine, in addition, where people may open a shell on it

The policies are IAM's own JSON, to be read and compared as such. ${Name} in them means a resource, a parameter or a
pseudo parameter of the template, as in Fn::Sub.

Why they are as wide as they are:
- EC2's Describe* know no resources: IAM takes nothing but "*" for them. Those that are used are named one by one, for
  ec2:Describe* would also give the user-data of all other machines of the account.
- So do the ssmmessages actions, which carry a session; they act on the machine's own session alone.
- s3:ListBucket is not limited by s3:prefix. Who may not list gets 403 instead of 404 for an object that is not there,
  "no status yet" could not be told from "refused", and whether the condition lets 404 through is documented nowhere.
  The bucket is the project's own; what can be seen are names.
- A launch asks for the right to use each thing that takes part in it. spot-instances-request comes without a condition
  because the template is no part of it; a launch without the template still lacks the right to the rest.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any


def template() -> str:
    """The template as JSON, to be given to `aws cloudformation deploy`."""
    from ruamel.yaml import YAML

    text = files(__package__).joinpath("stack.yaml").read_text(encoding="utf-8")
    return json.dumps(_with_policies(YAML(typ="safe").load(text)), indent=1)


def _with_policies(node: Any) -> Any:
    """A part of stack.yaml in which `PolicyDocument: policies/NAME.json` is what that file says."""
    if isinstance(node, list):
        return [_with_policies(item) for item in node]
    if not isinstance(node, dict):
        return node
    document = node.get("PolicyDocument")
    if isinstance(document, str):
        policy = json.loads(files(__package__).joinpath(document).read_text(encoding="utf-8"))
        return node | {"PolicyDocument": _with_functions(policy)}
    return {key: _with_policies(value) for key, value in node.items()}


def _with_functions(node: Any) -> Any:
    """A part of a policy in which CloudFormation's functions stand for the placeholders."""
    if isinstance(node, list):
        return [_with_functions(item) for item in node]
    if isinstance(node, dict):
        return {key: _with_functions(value) for key, value in node.items()}
    if alone := re.fullmatch(r"\$\{([\w:]+)\}", node):
        return {"Ref": alone[1]}  # it may be a list, for which Fn::Sub has no place
    return {"Fn::Sub": node} if "${" in node else node
