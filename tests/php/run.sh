#!/usr/bin/env bash
# Tests clients/php with PHPUnit, and runs the PHP programs of docs/ and of the client's README, all against a server. Programs that
# need no extension also run without extensions. Needs php with curl, phpunit (Debian: php-cli, php-curl, phpunit), and python3.
#   FDPUSH_BIN  the binary to test (default: target/release/fdpush, built here)
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
if [[ -z ${FDPUSH_BIN:-} ]]; then
    cargo build --release --bin fdpush
    FDPUSH_BIN=$target/release/fdpush
fi
FDPUSH_BIN=$(realpath "$FDPUSH_BIN")
export FDPUSH_BIN

find clients/php -name '*.php' -print0 | while IFS= read -r -d '' file; do
    php -l "$file" >/dev/null
    grep -qx 'declare(strict_types=1);' "$file" || { echo "$file: declare(strict_types=1) is missing" >&2; exit 1; }
done
(cd clients/php && timeout 900 phpunit)

timeout 900 python3 - <<'PYTHON'
import hashlib, hmac, json, os, pathlib, re, socket, subprocess, tempfile, time

KEY = "the-key-of-this-test"
SECRET = "the-webhook-secret-of-this-test"
AUTOLOAD = pathlib.Path("clients/php/autoload.php").resolve()
server = subprocess.Popen([os.environ["FDPUSH_BIN"], "serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"],
                          env={**os.environ, "FDPUSH_API_KEY": KEY}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def block(page, text):
    """Returns the PHP program of a page that contains `text`. Only one program may contain this text."""
    [found] = [block for block in re.findall(r"(?ms)^```php\n(.*?)^```$", pathlib.Path(page).read_text()) if text in block]
    return found


def php(program, *options, stdin="", **environment):
    """Runs a program and returns its output and its errors."""
    program = program.replace("127.0.0.1:9502", api).replace("php://input", "php://stdin")
    program = program.replace("<?php\n", f"<?php\nrequire '{AUTOLOAD}';\n", 1)
    with tempfile.NamedTemporaryFile("w", suffix=".php") as file:
        file.write(program)
        file.flush()
        command = ["php", *options, "-d", "error_reporting=-1", "-d", "display_errors=1", "-d", "log_errors=0", file.name]
        environment = {**os.environ, "FDPUSH_KEY": KEY, "WEBHOOK_SECRET": SECRET, **environment}
        run = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, (run.stdout, run.stderr)
    return run.stdout, run.stderr


def connect(uid):
    client = socket.create_connection(address, timeout=60)
    client.sendall(f"GET /?uid={uid} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    stream = client.makefile("rb")
    client.close()
    while stream.readline() != b"\r\n":
        pass
    assert json.loads(text(stream))["type"] == "welcome"
    return stream


def text(stream):
    """Returns the next text message of a WebSocket."""
    head = stream.read(2)
    assert head[0] == 0x81, head
    length = int.from_bytes(stream.read(2), "big") if head[1] == 126 else head[1]
    return stream.read(length).decode()


def webhook(body, signature):
    return php(block(README, "Verifier"), stdin=body, HTTP_X_FDPUSH_SIGNATURE=signature)


try:
    host, port = re.search(r"([\d.]+):(\d+)", server.stdout.readline()).groups()
    address = (host, int(port))
    while "the API is on " not in (line := server.stderr.readline()):
        assert line, "the server must print its address"
    api = line.rsplit(" ", 1)[1].strip()
    README = "clients/php/README.md"

    push, client_push = block("docs/api.md", "file_get_contents"), block(README, "$client->push(")
    # Each program runs with the installed PHP extensions, and without extensions (`php -n`).
    runs = [(program, options) for program in (push, client_push) for options in ([], ["-n"])]
    for program, options in runs:
        assert php(program, *options) == ("offline\n", "")
    receiver = connect(10010)
    for program, options in runs:
        assert php(program, *options) == ("queued\n", "")
        assert text(receiver) == '{"type":"message","data":{"text":"hello"}}'

    for options in [], ["-n"]:
        assert php(block(README, "Gateway::"), *options) == ("online\n", "")
        assert php(block("docs/gatewayworker.md", "use Fdpush\\Gateway;"), *options) == ("1\n", "")
        assert php(block(README, "->batch("), *options) == ("10010: 1\n10011: 0\n", "")
        assert [text(receiver) for _ in range(3)] == ["hello", "hello", '{"type":"message","data":{"unread":3}}']

    body = json.dumps({"node": "n", "run": "r", "sent_ms": int(time.time() * 1000), "given_up": 0, "events": [
        {"seq": 1, "type": "open", "time_ms": 0, "fd": 3, "uid": None}]})
    signature = "sha256=" + hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
    assert webhook(body, signature) == ("", "1 open 3 \n")
    assert webhook(body + " ", signature) == ("the signature is missing or invalid", "")

    token = php(block(README, "TokenIssuer"), FDPUSH_JWT_SECRET="x" * 32)[0]
    assert token.count(".") == 2, token
    print("the PHP programs of the documents work")
finally:
    server.kill()
    server.wait()
PYTHON
