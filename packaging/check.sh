#!/usr/bin/env bash
# Checks packaging/ and docs/ against the server: every file can be parsed; settings, metrics, links and anchors exist; the
# dashboard and docs/operations.md name every metric; docs/operations.md has a row for every alert.
#   packaging/check.sh             checks that need no server
#   packaging/check.sh METRICS     also checks each metric in the files against METRICS, the URL of /metrics of a server with
#                                  several loops, or a file with its text
#   packaging/check.sh --live BIN  starts BIN on unused ports, and runs the checks of METRICS and FDPUSH_BIN against it
#   FDPUSH_KEY                     the API key of the server at METRICS, if it requires one
#   FDPUSH_BIN                     also checks the settings file against this binary's settings, defaults and `check` command
# Needs python3 (3.11). Uses systemd-analyze and promtool if installed.
set -euo pipefail

metrics=${1:-}
binary=${FDPUSH_BIN:-}
scratch=$(mktemp -d)
server=
clean_up() {
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    wait
    rm -r "$scratch"
}
trap clean_up EXIT

if [[ $metrics == --live ]]; then
    binary=$(realpath "${2:?--live needs the path of the binary}")
    # The file must exist before the loop below reads it with `sed`.
    touch "$scratch/log"
    # Only a server with several loops has the metrics of each loop.
    "$binary" serve --loops 2 --listen 127.0.0.1:0 --api 127.0.0.1:0 >/dev/null 2>"$scratch/log" &
    server=$!
    for (( tries = 600; tries > 0; tries-- )); do
        api=$(sed -n 's/.*the API is on //p' "$scratch/log")
        [[ -z $api ]] || break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    [[ -n $api ]] || { cat "$scratch/log"; echo "$binary did not start"; exit 1; } >&2
    metrics=http://$api/metrics
fi
cd "$(dirname "$0")/.."

python3 - "$metrics" "$binary" "$scratch" <<'PYTHON'
import json, os, pathlib, re, subprocess, sys, tempfile, tomllib, urllib.error, urllib.request

metrics_at, binary, scratch = sys.argv[1:]
faults = []

# Checks the settings file, as it is and with every setting enabled.
settings = pathlib.Path("packaging/fdpush.toml")
text = settings.read_text()
if tomllib.loads(text):
    faults.append(f"{settings}: not every setting is commented out")
keys = set(tomllib.loads(re.sub(r"(?m)^#([a-z0-9_]+ = )", r"\1", text)))

# Checks the metrics in the dashboard, the alerts and docs/operations.md.
dashboard = pathlib.Path("packaging/grafana/fdpush.json")
json.loads(dashboard.read_text())
alerts = pathlib.Path("packaging/prometheus/fdpush.rules.yml")
handbook = pathlib.Path("docs/operations.md")
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")
# Metrics with a label for which /metrics has a sample for every value of the label, even directly after the start of the server.
LABEL = re.compile(r"""\b(fdpush_[a-z_]+)\{[^}]*\b(state|outcome|policy|direction|cause|reason)=~?\\?"([a-z_|]+)""")
named = {}
labels = {}
for path in dashboard, alerts, handbook:
    # A name must be a whole word: no letter, digit or `_` may precede or follow it.
    for name in re.findall(r"\bfdpush_[a-z_]+\b", path.read_text()):
        named.setdefault(SUFFIX.sub("", name), path)
    for name, label, values in LABEL.findall(path.read_text()):
        labels.update({(name, label, value): path for value in values.split("|")})

if metrics_at:
    if "://" in metrics_at:
        # The server counts a request after its answer, so only the second page contains a count of requests.
        for _ in range(2):
            request = urllib.request.Request(metrics_at)
            if key := os.environ.get("FDPUSH_KEY"):
                request.add_header("Authorization", f"Bearer {key}")
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    page = answer.read().decode()
            except urllib.error.HTTPError as refused:
                hint = "; set FDPUSH_KEY" if refused.code == 401 else ""
                sys.exit(f"{metrics_at}: {refused.code} {refused.read().decode().strip()}{hint}")
            except OSError as error:
                sys.exit(f"{metrics_at}: {error}")
    else:
        page = pathlib.Path(metrics_at).read_text()
    families = re.findall(r"(?m)^# TYPE (\S+)", page) + re.findall(r"(?m)^([a-z_]+)", page)
    there = {SUFFIX.sub("", family) for family in families}
    for name, path in sorted(named.items()):
        if name not in there:
            faults.append(f"{path}: {name} is not a metric of the server")
    for path in dashboard, handbook:
        page_text = path.read_text()
        for name in sorted({name for name in there if name.startswith("fdpush_")}):
            if not re.search(rf"\b{name}(_total|_bucket|_sum|_count|_info)?\b", page_text):
                faults.append(f"{path}: {name} is missing")
    for (name, label, value), path in sorted(labels.items()):
        if not re.search(rf'(?m)^{name}\{{.*\b{label}="{value}"', page):
            faults.append(f'{path}: {name} has no {label} "{value}"')

