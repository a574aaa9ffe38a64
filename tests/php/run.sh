#!/usr/bin/env bash
# Runs the PHP programs of docs/ against a server. Needs php with curl (Debian: php-cli, php-curl), and python3. Programs that
# docs/ describes as independent of extensions run without extensions.
#   FDPUSH_BIN  the binary to test (default: target/release/fdpush, built here)
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
if [[ -z ${FDPUSH_BIN:-} ]]; then
    cargo build --release --bin fdpush
    FDPUSH_BIN=$target/release/fdpush
fi
FDPUSH_BIN=$FDPUSH_BIN timeout 900 python3 - <<'PYTHON'
import os, pathlib, re, socket, subprocess, tempfile

KEY = "the-key-of-this-test"
server = subprocess.Popen([os.environ["FDPUSH_BIN"], "serve", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"],
                          env={**os.environ, "FDPUSH_API_KEY": KEY}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def blocks(page):
    return re.findall(r"(?ms)^```php\n(.*?)^```$", pathlib.Path(page).read_text())


def php(program, *options):
    """Runs a program and returns its output."""
    program = program.replace("http://127.0.0.1:9502/", f"http://{api}/")
    with tempfile.NamedTemporaryFile("w", suffix=".php") as file:
        file.write(program)
        file.flush()
        command = ["php", *options, "-d", "error_reporting=-1", "-d", "display_errors=1", file.name]
        run = subprocess.run(command, env={**os.environ, "FDPUSH_KEY": KEY}, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and not run.stderr, (run.stdout, run.stderr)
    return run.stdout


def connect(uid):
    client = socket.create_connection(address, timeout=60)
    client.sendall(f"GET /?uid={uid} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    stream = client.makefile("rb")
    while stream.readline() != b"\r\n":
        pass
    return stream


def frame(stream):
    head = stream.read(2)
    length = int.from_bytes(stream.read(2), "big") if head[1] == 126 else head[1]
    return head[0], stream.read(length).decode(errors="replace")


def use(gateway, uid, *options):
    """Calls the class of docs/gatewayworker.md for a client that connects."""
    client = connect(uid)
    fd = re.search(r'"fd":(\d+)', frame(client)[1])[1]
    printed = php(gateway + f"""
Gateway::$key = getenv('FDPUSH_KEY');
foreach (['7' => true] as $name => $_) {{
    Gateway::joinGroup({fd}, (string) $name);
}}
echo json_encode([Gateway::isUidOnline('{uid}'), Gateway::isUidOnline('nobody'), Gateway::getClientIdByUid('{uid}'),
    Gateway::getUidByClientId({fd}), Gateway::isOnline({fd}), Gateway::isOnline(9999), Gateway::setSession({fd}, []),
    Gateway::updateSession({fd}, ['name' => '张三']), Gateway::getSession({fd})], JSON_UNESCAPED_UNICODE), "\\n";
Gateway::sendToUid(['a' => '{uid}'], 'to the uid');
Gateway::sendToGroup('7', 'to the group');
Gateway::sendToAll('to all');
try {{
    Gateway::bindUid({fd}, '');
}} catch (RuntimeException $error) {{
    echo $error->getMessage(), "\\n";
}}
Gateway::closeClient({fd}, 'bye');
""", *options)
    first, error = printed.splitlines()
    assert first == f'[true,false,[{fd}],"{uid}",true,false,[],{{"name":"张三"}},{{"name":"张三"}}]', first
    assert error.startswith("fdpush: bad_request: "), error
    texts = []
    while (received := frame(client))[0] == 0x81:
        texts.append(received[1])
    assert texts == [f'{{"type":"joined","group":"7","uid":"{uid}","count":1}}', "to the uid", "to the group", "to all", "bye"], texts
    assert received[0] == 0x88, received


try:
    host, port = re.search(r"([\d.]+):(\d+)", server.stdout.readline()).groups()
    address = (host, int(port))
    while "the API is on " not in (line := server.stderr.readline()):
        assert line, "the server must print its address"
    api = line.rsplit(" ", 1)[1].strip()

    [push] = [block for block in blocks("docs/api.md") if "file_get_contents" in block]
    assert php(push, "-n") == "offline\n"
    client = connect(10010)
    frame(client)
    assert php(push, "-n") == "queued\n"
    assert frame(client)[1] == '{"type":"message","data":{"text":"hello"}}'
    client.close()

    gateway = next(block for block in blocks("docs/gatewayworker.md") if "final class Gateway" in block)
    [call] = [block for block in blocks("docs/gatewayworker.md") if "file_get_contents" in block]
    use(gateway, 10011)
    without_curl = gateway[: gateway.index("    private static function call(")] + call + "}\n"
    without_curl = without_curl.replace("    private static ?CurlHandle $curl = null;\n", "")
    assert "curl" not in without_curl.lower()
    use(without_curl, 10012, "-n")
    print("the PHP programs of docs/ work")
finally:
    server.kill()
    server.wait()
PYTHON
