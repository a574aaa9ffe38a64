#!/usr/bin/env bash
# Holds packaging/ and docs/ against the server: every file parses, and what they name is there.
#   packaging/check.sh             what can be seen without a server
#   packaging/check.sh METRICS     also that each metric they name is at METRICS, a URL or a file of /metrics
#   packaging/check.sh --live BIN  both of METRICS and FDPUSH_BIN: starts BIN on ports of the kernel's choice
#   FDPUSH_KEY                     the API key of the server at METRICS, where it wants one
#   FDPUSH_BIN                     also that the settings file has this binary's settings and defaults, and passes its `check`
# Needs python3 (3.11); uses systemd-analyze and promtool where they are installed.
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
    binary=$(realpath "${2:?--live wants the path of the binary}")
    # It is there for `sed` even before the server is.
    touch "$scratch/log"
    "$binary" serve --listen 127.0.0.1:0 --api 127.0.0.1:0 >/dev/null 2>"$scratch/log" &
    server=$!
    for (( tries = 100; tries > 0; tries-- )); do
        api=$(sed -n 's/.*the API is on //p' "$scratch/log")
        [[ -z $api ]] || break
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    [[ -n $api ]] || { cat "$scratch/log"; echo "$binary does not serve"; exit 1; } >&2
    metrics=http://$api/metrics
fi
cd "$(dirname "$0")/.."

python3 - "$metrics" "$binary" <<'PYTHON'
import json, os, pathlib, re, subprocess, sys, tempfile, tomllib, urllib.error, urllib.request

metrics_at, binary = sys.argv[1:]
faults = []

# The settings file: as it is, and with every setting switched on.
settings = pathlib.Path("packaging/fdpush.toml")
text = settings.read_text()
if tomllib.loads(text):
    faults.append(f"{settings}: not every setting is commented out")
keys = set(tomllib.loads(re.sub(r"(?m)^#([a-z0-9_]+ = )", r"\1", text)))

# What of the metrics is named in the dashboard, the alerts and the handbook.
dashboard = pathlib.Path("packaging/grafana/fdpush.json")
json.loads(dashboard.read_text())
alerts = pathlib.Path("packaging/prometheus/fdpush.rules.yml")
handbook = pathlib.Path("docs/operations.md")
SUFFIX = re.compile(r"_(total|bucket|sum|count)$")
# Labels whose every value is on a page of metrics from the start.
LABEL = re.compile(r"""\b(fdpush_[a-z_]+)\{[^}]*\b(state|outcome|policy|direction|cause|reason)=~?\\?"([a-z_|]+)""")
named = {}
labels = {}
for path in dashboard, alerts, handbook:
    # Not those that `_` precedes or a letter follows, nor a path such as fdpush_x.toml.
    for name in re.findall(r"\bfdpush_[a-z_]+\b", path.read_text()):
        named.setdefault(SUFFIX.sub("", name), path)
    for name, label, values in LABEL.findall(path.read_text()):
        labels.update({(name, label, value): path for value in values.split("|")})

if metrics_at:
    if "://" in metrics_at:
        # The first request is the first that is counted, so that only the second sees requests at all.
        for _ in range(2):
            request = urllib.request.Request(metrics_at)
            if key := os.environ.get("FDPUSH_KEY"):
                request.add_header("Authorization", f"Bearer {key}")
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
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
            faults.append(f"{path}: {name} is not among the metrics")
    for (name, label, value), path in sorted(labels.items()):
        if not re.search(rf'(?m)^{name}\{{.*\b{label}="{value}"', page):
            faults.append(f'{path}: {name} has no {label} "{value}"')

if binary:
    config = subprocess.run([binary, "config"], check=True, capture_output=True, text=True).stdout
    known = set(tomllib.loads(config))
    for key, value in re.findall(r"(?m)^([a-z0-9_]+) = (.*?)  # default$", config):
        # Of client_may it shows what `all` stands for.
        if key != "client_may" and f"\n#{key} = {value}\n" not in text:
            faults.append(f"{settings}: the default of {key} is {value}")
    # `config` may leave out what has no value; a file that names it must still pass `check`.
    for key in sorted(known - keys):
        faults.append(f"{settings}: {key} is missing")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(text)
        file.flush()
        run = subprocess.run([binary, "check", "--config", file.name], capture_output=True, text=True)
        if run.returncode != 0:
            faults.append(f"{settings}: {run.stderr.strip()}")
    for key in sorted(keys):
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
            file.write(re.search(rf"(?m)^#({key} = .*)$", text)[1] + "\n")
            file.flush()
            run = subprocess.run([binary, "check", "--config", file.name], capture_output=True, text=True)
            # Alone, a setting may lack its file or the `auth` that it is for, and nothing else.
            if run.returncode != 0 and not re.search(r"No such file| is for --auth ", run.stderr):
                faults.append(f"{settings}: {key}: {run.stderr.strip()}")

# What the documents show of settings is sound, with a secret in place of a file that is not here.
if binary:
    for page in [pathlib.Path("README.md"), *pathlib.Path("docs").glob("*.md")]:
        for block in re.findall(r"(?ms)^```toml\n(.*?)^```$", page.read_text()):
            if block.startswith("fdpush = "):
                continue
            block = re.sub(r"(?m)^jwt_key_file = .*$", f'jwt_secret = ["{"x" * 32}"]', block)
            with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
                file.write(block)
                file.flush()
                run = subprocess.run([binary, "check", "--config", file.name], capture_output=True, text=True)
                if run.returncode != 0:
                    faults.append(f"{page}: {run.stderr.strip()}")

# Links of the documentation to files of the repository.
for page in [pathlib.Path("README.md"), *pathlib.Path("docs").glob("*.md")]:
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in link and not (page.parent / link).exists():
            faults.append(f"{page}: {link} is not there")

for fault in faults:
    print(fault)
print(f"{len(keys)} settings, {len(named)} metrics, {len(faults)} faults")
sys.exit(bool(faults))
PYTHON

if command -v promtool >/dev/null; then
    promtool check rules packaging/prometheus/fdpush.rules.yml
fi

# The units are verified with a stand-in for the binary, which is not installed here.
if command -v systemd-analyze >/dev/null; then
    cp packaging/systemd/* "$scratch"
    sed -i "s#/usr/local/bin/fdpush#$(command -v true)#" "$scratch/fdpush.service"
    systemd-analyze verify "$scratch"/fdpush.service "$scratch"/fdpush.socket
fi
