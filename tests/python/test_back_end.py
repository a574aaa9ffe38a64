"""Tests the API as a back end: pushes, queries, changes and errors."""

import json
import unittest

import requests
import websocket

from gateway import KEY, NEXT_KEY, TIMEOUT, Gateway

def pushed(matched, offline=()):
    return {"matched": matched, "queued": matched, "dropped": 0, "offline": list(offline)}


class ApiTest(unittest.TestCase):
    maxDiff = None
    flags = []
    has_keys = True

    def setUp(self):
        self.clients = []
        self.gateway = Gateway(*self.flags, has_keys=self.has_keys)
        self.addCleanup(self.end)

    def end(self):
        for client in self.clients:
            client.socket.shutdown()
        self.assertEqual(self.gateway.stop(), 0)

    def connect(self, uid=None):
        client = self.gateway.connect(f"/?uid={uid}" if uid else "/")
        self.clients.append(client)
        return client

    def push(self, **command):
        return self.gateway.done("/api/push", command)


class Pushes(ApiTest):
    def test_push_to_all_connections_of_a_uid(self):
        phone, laptop, other = self.connect("ann"), self.connect("ann"), self.connect("bob")
        data = {"text": "hello, 世界 🦀", "n": [1, 2.5, None]}
        self.assertEqual(self.push(uid="ann", data=data), pushed(2))
        for client in (phone, laptop):
            self.assertEqual(client.message(), {"type": "message", "data": data})
        self.assertEqual(self.push(uids=["ann", "nobody", "bob"], data=1, id=7), {"id": 7, **pushed(3, ["nobody"])})
        self.assertEqual(other.message(), {"type": "message", "data": 1})

    def test_push_to_an_fd_a_group_and_all(self):
        ann, bob, anonymous = self.connect("ann"), self.connect("bob"), self.connect()
        self.assertIsNone(anonymous.welcome["uid"])
        self.gateway.done("/api/join", {"fds": [ann.fd, anonymous.fd], "group": "a/b ü"})
        for target, fields, reached in [
            ({"fd": anonymous.fd}, {}, [anonymous]),
            ({"fds": [ann.fd, bob.fd]}, {}, [ann, bob]),
            ({"group": "a/b ü"}, {"group": "a/b ü"}, [ann, anonymous]),
            ({"groups": ["a/b ü", "none"]}, {"groups": ["a/b ü", "none"]}, [ann, anonymous]),
            ({"all": True}, {"all": True}, [ann, bob, anonymous]),
            ({"all": True, "except": {"uid": "ann", "fd": anonymous.fd}}, {"all": True}, [bob]),
        ]:
            with self.subTest(target):
                self.assertEqual(self.push(**target, data=target), pushed(len(reached)))
                for client in reached:
                    self.assertEqual(client.message(), {"type": "message", **fields, "data": target})

    def test_text_and_binary_arrive_unchanged(self):
        ann = self.connect("ann")
        for text in ["", "plain", "line\nbreak 消息"]:
            self.assertEqual(self.push(uid="ann", text=text), pushed(1))
            self.assertEqual(ann.next(), text)
        self.assertEqual(self.push(all=True, binary="AP8+Pw=="), pushed(1))
        self.assertEqual(ann.next(), b"\x00\xff>?")

    def test_a_batch_is_answered_line_by_line(self):
        ann = self.connect("ann")
        commands = [{"uid": "ann", "data": n, "id": n} for n in range(1, 501)]
        commands[99] = {"uid": 17.5, "data": 1, "id": 100}
        # A generator has no length, so the library requests sends the body in chunks.
        lines = (json.dumps(command).encode() + b"\n" for command in commands)
        kind = {"Content-Type": "application/x-ndjson"}
        with self.gateway.call("POST", "/api/batch", data=lines, headers=kind, stream=True) as answer:
            self.assertEqual((answer.status_code, answer.headers["Content-Type"]), (200, kind["Content-Type"]))
            answers = [json.loads(line) for line in answer.iter_lines()]
        wrong = answers.pop(99)
        self.assertEqual((wrong["id"], wrong["error"]["code"], wrong["error"]["line"]), (100, "bad_request", 100))
        self.assertIn("uid", wrong["error"]["message"])
        good = [n for n in range(1, 501) if n != 100]
        self.assertEqual(answers, [{"id": n, **pushed(1)} for n in good])
        self.assertEqual([ann.message()["data"] for _ in good], good)

    def test_a_stale_fd_reaches_no_connection(self):
        old = self.connect("ann")
        old.close()
        successor = self.connect("bob")
        self.assertNotEqual(old.fd, successor.fd)
        self.assertEqual(self.push(fd=old.fd, data="for the old"), pushed(0))
        self.assertEqual(self.push(uid="ann", data=1), pushed(0, ["ann"]))
        for verb, more in [("bind", {"uid": "x"}), ("unbind", {}), ("join", {"group": "g"}), ("leave", {"group": "g"})]:
            answer = self.gateway.done(f"/api/{verb}", {"fd": old.fd, **more})
            self.assertEqual(answer, {"matched": 0, "changed": 0}, verb)
        self.assertEqual(self.gateway.done("/api/close", {"fd": old.fd}), {"matched": 0})
        self.assertEqual(self.gateway.call("GET", f"/api/connections/{old.fd}").status_code, 404)
        self.push(fd=successor.fd, data="for the successor")
        self.assertEqual(successor.message()["data"], "for the successor")

    def test_clients_push_to_one_another(self):
        ann, bob = self.connect("ann"), self.connect("bob")
        answer = ann.ask({"type": "push", "to": "bob", "data": "psst"})
        self.assertEqual(answer, {"type": "ack", "id": "mine", "matched": 1, "queued": 1, "dropped": 0})
        expected = {"type": "message", "from": "ann", "fd": ann.fd, "data": "psst"}
        self.assertEqual(bob.message(), expected)


