"""Tests `GET /openapi.json`: the document is valid, and Schemathesis finds no difference between the document and the server."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway import KEY, Gateway

HERE = pathlib.Path(__file__).parent
# Timeout of one run of Schemathesis, in seconds. A run takes 10 to 40 seconds on two busy cores.
RUN_TIMEOUT = 300
# The calls after which fewer connections, uids or memberships exist. They have a run and a server of their own, so that the other
# calls find connections.
REMOVALS = ["/api/bind", "/api/unbind", "/api/leave", "/api/ungroup", "/api/close"]


class OpenApiTest(unittest.TestCase):
    """A server with the connections that the examples of the document name: the fds 3 and 4, two uids and two groups."""

    maxDiff = None

    def setUp(self):
        self.gateway = Gateway()
        self.clients = []
        self.addCleanup(self.end)
        # An API connection takes an fd, too, so the clients connect before the first request.
        for uid in ["10010", "10011", "10010", "10011"]:
            self.clients.append(self.gateway.connect(f"/?uid={uid}"))
        fds = [client.fd for client in self.clients]
        self.assertEqual(fds, [1, 2, 3, 4])
        self.gateway.done("/api/join", {"fds": fds, "groups": ["room", "hall"]})
        self.document = self.gateway.get("/openapi.json")

    def end(self):
        for client in self.clients:
            client.socket.shutdown()
        self.assertEqual(self.gateway.stop(), 0)

    def validator(self, schema):
        return Draft202012Validator({**schema, "components": self.document["components"]})


class Documents(OpenApiTest):
    def test_the_document_is_valid(self):
        errors = [f"{error.json_path}: {error.message}" for error in OpenAPIV31SpecValidator(self.document).iter_errors()]
        self.assertEqual(errors, [])

    def test_each_component_is_used(self):
        text = json.dumps(self.document)
        for kind in ["schemas", "responses", "parameters"]:
            for name in self.document["components"][kind]:
                self.assertIn(f'"#/components/{kind}/{name}"', text)

    def test_the_examples_are_valid(self):
        count = 0
        for schema, example in examples(self.document):
            errors = [error.message for error in self.validator(schema).iter_errors(example)]
            self.assertEqual(errors, [], example)
            count += 1
        self.assertGreater(count, 40)

    def test_the_schemas_refuse_what_the_server_refuses(self):
        for name, body, is_valid in [
            ("push", {"uid": "a", "data": None}, True),
            ("push", {"uid": "a", "uids": None, "text": "", "except": []}, True),
            ("push", {"uids": {}, "binary": "AA=="}, True),
            ("push", {"uid": "a", "fd": 3, "data": 1}, False),
            ("push", {"uid": "a", "data": None, "text": "a"}, False),
            ("push", {"uid": "a", "binary": "AB=="}, False),
            ("push", {"uid": "a", "data": 1, "except": {"all": True}}, False),
            ("push", {"all": False, "data": 1}, False),
            ("push", {"fd": 1 << 24, "data": 1}, False),
            ("push", {"fd": (1 << 24) + 1, "data": 1}, True),
            ("push", {"uid": 1 << 64, "data": 1}, False),
            ("push", {"uid": (1 << 64) - 1, "data": 1}, True),
            ("push", {"uid": "a", "data": 1, "auth": "key"}, False),
            ("bind", {"fd": 9, "uid": None}, False),
            ("join", {"uid": "a", "group": "g", "groups": ["h"]}, False),
            ("join", {"uid": "a", "groups": ["h"]}, True),
            ("unbind", {}, False),
            ("close", {"uid": "a", "code": 1005}, False),
            ("close", {"uid": "a", "code": 1014, "reason": "x" * 123}, True),
            ("close", {"uid": "a", "reason": "x" * 124}, False),
            ("online", {"uids": {}}, True),
            ("online", {"uids": {"0": "a"}}, False),
        ]:
            with self.subTest(name=name, body=body):
                content = self.document["paths"][f"/api/{name}"]["post"]["requestBody"]["content"]
                self.assertEqual(self.validator(content["application/json"]["schema"]).is_valid(body), is_valid)
                status = self.gateway.call("POST", f"/api/{name}", json=body).status_code
                self.assertEqual(status, 200 if is_valid else 400)

    def test_the_lines_of_a_batch_are_pushes_and_their_answers(self):
        batch = self.document["paths"]["/api/batch"]["post"]
        [example] = batch["requestBody"]["content"]["application/x-ndjson"]["examples"].values()
        answer = self.gateway.call("POST", "/api/batch", data=example["value"], headers={"Content-Type": "application/x-ndjson"})
        self.assertIn(answer.headers["Content-Type"], batch["responses"]["200"]["content"])
        outcomes = []
        for command, line in zip(example["value"].splitlines(), answer.text.splitlines(), strict=True):
            is_push = self.validator({"$ref": "#/components/schemas/Push"}).is_valid(json.loads(command))
            expected = "Pushed" if is_push else "Error"
            errors = self.validator({"$ref": f"#/components/schemas/{expected}"}).iter_errors(json.loads(line))
            self.assertEqual([error.message for error in errors], [], line)
            outcomes.append(expected)
        self.assertEqual(outcomes, ["Pushed", "Pushed", "Error"])


class Requests(OpenApiTest):
    def run_schemathesis(self, *options):
        """Sends valid and invalid requests, and returns the number of answers for each call and status."""
        with tempfile.TemporaryDirectory() as scratch:
            document, record = pathlib.Path(scratch, "openapi.json"), pathlib.Path(scratch, "answers.json")
            document.write_text(json.dumps(self.document))
            command = [
                sys.executable, "-m", "schemathesis.cli", "--config-file", HERE / "schemathesis.toml",
                "run", document, "--url", f"http://{self.gateway.api}", "--header", f"Authorization: Bearer {KEY}",
                "--checks", "all", "--seed", "1", "--max-examples", "5", "--generation-database", "none",
                "--warnings", "off", "--no-color", *options,
            ]
            environment = {
                **os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(HERE), "ANSWERS": str(record),
            }
            run = subprocess.run(
                command, cwd=scratch, env=environment, timeout=RUN_TIMEOUT, text=True, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            self.assertEqual(run.returncode, 0, "\n".join(line[:500] for line in run.stdout.splitlines()))
            return json.loads(record.read_text())

    def check(self, answers, paths):
        """Checks that each call was tested: with success, without a key, and with invalid input if it has input."""
        for path in paths:
            for method, operation in self.document["paths"][path].items():
                statuses = answers[f"{method.upper()} {path}"].keys()
                has_input = path != "/api/batch" and ("requestBody" in operation or "parameters" in operation)
                expected = {"200", *(["401"] if "security" not in operation else []), *(["400"] if has_input else [])}
                self.assertLessEqual(expected, statuses, f"{method} {path}")

    def test_queries_and_pushes(self):
        options = [option for path in REMOVALS for option in ["--exclude-path", path]]
        self.check(self.run_schemathesis(*options), self.document["paths"].keys() - REMOVALS)

    def test_removals(self):
        options = [option for path in REMOVALS for option in ["--include-path", path]]
        # The phase `stateful` of Schemathesis uses the results of calls that list connections. This run has no such
        # calls, so it omits the phase.
        self.check(self.run_schemathesis("--phases", "examples,coverage,fuzzing", *options), REMOVALS)


def examples(document):
    """Returns pairs of a schema and an example from all parts of a document."""
    pairs = []
    for name, schema in document["components"]["schemas"].items():
        pairs += [({"$ref": f"#/components/schemas/{name}"}, example) for example in schema.get("examples", [])]
    for parameter in document["components"]["parameters"].values():
        pairs.append((parameter["schema"], parameter["example"]))
    for operations in document["paths"].values():
        for operation in operations.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                pairs += [(content["schema"], example["value"]) for example in content["examples"].values()]
    return pairs


if __name__ == "__main__":
    unittest.main()
