"""A role's policy, enforced on what this process asks of S3, as AWS would."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import pytest
from aiobotocore.client import AioBaseClient
from botocore.exceptions import ClientError

from tests.cluster.conftest import ROOT

OF_OBJECTS = {"GetObject": "s3:GetObject", "HeadObject": "s3:GetObject"}


def listed(value: str | list[str]) -> list[str]:
    """What may be one word or several, in a policy."""
    return [value] if isinstance(value, str) else value


def statements(name: str) -> list[dict[str, Any]]:
    """Of a policy in cluster/aws/iam."""
    return list(json.loads((ROOT / "cluster" / "aws" / "iam" / f"{name}.json").read_text())["Statement"])


class Policy:
    """What a role may do. Known: Allow, and the condition StringLike on s3:prefix."""

    def __init__(self, name: str):
        self._statements, self._used = statements(name), set[tuple[str, str]]()
        for each in self._statements:
            assert each["Effect"] == "Allow"
            assert set(each.get("Condition", {})) <= {"StringLike"}

    def allows(self, action: str, resource: str, prefix: str = "") -> bool:
        """Whether an action is allowed. resource: ARN. prefix: that is listed."""
        found = False
        for each in self._statements:
            wanted = listed(each.get("Condition", {}).get("StringLike", {}).get("s3:prefix", "*"))
            for pattern in listed(each["Resource"]):
                named = action in listed(each["Action"]) and fnmatchcase(resource, pattern)
                if named and any(fnmatchcase(prefix, like) for like in wanted):
                    self._used.add((action, pattern))
                    found = True
        return found

    def unused(self) -> set[tuple[str, str]]:
        """Actions on resources that are allowed and were not asked for."""
        all_of = {(a, r) for each in self._statements for a in listed(each["Action"]) for r in listed(each["Resource"])}
        return all_of - self._used


@contextmanager
def enforced(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Policy]:
    """Whatever the policy in cluster/aws/iam/NAME.json does not allow is refused meanwhile."""
    policy, asked = Policy(name), AioBaseClient._make_api_call

    async def ask(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        bucket, key = f"arn:aws:s3:::{parameters['Bucket']}", parameters.get("Key", "")
        if operation == "ListObjectsV2":
            allowed = policy.allows("s3:ListBucket", bucket, parameters.get("Prefix", ""))
        else:
            allowed = policy.allows(OF_OBJECTS[operation], f"{bucket}/{key}")
        refusal = ClientError({"Error": {"Code": "AccessDenied", "Message": f"{operation} {parameters}"}}, operation)
        if not allowed:
            raise refusal
        try:
            return await asked(self, operation, parameters)
        except ClientError as error:
            missing = error.response["Error"]["Code"] in ("404", "NoSuchKey")
            if missing and not policy.allows("s3:ListBucket", bucket, key):
                raise refusal from None  # only who may list a key is told that it is not there
            raise

    with monkeypatch.context() as patch:
        patch.setattr(AioBaseClient, "_make_api_call", ask)
        yield policy