class Verbs(ApiTest):
    def test_bind_join_leave_and_queries(self):
        api = self.gateway
        ann, bob = self.connect(), self.connect("bob")
        one = {"matched": 1, "changed": 1}
        self.assertEqual(api.done("/api/bind", {"fd": ann.fd, "uid": "ann"}), one)
        self.assertEqual(api.done("/api/bind", {"fd": ann.fd, "uid": "ann"}), {"matched": 1, "changed": 0})
        online = api.done("/api/online", {"uids": ["ann", "bob", "cat"]})
        self.assertEqual(online, {"online": {"ann": [ann.fd], "bob": [bob.fd]}, "offline": ["cat"]})

        both = {"uids": ["ann", "bob"], "groups": ["room", "hall"]}
        self.assertEqual(api.done("/api/join", both), {"matched": 2, "changed": 2})
        joined = {"type": "joined", "group": "room", "uids": ["ann", "bob"], "count": 2}
        while ann.frame("joined") != joined:
            pass
        self.assertEqual(api.done("/api/leave", {"fd": bob.fd, "group": "room"}), one)
        self.assertEqual(ann.frame("left"), {"type": "left", "group": "room", "uid": "bob", "count": 1})
        room = api.get("/api/groups/room")
        self.assertEqual((room["count"], room["members"]), (1, [{"fd": ann.fd, "uid": "ann"}]))
        self.assertEqual(sorted(api.get(f"/api/connections/{ann.fd}")["groups"]), ["hall", "room"])
        self.assertEqual(api.get("/api/groups?after=hall")["groups"], [{"group": "room", "count": 1}])
        listed = [connection["fd"] for connection in api.get("/api/connections")["connections"]]
        self.assertEqual(sorted(listed), sorted([ann.fd, bob.fd]))
        self.assertEqual([user["uid"] for user in api.get("/api/users?limit=1")["users"]], ["ann"])
        self.assertEqual(api.done("/api/ungroup", {"group": "hall"}), {"matched": 2, "changed": 2})
        self.assertEqual(self.push(group="hall", data=1), pushed(0))

        self.assertEqual(api.done("/api/unbind", {"uid": "ann"}), one)
        self.assertEqual(api.call("GET", "/api/users/ann").status_code, 404)
        stats = api.get("/api/stats")
        self.assertEqual((stats["open"], stats["users"], stats["groups"]), (2, 1, 1))

    def test_attributes(self):
        ann = self.connect("ann")
        path = f"/api/connections/{ann.fd}/attributes"
        self.assertEqual(self.gateway.get(path), {})
        whole = {"theme": "dark", "draft": {"text": "x"}}
        self.assertEqual(self.gateway.call("PUT", path, json=whole).json(), whole)
        patched = self.gateway.call("PATCH", path, json={"draft": None, "plan": "pro"}).json()
        self.assertEqual(patched, {"theme": "dark", "plan": "pro"})
        self.assertEqual(self.gateway.get(path), patched)

    def test_close_with_a_code_and_a_last_message(self):
        ann, bob = self.connect("ann"), self.connect("bob")
        self.push(uid="ann", data="the last")
        closing = {"uid": "ann", "code": 4000, "reason": "signed out"}
        self.assertEqual(self.gateway.done("/api/close", closing), {"matched": 1})
        self.assertEqual(ann.message()["data"], "the last")
        self.assertEqual(ann.closed(), (4000, "signed out"))
        self.assertEqual(self.gateway.done("/api/online", {"uids": ["ann"]}), {"online": {}, "offline": ["ann"]})
        self.assertEqual(self.gateway.done("/api/close", {"all": True, "abort": True}), {"matched": 1})
        with self.assertRaises((websocket.WebSocketConnectionClosedException, ConnectionResetError)):
            bob.next()

    def test_health_and_metrics(self):
        for path, text in [("/healthz", "alive\n"), ("/readyz", "ready\n")]:
            answer = requests.get(f"http://{self.gateway.api}{path}", timeout=TIMEOUT)
            self.assertEqual((answer.status_code, answer.text), (200, text))
        self.connect("ann")
        self.assertIn("fdpush_uids 1\n", self.gateway.call("GET", "/metrics").text)