# Checks that docs/operations.md has a row for each alert.
rows = "".join(re.findall(r"(?m)^\| (`Fdpush.*?) \|", handbook.read_text()))
for alert in re.findall(r"(?m)^ *- alert: (\w+)$", alerts.read_text()):
    if f"`{alert}`" not in rows:
        faults.append(f"{handbook}: the alert {alert} has no row")

if binary:
    config = subprocess.run([binary, "config"], check=True, capture_output=True, text=True).stdout
    known = set(tomllib.loads(config))
    for key, value in re.findall(r"(?m)^([a-z0-9_]+) = (.*?)  # default$", config):
        # `fdpush config` lists all permissions of client_may instead of `all`.
        if key != "client_may" and f"\n#{key} = {value}\n" not in text:
            faults.append(f"{settings}: the default of {key} must be {value}")
    # The settings file must have each setting that `fdpush config` prints. The settings file may have more settings, because
    # `fdpush config` may omit a setting without a value. `fdpush check` below finds unknown settings.
    for key in sorted(known - keys):
        faults.append(f"{settings}: {key} is missing")
    def check(place, text, allowed=None):
        """Checks a settings file. Errors that match `allowed` are ignored."""
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(text)
            file.flush()
            run = subprocess.run([binary, "check", "--config", file.name], capture_output=True, text=True)
            if run.returncode != 0 and not (allowed and re.search(allowed, run.stderr)):
                faults.append(f"{place}: {run.stderr.strip()}")

    check(settings, text)
    for key in sorted(keys):
        # A single setting may need a file, `auth` or a key that this check does not set. Any other error is a fault.
        line = re.search(rf"(?m)^#({key} = .*)$", text)[1] + "\n"
        check(f"{settings}: {key}", line, allowed=r"No such file| needs --auth | needs its key")

# Checks that the TOML examples of the documents are valid. A secret replaces a key file that does not exist here.
if binary:
    subprocess.run([binary, "cert", "--for", "check", "--out", scratch], check=True, capture_output=True)
    for page in [pathlib.Path("README.md"), *pathlib.Path("docs").glob("*.md")]:
        for block in re.findall(r"(?ms)^```toml\n(.*?)^```$", page.read_text()):
            if block.startswith("fdpush = "):
                continue
            block = re.sub(r"(?m)^jwt_key_file = .*$", f'jwt_secret = ["{"x" * 32}"]', block)
            # A certificate of this script replaces certificates that do not exist here.
            block = re.sub(r"/etc/fdpush/\S+-key\.pem", f"{scratch}/check-key.pem", block)
            block = re.sub(r"/etc/fdpush/\S+\.example\.pem", f"{scratch}/check.pem", block)
            check(page, block)

# Checks that the links of the documents lead to existing files and headings.
def anchors(page):
    """Returns the anchors that GitHub derives from the headings of a page."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text())
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

links = 0
for page in [pathlib.Path("README.md"), *pathlib.Path("docs").glob("*.md"), *pathlib.Path("clients").glob("*/README.md")]:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", page.read_text()):
        target = page.parent / link if link else page
        if "://" in link:
            continue
        links += 1
        if not target.exists():
            faults.append(f"{page}: {link} does not exist")
        elif anchor and anchor not in anchors(target):
            faults.append(f"{page}: {link} has no heading #{anchor}")

for fault in faults:
    print(fault)
print(f"{len(keys)} settings, {len(named)} metrics, {links} links, {len(faults)} faults")
sys.exit(bool(faults))
PYTHON

if command -v promtool >/dev/null; then
    promtool check rules packaging/prometheus/fdpush.rules.yml
fi

# /usr/local/bin/fdpush is not installed here, so the program `true` replaces it in the unit.
if command -v systemd-analyze >/dev/null; then
    cp packaging/systemd/* "$scratch"
    sed -i "s#/usr/local/bin/fdpush#$(command -v true)#" "$scratch/fdpush.service"
    systemd-analyze verify "$scratch"/fdpush.service "$scratch"/fdpush.socket
fi