class Refusals(ApiTest):
    flags = ["--message-bytes-max", "16KiB", "--queue-bytes-max", "64KiB", "--body-bytes-max", "256KiB"]

    def check(self, answer, status, code, *words):
        """Checks the status, the error code, and words of the error message."""
        self.assertEqual(answer.status_code, status, answer.text)
        error = answer.json()["error"]
        self.assertEqual(error["code"], code)
        for word in words:
            self.assertIn(word, error["message"])

    def test_a_missing_or_unknown_key_is_refused(self):
        url = f"http://{self.gateway.api}/api/push"
        body = {"all": True, "data": 1}
        for headers, words in [
            ({}, "Authorization: Bearer"),
            ({"Authorization": "Bearer wrong"}, "unknown API key"),
            ({"Authorization": f"Basic {KEY}"}, "Authorization: Bearer"),
        ]:
            answer = requests.post(url, json=body, headers=headers, timeout=TIMEOUT)
            self.check(answer, 401, "unauthorized", words)
            self.assertEqual(answer.headers["WWW-Authenticate"], "Bearer")
        for key in [KEY, NEXT_KEY]:
            answer = requests.post(url, json=body, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT)
            self.assertEqual(answer.json(), pushed(0))

    def test_an_error_names_the_fault(self):
        ann = self.connect("ann")
        all_of = {"all": True}
        for verb, body, word in [
            ("push", {"uid": 17.5, "data": 1}, "uid: "),
            ("push", {"uid": True, "data": 1}, "uid: "),
            ("push", {"uids": {"0": "ann"}, "data": 1}, "array_values"),
            ("push", {"uids": "ann", "data": 1}, "uids: "),
            ("push", {"uids": ["ann", None], "data": 1}, "uids[1]: "),
            ("push", {"fd": "3", "data": 1}, "fd: "),
            ("push", {"fd": -1, "data": 1}, "fd: "),
            ("push", {**all_of, "data": 1, "colour": "red"}, "colour"),
            ("push", {**all_of, "data": 1, "except": {"all": True}}, "except"),
            ("push", {"uid": "ann", "group": "room", "data": 1}, "only one of uid"),
            ("push", {"data": 1}, "one of uid"),
            ("push", {"all": False, "data": 1}, "all"),
            ("push", all_of, "one of data"),
            ("push", {**all_of, "data": 1, "text": "1"}, "only one of data"),
            ("push", {**all_of, "text": 1}, "text: "),
            ("push", {**all_of, "binary": "no base64!"}, "binary: not base64"),
            ("push", {**all_of, "data": 1, "id": [1]}, "id must be a string or a number"),
            ("push", {"uid": "", "data": 1}, "uid: "),
            ("push", {"group": "x" * 129, "data": 1}, "group: "),
            ("push", [1], "object"),
            ("bind", {"fd": ann.fd}, "missing member: uid"),
            ("bind", {"uid": "x"}, "missing member: fd"),
            ("bind", {"fd": ann.fd, "uid": "x", "group": "g"}, "group"),
            ("unbind", {}, "one of uid"),
            ("join", {"fd": ann.fd}, "one of group"),
            ("join", {"group": "g"}, "one of uid"),
            ("leave", {"fd": ann.fd, "group": 1.5}, "group: "),
            ("ungroup", {"group": "g", "uid": "ann"}, "uid"),
            ("close", {"uid": "ann", "code": 1005}, "code 1005 must be 1000 to 1003"),
            ("close", {"uid": "ann", "code": "1000"}, "code: "),
            ("close", {"uid": "ann", "reason": "x" * 124}, "reason limit exceeded (124 of 123 bytes)"),
            ("online", {}, "uids"),
            ("online", {"uids": [1.5]}, "uids[0]: "),
        ]:
            with self.subTest(verb=verb, body=body):
                self.check(self.gateway.call("POST", f"/api/{verb}", json=body), 400, "bad_request", word)
        json_type = {"Content-Type": "application/json"}
        for text in [b"", b"{", b"\xff", b'{"all":true,"data":}']:
            with self.subTest(text=text):
                answer = self.gateway.call("POST", "/api/push", data=text, headers=json_type)
                self.check(answer, 400, "bad_request")
        # The state is unchanged, so no refused command had an effect.
        self.push(uid="ann", data="sentinel")
        self.assertEqual(json.loads(ann.next())["data"], "sentinel")

    def test_large_messages_and_bodies_are_refused(self):
        ann = self.connect("ann")
        for payload in [{"text": "x" * 70_000}, {"data": "x" * 70_000}, {"binary": "AAAA" * 30_000}]:
            answer = self.gateway.call("POST", "/api/push", json={"uid": "ann", **payload})
            self.check(answer, 413, "too_large", "queue_bytes_max")
        # The server refuses a body over the limit before it parses the command.
        answer = self.gateway.call("POST", "/api/push", json={"uid": "ann", "text": "x" * 300_000})
        self.assertEqual((answer.status_code, answer.headers["Connection"]), (413, "close"))
        self.push(uid="ann", text="small")
        self.assertEqual(ann.next(), "small")

    def test_paths_and_methods(self):
        self.check(self.gateway.call("POST", "/api/nothing", json={}), 404, "not_found")
        self.check(self.gateway.call("GET", "/api/users/nobody"), 404, "not_found")
        self.check(self.gateway.call("GET", "/api/connections/99"), 404, "not_found")
        self.check(self.gateway.call("GET", "/api/users?limit=x"), 400, "bad_request", "limit")
        self.check(self.gateway.call("GET", "/api/users?colour=red"), 400, "bad_request", "colour")
        answer = self.gateway.call("GET", "/api/push")
        self.check(answer, 405, "method_not_allowed", "POST")
        self.assertEqual(answer.headers["Allow"], "POST")


class WithoutKeys(Refusals):
    has_keys = False

    def test_a_missing_or_unknown_key_is_refused(self):
        url = f"http://{self.gateway.api}/api/push"
        for headers in [{"Origin": "https://evil.example"}, {"Host": "evil.example"}]:
            answer = requests.post(url, json={"all": True, "data": 1}, headers=headers, timeout=TIMEOUT)
            self.check(answer, 403, "forbidden", "API without keys")
        self.check(requests.post(url, data='{"all":true,"data":1}', timeout=TIMEOUT), 415, "unsupported_media_type")


class SecondLogins(ApiTest):
    flags = ["--on-second-login", "reject_new"]

    def test_a_uid_that_is_taken(self):
        self.connect("ann")
        other = self.connect()
        answer = self.gateway.call("POST", "/api/bind", json={"fd": other.fd, "uid": "ann"})
        self.assertEqual((answer.status_code, answer.json()["error"]["code"]), (409, "taken"))
        with self.assertRaises(websocket.WebSocketBadStatusException) as refused:
            self.connect("ann")
        self.assertEqual(refused.exception.status_code, 409)


if __name__ == "__main__":
    unittest.main()
